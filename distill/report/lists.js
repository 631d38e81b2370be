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
    key: "trace",
    noun: ["trace", "traces"],
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

// The list on the page of two runs: the problems that both have, with the answers in each.
function pairList({ problems, pairs, names, reasons, keys }) {
  const problemOf = (pair) => problems[pair.problem];
  const isRight = (traces) => traces.some((trace) => trace.correct === true);
  const kinds = [
    ["second", `right in ${names[1]} alone`, (pair) => !isRight(pair.sides[0]) && isRight(pair.sides[1])],
    ["first", `right in ${names[0]} alone`, (pair) => isRight(pair.sides[0]) && !isRight(pair.sides[1])],
    ["both", "right in both", (pair) => isRight(pair.sides[0]) && isRight(pair.sides[1])],
    ["neither", "right in neither", (pair) => !isRight(pair.sides[0]) && !isRight(pair.sides[1])],
  ];
  const tally = (traces) => `${traces.filter((trace) => trace.correct).length} of ${traces.length} right`;
  const side = (name, traces, problem, state) =>
    make(
      "section",
      { class: "side", "aria-label": name },
      make("h4", { dir: "auto" }, name, make("span", { class: "why" }, ` · ${tally(traces)}`)),
      ...traces.map((trace, place) =>
        make(
          "details",
          { class: "sample", open: place === 0 },
          make("summary", {}, badge(trace), make("span", { class: "why" },
            ` sample ${trace.sample} · ${gradeOf(trace)} · ${lengthOf(trace)}`)),
          ...traceNodes(trace, problem, state, { reasons, keys })
        )
      )
    );
  return {
    key: "problem",
    noun: ["question", "questions"],
    entries: pairs,
    idOf: (pair) => `${pair.stage}/${problemOf(pair).id}`,
    row: (pair, state) => [
      make("span", { class: "ask", dir: "auto" }, ...shortNodes(problemOf(pair).question.slice(0, 200), state.terms)),
      ...names.map((name, i) => make("span", { class: "why", dir: "auto" }, `${name}: ${tally(pair.sides[i])}`)),
    ],
    read: (pair, state) => [
      make("h3", {}, make("span", { class: "why ids" }, `${pair.stage} · ${problemOf(pair).id}`)),
      ...questionNodes(problemOf(pair), state),
      make("div", { class: "pair" },
        ...names.map((name, i) => side(name, pair.sides[i], problemOf(pair), state))),
    ],
    words: (pair) => [
      problemOf(pair).id,
      problemOf(pair).question,
      ...pair.sides.flat().flatMap((trace) => [trace.answer || "", passageText(trace.thinking), passageText(trace.text)]),
    ],
    filters: [
      choice("stage", "Asked in", pairs, unique(pairs.map((pair) => pair.stage)).map((s) => [s, s]),
        (pair, value) => pair.stage === value),
      choice("which", "Answers", pairs, kinds.map(([name, label]) => [name, label]),
        (pair, value) => kinds.find(([name]) => name === value)[2](pair)),
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
