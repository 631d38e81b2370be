// The view of one trace, or of one problem with the answers of several sides. Models' texts only ever become text nodes; formulas in them
// become elements that KaTeX builds.

const UNTOLD = "\u2013";
const byId = (id) => document.getElementById(id);

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // A page opened from a file may have no storage; the choice is then lost when the page closes.
  }
}

const whole = (n) => Math.round(n).toLocaleString("en-US");

const OUTCOMES = {
  kept: "Kept",
  dropped: "Dropped",
  ungraded: "Could not be graded",
  unfiltered: "Not filtered yet",
  right: "Right",
  wrong: "Wrong",
};
const gradeOf = (trace) => (trace.correct === null ? "not graded" : trace.correct ? "right" : "wrong");
const SIGNS = { right: "✓", wrong: "✕", "not graded": "?" };
const lengthOf = (trace) => (trace.length === null ? UNTOLD : `${whole(trace.length)} tokens`);
const MARKS = {
  loop: "a loop: one piece over and over",
  repeated: "what was said before, word for word",
  foreign: "words in another language",
};

// A text as nodes, with hits marked and formulas to be drawn. A formula that contains a hit is shown raw.
function textNodes(text, hits, formulas = formulasIn(text)) {
  const isFree = (one) => !hits.some(([start, end]) => start < one.end && end > one.start);
  const special = [
    ...hits.map(([start, end]) => ({ start, end, node: () => make("mark", { class: "hit" }, text.slice(start, end)) })),
    ...formulas.filter(isFree).map(({ start, end, tex, isDisplay }) => ({
      start, end, node: () => formulaNode(text.slice(start, end), tex, isDisplay),
    })),
  ].sort((one, other) => one.start - other.start);
  const found = [];
  let place = 0;
  for (const { start, end, node } of special) {
    if (start > place) found.push(document.createTextNode(text.slice(place, start)));
    found.push(node());
    place = end;
  }
  if (place < text.length) found.push(document.createTextNode(text.slice(place)));
  return found;
}

const passageText = (parts) =>
  parts.map((part) => (typeof part === "string" ? part : typeof part === "number" ? "\0" : part.text)).join("");

// Nodes for parts in the format of distill/report/passage.py. A hit may span several parts.
function passageNodes(parts, terms) {
  const text = passageText(parts);
  const hits = hitsIn(text, terms);
  const formulas = formulasIn(text);
  let first = 0;
  return parts.flatMap((part) => {
    const length = typeof part === "number" ? 1 : (part.text || part).length;
    const [start, end] = [first, first + length];
    first = end;
    if (typeof part === "number") return [make("span", { class: "gap" }, `${whole(part)} characters left out`)];
    const here = hits
      .filter(([from, to]) => from < end && to > start)
      .map(([from, to]) => [Math.max(from, start) - start, Math.min(to, end) - start]);
    const within = formulas
      .filter((one) => one.start >= start && one.end <= end)
      .map((one) => ({ ...one, start: one.start - start, end: one.end - start }));
    const nodes = textNodes(part.text || part, here, within);
    return typeof part === "string" ? nodes : [make("mark", { class: part.mark, title: MARKS[part.mark] }, ...nodes)];
  });
}

const passageLength = (parts) =>
  parts.reduce((sum, part) => sum + (typeof part === "number" ? part : (part.text || part).length), 0);

const marksIn = (parts) => new Set(parts.filter((part) => part.mark).map((part) => part.mark));

function textBox(label, parts, state) {
  const nodes = parts.length ? passageNodes(parts, state.terms) : [document.createTextNode("(empty)")];
  return make("div", { class: "text", dir: "auto", tabindex: "0", role: "region", "aria-label": label }, ...nodes);
}

// A short text in a list or a fact.
const shortNodes = (text, terms) => textNodes(text, hitsIn(text, terms));

function answerNodes(answer, terms) {
  if (answer === null) return [UNTOLD];
  const isFormula = isBareFormula(answer) && !hitsIn(answer, terms).length;
  return isFormula ? [formulaNode(answer, `\\displaystyle ${answer}`, false)] : shortNodes(answer, terms);
}

function factList(pairs, className) {
  const rows = pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value, kind]) =>
      make("div", { class: kind }, make("dt", {}, name), make("dd", { dir: "auto" }, ...[value].flat())));
  return make("dl", { class: className }, ...rows);
}

const badge = (trace) => make("span", { class: `verdict ${trace.outcome}` }, OUTCOMES[trace.outcome] || trace.outcome);

// A reason's keys in the recipe, each linked to its line if the recipe is on this page.
function keyNodes(keys) {
  return (keys || []).flatMap(({ key, value, at }, place) => [
    place ? ", " : " Decided by ",
    at ? make("a", { class: "key-link", href: `#key-${at}` }, make("code", {}, value === null ? key : `${key}: ${value}`))
      : make("code", {}, key),
  ]);
}

function reasonList(trace, { reasons, keys }) {
  const rows = trace.reasons.map((reason) =>
    make("li", {}, make("code", {}, reason), `: ${reasons[reason] || reason}`, detailOf(trace.details[reason]), ".",
      ...keyNodes(keys[reason]), (keys[reason] || []).length ? "." : "")
  );
  for (const [name, text] of Object.entries(trace.details)) {
    if (!trace.reasons.includes(name)) rows.push(make("li", {}, make("code", {}, name), `: ${text}`));
  }
  return rows.length ? make("ul", { class: "reasons" }, ...rows) : null;
}

const detailOf = (detail) => (detail ? make("span", { class: "why", dir: "auto" }, ` (${detail})`) : null);

function thinkingBox(trace, state) {
  if (!trace.thinking.length) return make("p", { class: "note" }, "No thinking.");
  const num = passageLength(trace.thinking);
  const share = Math.round((100 * num) / (num + passageLength(trace.text)));
  const isMarked = marksIn(trace.thinking).size > 0 || hitsIn(passageText(trace.thinking), state.terms).length > 0;
  const isOpen = isMarked || (state.thinking === null ? num <= 4000 : state.thinking);
  const box = make(
    "details",
    { class: "thinking", open: isOpen },
    make("summary", {}, `Thinking, ${share}% of the text`),
    textBox("Thinking", trace.thinking, state)
  );
  box.querySelector("summary").addEventListener("click", () => {
    state.thinking = !box.open;
  });
  return box;
}

// The first test that a program failed, with what it was given, what was expected, and what came.
function failedTest({ failed }) {
  if (!failed) return null;
  const rows = [["Input", failed.input], ["Expected", failed.expected], ["Got", failed.got], ["It said", failed.detail]];
  return make("section", { class: "failed-test" },
    make("p", { class: "text-label" }, `First failing test: number ${whole(failed.number)}, ${failed.end}${failed.passed ? `; ${failed.passed} tests passed` : ""}`),
    factList(rows.filter(([, text]) => text.trim()).map(([name, text]) => [name, make("pre", { tabindex: "0" }, text)]), "facts"));
}

// The parts of a trace below its question.
function traceNodes(trace, problem, state, words) {
  if (problem.hidden) return [reasonList(trace, words), factList([["Grade", gradeOf(trace)], ["Finish reason", trace.finish]], "facts tight")].filter(Boolean);
  const marks = [...new Set([...marksIn(trace.thinking), ...marksIn(trace.text)])];
  const isProgram = "tests_passed" in trace.details;
  const [expected, extracted] = isProgram ? ["Own solution", "Program"] : ["Expected answer", "Extracted answer"];
  const shown = (answer) => (isProgram && answer !== null ? [make("pre", { tabindex: "0" }, answer)] : answerNodes(answer, state.terms));
  return [
    reasonList(trace, words),
    failedTest(trace),
    factList(
      [
        [expected, shown(problem.answer)],
        [extracted, shown(trace.answer), gradeOf(trace).replace(" ", "-")],
      ],
      "facts answers"
    ),
    factList(
      [
        ["Grade", gradeOf(trace) + (["", "rule"].includes(trace.graded_by) ? "" : `, by ${trace.graded_by}`)],
        ["Length", lengthOf(trace)],
        ["Written by", trace.teacher],
        ["Finish reason", trace.finish],
        ["Source", problem.source],
      ],
      "facts tight"
    ),
    marks.length
      ? make("p", { class: "note" }, "Marked: ", ...marks.flatMap((kind, i) => [
          i ? ", " : "",
          make("mark", { class: kind }, MARKS[kind]),
        ]), ".")
      : null,
    thinkingBox(trace, state),
    make("p", { class: "text-label" }, "Answer"),
    textBox("Answer", trace.text, state),
  ].filter(Boolean);
}

function questionNodes(problem, state) {
  if (problem.hidden) return [make("p", { class: "note" }, "The authors ask that the texts of this benchmark are not spread, so neither question nor answers are shown.")];
  return [make("p", { class: "text-label" }, "Question"), textBox("Question", [problem.question], state)];
}
