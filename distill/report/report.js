// The page's theme, and the browser of traces: a filtered list in pages, one entry open, its address in the location.

const PAGE_SIZE = 25;
const byId = (id) => document.getElementById(id);

function startTheme() {
  const themes = ["system", "light", "dark"];
  const button = byId("theme");
  const remembered = () => {
    try {
      return localStorage.getItem("distill-theme");
    } catch {
      return null;
    }
  };
  const set = (theme) => {
    if (theme === "system") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", theme);
    button.textContent = { system: "◐ System", light: "○ Light", dark: "● Dark" }[theme];
    button.setAttribute("aria-label", `Colours: ${theme}. Change`);
    button.dataset.theme = theme;
  };
  set(themes.includes(remembered()) ? remembered() : "system");
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(button.dataset.theme) + 1) % themes.length];
    set(next);
    try {
      localStorage.setItem("distill-theme", next);
    } catch {
      // A page from a file may have no storage; the choice then lasts as long as the page.
    }
  });
}

// What a page of one run lists: its traces.
function traceList({ problems, traces, reasons }) {
  const problemOf = (trace) => problems[trace.problem];
  const idOf = (trace) => `${problemOf(trace).id}/${trace.sample}`;
  const inReasons = (trace, value) => trace.outcome === value || trace.reasons.includes(value);
  const row = (trace) => [
    make("span", { class: "row-top" }, badge(trace), make("span", { class: "why" }, `${lengthOf(trace)}`)),
    make("span", { class: "ask", dir: "auto" }, problemOf(trace).question.slice(0, 200) || idOf(trace)),
    make("span", { class: "why ids" }, [idOf(trace), ...trace.reasons].join(" · ")),
  ];
  const siblings = (trace) => {
    const same = traces.filter((other) => other.problem === trace.problem);
    if (same.length < 2) return null;
    const links = same.map((other) =>
      make(
        "a",
        { href: `#trace=${encodeURIComponent(idOf(other))}`, "aria-current": other === trace ? "true" : null,
          class: `sibling ${gradeOf(other).replace(" ", "-")}`, title: `${OUTCOMES[other.outcome]}, ${gradeOf(other)}` },
        `${other.sample} ${{ right: "✓", wrong: "✕" }[gradeOf(other)] || "?"}`
      )
    );
    return make("p", { class: "siblings" }, make("span", { class: "text-label" }, "Samples of this question"), ...links);
  };
  const read = (trace, state) => [
    make("h3", {}, badge(trace), make("span", { class: "why ids" }, `${problemOf(trace).id} · sample ${trace.sample}`)),
    siblings(trace),
    ...questionNodes(problemOf(trace), state),
    ...traceNodes(trace, problemOf(trace), state, reasons),
  ];
  const lengths = traces.map((trace) => trace.length);
  return {
    key: "trace",
    noun: ["trace", "traces"],
    entries: traces,
    idOf,
    row,
    read,
    words: (trace) =>
      [idOf(trace), problemOf(trace).question, trace.answer || "", passageText(trace.thinking), passageText(trace.text)],
    filters: [
      choice("reason", "Outcome", traces, [
        ...Object.keys(OUTCOMES).map((name) => [name, OUTCOMES[name]]),
        ...Object.keys(reasons).map((name) => [name, name]),
      ], inReasons),
      choice("source", "Source", traces, unique(problems.map((problem) => problem.source)).map((s) => [s, s]),
        (trace, value) => problemOf(trace).source === value),
      choice("correct", "Grade", traces, ["right", "wrong", "not graded"].map((s) => [s, s]),
        (trace, value) => gradeOf(trace) === value),
      {
        name: "length",
        label: `Length, ${unique(traces.map((trace) => trace.unit)).join(" or ")}`,
        bounds: [Math.min(...lengths), Math.max(...lengths)],
        test: (trace, [low, high]) => trace.length >= low && trace.length <= high,
      },
    ],
  };
}

// What a page of two runs lists: the problems that both have, each with its answers in both.
function pairList({ problems, pairs, names, reasons }) {
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
          ...traceNodes(trace, problem, state, reasons)
        )
      )
    );
  return {
    key: "problem",
    noun: ["question", "questions"],
    entries: pairs,
    idOf: (pair) => `${pair.stage}/${problemOf(pair).id}`,
    row: (pair) => [
      make("span", { class: "ask", dir: "auto" }, problemOf(pair).question.slice(0, 200)),
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

// A filter by one of some values; those that nothing has are left out.
function choice(name, label, entries, values, test) {
  const options = values
    .map(([value, shown]) => [value, shown, entries.filter((entry) => test(entry, value)).length])
    .filter(([, , num]) => num > 0);
  return { name, label, options, test };
}

function startBrowser(list) {
  const root = byId("browser");
  const form = root.querySelector("form");
  const [found, rows, pager, reader] = [".found", ".list", ".pager", ".reader"].map((name) => root.querySelector(name));
  const state = { search: "", thinking: null, page: 0, open: null, values: {} };
  const byName = new Map(list.entries.map((entry) => [list.idOf(entry), entry]));
  const words = new Map();
  let matching = list.entries;

  const wordsOf = (entry) => {
    if (!words.has(entry)) words.set(entry, list.words(entry).join("\n").toLowerCase());
    return words.get(entry);
  };
  const addressOf = (entry) => `#${list.key}=${encodeURIComponent(list.idOf(entry))}`;

  for (const filter of list.filters) {
    if (filter.bounds) {
      const inputs = filter.bounds.map((bound, i) =>
        make("input", { type: "number", min: 0, name: `${filter.name}-${i}`, placeholder: `${i ? "to" : "from"} ${bound}`,
          "aria-label": `${filter.label}, ${i ? "at most" : "at least"}`, inputmode: "numeric" })
      );
      form.append(make("fieldset", { class: "bounds" }, make("legend", {}, filter.label), ...inputs));
    } else if (filter.options.length > 1) {
      const options = filter.options.map(([value, shown, num]) => make("option", { value }, `${shown} (${whole(num)})`));
      form.append(make("label", {}, make("span", {}, filter.label),
        make("select", { name: filter.name }, make("option", { value: "" }, "Any"), ...options)));
    }
  }
  form.append(make("button", { type: "reset" }, "Clear"));

  function readForm() {
    state.search = form.elements.search.value.trim().toLowerCase();
    const tests = [];
    for (const filter of list.filters) {
      if (filter.bounds) {
        const [low, high] = [0, 1].map((i) => form.elements[`${filter.name}-${i}`].value);
        if (low !== "" || high !== "") {
          const bounds = [low === "" ? -Infinity : Number(low), high === "" ? Infinity : Number(high)];
          tests.push((entry) => filter.test(entry, bounds));
        }
      } else if (form.elements[filter.name] && form.elements[filter.name].value !== "") {
        const value = form.elements[filter.name].value;
        tests.push((entry) => filter.test(entry, value));
      }
    }
    if (state.search) tests.push((entry) => wordsOf(entry).includes(state.search));
    matching = list.entries.filter((entry) => tests.every((test) => test(entry)));
  }

  function showList() {
    const num = matching.length;
    const noun = list.noun[list.entries.length === 1 ? 0 : 1];
    found.textContent = num === list.entries.length ? `${whole(num)} ${noun}` : `${whole(num)} of ${whole(list.entries.length)} ${noun}`;
    const numPages = Math.max(1, Math.ceil(num / PAGE_SIZE));
    state.page = Math.min(Math.max(state.page, 0), numPages - 1);
    const first = state.page * PAGE_SIZE;
    rows.replaceChildren(
      ...matching.slice(first, first + PAGE_SIZE).map((entry) =>
        make("li", {}, make("a", { href: addressOf(entry), "aria-current": entry === state.open ? "true" : null }, ...list.row(entry)))
      )
    );
    rows.setAttribute("start", first + 1);
    const turn = (label, step, isPossible) => {
      const button = make("button", { type: "button", disabled: !isPossible, "data-step": step }, label);
      button.addEventListener("click", () => {
        state.page += step;
        showList();
        rows.parentElement.scrollTop = 0;
      });
      return button;
    };
    pager.replaceChildren(
      turn("← Back", -1, state.page > 0),
      make("span", {}, num ? `${whole(first + 1)} to ${whole(Math.min(first + PAGE_SIZE, num))} of ${whole(num)}` : "Nothing fits"),
      turn("Next →", 1, state.page < numPages - 1)
    );
  }

  function showEntry(message) {
    const place = matching.indexOf(state.open);
    const beside = [["Previous", place > 0 ? place - 1 : -1], ["Next", place >= 0 ? place + 1 : -1]]
      .filter(([, at]) => matching[at])
      .map(([label, at]) => make("a", { href: addressOf(matching[at]) }, label));
    const back = make("nav", { class: "back" }, make("a", { href: "#traces" }, `← All ${list.noun[1]}`), ...beside);
    const nodes = state.open
      ? list.read(state.open, state)
      : [make("p", { class: "note" }, message || `Choose one of the ${list.noun[1]} to read it.`)];
    reader.replaceChildren(back, ...nodes.filter(Boolean));
    reader.scrollTop = 0;
    root.classList.toggle("reading", Boolean(state.open || (message && matching.length)));
  }

  function open(entry, message) {
    state.open = entry;
    const place = matching.indexOf(entry);
    if (place >= 0) state.page = Math.floor(place / PAGE_SIZE);
    showList();
    showEntry(message);
    const current = rows.querySelector("[aria-current]");
    if (current) {
      const pane = rows.parentElement;
      const [top, bottom] = [current.offsetTop - pane.offsetTop, current.offsetTop - pane.offsetTop + current.offsetHeight];
      if (top < pane.scrollTop) pane.scrollTop = top;
      else if (bottom > pane.scrollTop + pane.clientHeight) pane.scrollTop = bottom - pane.clientHeight;
    }
  }

  // The location tells what is shown, so that a link leads to it and Back leads back.
  function follow() {
    const [, name, value] = /^#(\w+)=(.*)$/s.exec(location.hash) || [];
    if (name === list.key) {
      let id = value;
      try {
        id = decodeURIComponent(value);
      } catch {
        // Not an address of ours; it is looked up as it stands.
      }
      const entry = byName.get(id);
      open(entry || null, entry ? "" : `${id} is not on this page. distill filter --explain ${id} tells its story.`);
      const { top, bottom } = root.getBoundingClientRect();
      if (isNarrow() || bottom < 200 || top > innerHeight - 200) root.scrollIntoView();
    } else if (name === "reason" && form.elements.reason) {
      form.reset();
      form.elements.reason.value = decodeURIComponent(value);
      state.page = 0;
      state.open = null;
      refresh();
      byId("traces").scrollIntoView();
    } else if (isNarrow() && state.open && ["#traces", ""].includes(location.hash)) {
      state.open = null;
      showList();
      showEntry();
    }
  }

  const isNarrow = () => matchMedia("(max-width: 60rem)").matches;

  // Beside the list there is room for a trace from the start; a narrow page shows the one or the other.
  function refresh() {
    readForm();
    if (isNarrow()) state.open = null;
    else if (!matching.includes(state.open)) state.open = matching[0] || null;
    showList();
    showEntry(matching.length ? "" : "Nothing fits. Search for something else, or clear the filters.");
  }

  let waiting = 0;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      state.page = 0;
      refresh();
    }, 120);
  });
  form.addEventListener("reset", () => setTimeout(() => {
    state.page = 0;
    refresh();
  }));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", follow);
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
    if (event.key === "/") {
      event.preventDefault();
      form.elements.search.focus();
    } else if (event.key === "t") {
      const box = reader.querySelector("details.thinking, details.sample");
      if (box) {
        box.open = !box.open;
        state.thinking = box.open;
      }
    } else if (event.key === "j" || event.key === "k") {
      const place = matching.indexOf(state.open);
      const next = matching[place < 0 ? 0 : place + (event.key === "j" ? 1 : -1)];
      // In place of the last one: Back leads out of the list, not through all of it.
      if (next) location.replace(addressOf(next));
    }
  });
  root.hidden = false;
  refresh();
  follow();
}

startTheme();
const payload = JSON.parse(byId("payload").textContent || "{}");
if (payload.pairs) startBrowser(pairList(payload));
else if (payload.traces) startBrowser(traceList(payload));
