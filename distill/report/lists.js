// The lists of the trace browser: entries, rows and filters.

// The list on the page of one run: its traces, grouped by question.
function traceList({ problems, traces, reasons, keys }) {
  const problemOf = (trace) => problems[trace.problem];
  const idOf = (trace) => `${problemOf(trace).id}/${trace.sample}`;
  const inReasons = (trace, value) => trace.outcome === value || trace.reasons.includes(value);
  const fateOf = (trace) => (trace.outcome === "dropped" && trace.reasons.length ? trace.reasons[0] : OUTCOMES[trace.outcome]);
  const samples = new Map();
  for (const trace of traces) samples.set(trace.problem, [...(samples.get(trace.problem) || []), trace]);
  const sign = (trace) =>
    make("span", { class: `sign ${gradeOf(trace).replace(" ", "-")}`, role: "img", "aria-label": gradeOf(trace), title: gradeOf(trace) },
      SIGNS[gradeOf(trace)]);
  const row = (trace) => [
    make("span", { class: "index" }, make("span", { class: "sr" }, "Sample "), trace.sample),
    sign(trace),
    make("span", { class: `fate ${trace.outcome}` }, fateOf(trace)),
    make("span", { class: "why" }, lengthOf(trace)),
  ];
  const group = (trace, state) => {
    const all = samples.get(trace.problem);
    const kept = all.filter((other) => other.outcome === "kept").length;
    const told = trace.outcome === "unfiltered" ? "" : `, ${whole(kept)} kept`;
    return [
      make("span", { class: "ask", dir: "auto" }, ...shortNodes(problemOf(trace).question.slice(0, 200) || idOf(trace), state.terms)),
      make("span", { class: "why ids" }, `${problemOf(trace).id} · ${whole(all.length)} ${all.length === 1 ? "sample" : "samples"}${told}`),
    ];
  };
  const siblings = (trace, addressOf) => {
    const same = samples.get(trace.problem);
    if (same.length < 2) return null;
    const links = same.map((other) =>
      make(
        "a",
        { href: addressOf(other), "aria-current": other === trace ? "true" : null, class: `sibling ${other.outcome}` },
        make("span", { class: "index" }, other.sample), sign(other), make("span", { class: "fate" }, fateOf(other))
      )
    );
    return make("nav", { class: "siblings", "aria-label": "Samples of this question" },
      make("span", { class: "text-label" }, "Samples of this question"), ...links);
  };
  const read = (trace, state, addressOf) => [
    make("h3", {}, badge(trace), make("span", { class: "why ids" }, `${problemOf(trace).id} · sample ${trace.sample}`)),
    siblings(trace, addressOf),
    ...questionNodes(problemOf(trace), state),
    ...traceNodes(trace, problemOf(trace), state, { reasons, keys }),
  ];
  const lengths = traces.map((trace) => trace.length).filter((length) => length !== null);
  return {
    root: "browser",
    home: "traces",
    key: "trace",
    query: "q",
    page: "page",
    noun: ["trace", "traces"],
    elsewhere: (id) => ` Run distill filter --explain ${id} for details.`,
    entries: traces,
    idOf,
    row,
    group,
    groupOf: (trace) => trace.problem,
    read,
    words: (trace) =>
      [idOf(trace), problemOf(trace).question, trace.answer || "", passageText(trace.thinking), passageText(trace.text)],
    filters: [
      choice("reason", "Outcome", traces, [
        ...Object.keys(OUTCOMES).map((name) => [name, OUTCOMES[name]]),
        ...Object.keys(reasons).map((name) => [name, name]),
      ], inReasons),
      choice("teacher", "Written by", traces, unique(traces.map((trace) => trace.teacher).filter(Boolean)).map((s) => [s, s]),
        (trace, value) => trace.teacher === value),
      choice("source", "Source", traces, unique(problems.map((problem) => problem.source)).map((s) => [s, s]),
        (trace, value) => problemOf(trace).source === value),
      choice("grade", "Grade", traces, ["right", "wrong", "not graded"].map((s) => [s, s]),
        (trace, value) => gradeOf(trace) === value),
      ...(lengths.length ? [{
        name: "length",
        label: "Length, tokens",
        bounds: [Math.min(...lengths), Math.max(...lengths)],
        test: (trace, [low, high]) => trace.length !== null && trace.length >= low && trace.length <= high,
      }] : []),
    ],
  };
}

// Where a list of pairs stands: the names that it has in the address differ from those of another list on the page.
const TWO_RUNS = { root: "browser", home: "traces", key: "problem", query: "q", page: "page", stage: "Asked in", isWhole: true };
const ANSWERS_OF_RUN = { root: "answer-browser", home: "answers", key: "item", query: "find", page: "at", stage: "Benchmark" };

// Problems with the answers of several sides (runs, or models): two of them are compared, gained ones first, then lost.
function pairList({ problems, pairs, names, reasons, keys }, { stage, isWhole, ...place }) {
  const problemOf = (pair) => problems[pair.problem];
  const several = names.length > 1;
  let compared = several ? [0, 1] : [0];
  let shown = compared;

  function kindOf({ tallies }) {
    const [one, other] = compared.map((side) => tallies[side][0]);
    if (one === null || other === null) return "unknown";
    if (!several) return one === 1 ? "right" : one === 0 ? "wrong" : "partly";
    if (one !== other) return other > one ? "second" : "first";
    return one > 0 ? "both" : "neither";
  }
  const labelOf = (kind) => ({
    second: `gained: ${names[compared[1]]} does better`,
    first: `lost: ${names[compared[0]]} does better`,
    both: "as good, with right answers",
    neither: "right in neither",
    right: "right",
    partly: "partly right",
    wrong: "wrong",
    unknown: several ? "not graded in both" : "not graded",
  })[kind];
  const KINDS = several ? ["second", "first", "both", "neither", "unknown"] : ["right", "partly", "wrong", "unknown"];
  const WORDS = { second: "gained", first: "lost" };

  const tally = ([, right, samples, ungraded]) => samples === 0 ? "no answer"
    : `${right} of ${samples - ungraded} right${ungraded ? `, ${ungraded} not graded` : ""}`;
  const askOf = (pair, state) => problemOf(pair).hidden
    ? [`${problemOf(pair).id}: text not shown`] : shortNodes(problemOf(pair).question.slice(0, 200), state.terms);
  const side = (pair, index, state) => {
    const [name, traces, problem] = [names[index], pair.sides[index], problemOf(pair)];
    const [, , samples] = pair.tallies[index];
    return make("section", { class: "side", "aria-label": name },
      make("h4", { dir: "auto" }, name, make("span", { class: "why" }, ` · ${tally(pair.tallies[index])}`)),
      traces.length < samples ? make("p", { class: "note" }, `${traces.length} of ${samples} samples are on this page.`) : "",
      ...traces.map((trace, at) =>
        make("details", { class: "sample", open: at === 0 },
          make("summary", {}, badge(trace), make("span", { class: "why" },
            ` sample ${trace.sample} · ${gradeOf(trace)} · ${lengthOf(trace)}`)),
          ...traceNodes(trace, problem, state, { reasons, keys })
        )
      )
    );
  };
  const each = names.map((name, index) => [String(index), name]);
  const settings = names.length < 3 ? [] : [
    { name: "first", label: "First model", options: each, value: "0" },
    { name: "second", label: "Second model", options: each, value: "1" },
    { name: "show", label: "Show", options: [["two", "these two"], ["all", "all models"]], value: "two" },
  ];
  // Stable: within a kind the order stays that of the page.
  const rank = (pair) => (pair.stage === "training" ? 3 : 0) + (several ? Math.min(KINDS.indexOf(kindOf(pair)), 2) : 0);
  function arrange(view) {
    if (settings.length) {
      compared = [Number(view.first), Number(view.second)];
      shown = view.show === "all" ? names.map((_, index) => index) : unique(compared);
    }
    return pairs.map((pair) => [rank(pair), pair]).sort((one, other) => one[0] - other[0]).map(([, pair]) => pair);
  }
  return {
    ...place,
    noun: ["question", "questions"],
    elsewhere: () => "",
    entries: pairs,
    settings,
    arrange,
    idOf: (pair) => (isWhole ? `${pair.stage}/${problemOf(pair).id}` : problemOf(pair).id),
    row: (pair, state) => [
      make("span", { class: "ask", dir: "auto" }, ...askOf(pair, state)),
      ...shown.map((index) => make("span", { class: "why", dir: "auto" }, `${names[index]}: ${tally(pair.tallies[index])}`)),
      WORDS[kindOf(pair)] ? make("span", { class: `turn ${kindOf(pair)}` }, WORDS[kindOf(pair)]) : "",
    ],
    read: (pair, state) => [
      make("h3", {}, make("span", { class: "why ids" }, `${pair.stage} · ${problemOf(pair).id}`)),
      ...questionNodes(problemOf(pair), state),
      make("div", { class: "pair" }, ...shown.map((index) => side(pair, index, state))),
    ],
    words: (pair) => [
      problemOf(pair).id,
      problemOf(pair).question,
      ...pair.sides.flat().flatMap((trace) => [trace.answer || "", passageText(trace.thinking), passageText(trace.text)]),
    ],
    filters: [
      choice("stage", stage, pairs, unique(pairs.map((pair) => pair.stage)).map((s) => [s, s]),
        (pair, value) => pair.stage === value),
      {
        name: "which", label: "Answers", isLive: true, labelOf, options: KINDS.map((kind) => [kind, labelOf(kind), 0]),
        test: (pair, value) => kindOf(pair) === value,
      },
    ],
  };
}

const unique = (values) => [...new Set(values)].sort();

// A filter by one of several values; values without entries are left out.
function choice(name, label, entries, values, test) {
  const options = values
    .map(([value, shown]) => [value, shown, entries.filter((entry) => test(entry, value)).length])
    .filter(([, , num]) => num > 0);
  return { name, label, options, test };
}
