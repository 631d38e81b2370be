// What the browser shows of one trace, or of one problem in two runs. Texts of models only ever become text nodes.

const NUM_HITS = 300;
const UNTOLD = "\u2013";

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
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
const lengthOf = (trace) => `${whole(trace.length)} ${trace.unit}`;
const MARKS = {
  loop: "the loop that the text ends in",
  repeated: "what was said before, word for word",
  foreign: "words in another language",
};

// A plain text in pieces, with every occurrence of what is searched for marked.
function withHits(text, search, hits) {
  if (!search) return [document.createTextNode(text)];
  const found = [];
  const low = text.toLowerCase();
  // Lower case can change the length of a text; then places in it say nothing about the original.
  if (low.length !== text.length) return [document.createTextNode(text)];
  let place = 0;
  for (let at = low.indexOf(search); at >= 0 && hits.num < NUM_HITS; at = low.indexOf(search, place)) {
    if (at > place) found.push(document.createTextNode(text.slice(place, at)));
    found.push(make("mark", { class: "hit" }, text.slice(at, at + search.length)));
    place = at + search.length;
    hits.num += 1;
  }
  if (place < text.length) found.push(document.createTextNode(text.slice(place)));
  return found;
}

// Parts as distill/report/passage.py writes them.
function passageNodes(parts, search) {
  const hits = { num: 0 };
  return parts.flatMap((part) => {
    if (typeof part === "number") return [make("span", { class: "gap" }, `${whole(part)} characters left out`)];
    if (typeof part === "string") return withHits(part, search, hits);
    return [make("mark", { class: part.mark, title: MARKS[part.mark] }, ...withHits(part.text, search, hits))];
  });
}

const passageText = (parts) =>
  parts.map((part) => (typeof part === "string" ? part : typeof part === "number" ? "\n" : part.text)).join("");

const passageLength = (parts) =>
  parts.reduce((sum, part) => sum + (typeof part === "number" ? part : (part.text || part).length), 0);

const marksIn = (parts) => new Set(parts.filter((part) => part.mark).map((part) => part.mark));

function textBox(label, parts, search) {
  const nodes = parts.length ? passageNodes(parts, search) : [document.createTextNode("(empty)")];
  return make("div", { class: "text", dir: "auto", tabindex: "0", role: "region", "aria-label": label }, ...nodes);
}

function factList(pairs, className) {
  const rows = pairs
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value, kind]) => make("div", { class: kind }, make("dt", {}, name), make("dd", { dir: "auto" }, value)));
  return make("dl", { class: className }, ...rows);
}

const badge = (trace) => make("span", { class: `verdict ${trace.outcome}` }, OUTCOMES[trace.outcome] || trace.outcome);

function reasonList(trace, reasons) {
  const rows = trace.reasons.map((reason) =>
    make("li", {}, make("code", {}, reason), `: ${reasons[reason] || reason}`, detailOf(trace.details[reason]))
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
  const isMarked = marksIn(trace.thinking).size > 0;
  const isOpen = isMarked || (state.thinking === null ? num <= 4000 : state.thinking);
  const box = make(
    "details",
    { class: "thinking", open: isOpen },
    make("summary", {}, `Thinking (${whole(num)} characters)`),
    textBox("Thinking", trace.thinking, state.search)
  );
  box.querySelector("summary").addEventListener("click", () => {
    state.thinking = !box.open;
  });
  return box;
}

// The parts of a trace that stand under its question.
function traceNodes(trace, problem, state, reasons) {
  const marks = [...new Set([...marksIn(trace.thinking), ...marksIn(trace.text)])];
  const gold = problem.answer === null ? UNTOLD : problem.answer;
  return [
    reasonList(trace, reasons),
    factList(
      [
        ["Expected answer", gold],
        ["Extracted answer", trace.answer === null ? UNTOLD : trace.answer, gradeOf(trace).replace(" ", "-")],
      ],
      "facts answers"
    ),
    factList(
      [
        ["Grade", gradeOf(trace) + (["", "rule"].includes(trace.graded_by) ? "" : `, by ${trace.graded_by}`)],
        ["Length", lengthOf(trace)],
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
    textBox("Answer", trace.text, state.search),
  ].filter(Boolean);
}

function questionNodes(problem, state) {
  return [make("p", { class: "text-label" }, "Question"), textBox("Question", [problem.question], state.search)];
}
