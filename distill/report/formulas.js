// Formulas in models' texts: found by their delimiters, drawn by KaTeX when they come into view, shown raw if anything
// about them is unusual. Commands that hide, move or colour text, or link elsewhere, are always shown raw.

const MAX_FORMULA_CHARS = 2000;
const MAX_FORMULA_NODES = 6000;
const MAX_FORMULA_DEPTH = 100; // browsers crash on a few thousand nested elements
const MAX_FORMULA_HEIGHT_EM = 60;
const FRAME_MS = 8;
const OPENING = /\\\\|\\\$|\$\$?|\\\[|\\\(|\\begin\{([a-zA-Z]+\*?)\}|\\boxed\s*\{/g;
const CLOSING = { "$$": "$$", "\\[": "\\]", "\\(": "\\)" };
const REFUSED = new RegExp(
  "\\\\(?:(?:href|url|[hv]?phantom|color|textcolor|colorbox|fcolorbox|pagecolor|[rlc]lap|math[rlc]lap|smash|raisebox|" +
    "m?kern|mskip|hskip|vskip|rule|char|verb|[gex]?def|let|futurelet|global|long|(?:re)?newcommand|providecommand)" +
    "(?![a-zA-Z])|include|html|@|[hv]space\\*?\\s*\\{?\\s*-)"
);

// Consecutive words; in a formula they occur only in \text{…}.
const isProse = (tex) => /\p{L}{3,}[,;]?\s+\p{L}{2,}/u.test(tex.replace(/\\[a-zA-Z]+\s*(?:\{[^{}]*\})?/g, " 0 "));

// The end of the group whose opening brace is before `start`; -1 if it is not closed.
function endOfGroup(text, start) {
  let depth = 1;
  for (let at = start; at < Math.min(text.length, start + MAX_FORMULA_CHARS); at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === "{") depth += 1;
    else if (text[at] === "}" && --depth === 0) return at + 1;
  }
  return -1;
}

// [end, TeX, is display] of the formula that an opening delimiter begins, or null.
function formulaAt(text, [mark, environment], start) {
  const inner = start + mark.length;
  const find = (closing) => {
    const at = text.slice(inner, inner + MAX_FORMULA_CHARS).indexOf(closing);
    return at > 0 ? inner + at : -1;
  };
  if (mark.startsWith("\\boxed")) {
    const end = endOfGroup(text, inner);
    return end > 0 && !isProse(text.slice(inner, end)) ? [end, text.slice(start, end), false] : null;
  }
  if (environment) {
    const closing = `\\end{${environment}}`;
    const at = find(closing);
    return at > 0 ? [at + closing.length, text.slice(start, at + closing.length), true] : null;
  }
  if (mark === "$") {
    // Amounts of money do not match: "$5 and $10", "$3-$4".
    const [body] = /^(?:\\[\s\S]|[^$\\])*/.exec(text.slice(inner, inner + MAX_FORMULA_CHARS));
    const at = inner + body.length;
    const isOne = text[at] === "$" && /^\S/.test(body) && /\S$/.test(body) && !/\d/.test(text[at + 1] || "");
    return isOne && !/\n\s*\n/.test(body) && !isProse(body) ? [at + 1, body, false] : null;
  }
  const at = CLOSING[mark] ? find(CLOSING[mark]) : -1;
  return at > 0 ? [at + 2, text.slice(inner, at), mark !== "\\("] : null;
}

// {start, end, tex, isDisplay} of each formula in a text, in order.
function formulasIn(text) {
  const found = [];
  const pattern = new RegExp(OPENING);
  for (let match = pattern.exec(text); match; match = pattern.exec(text)) {
    const formula = formulaAt(text, match, match.index);
    if (!formula) continue;
    const [end, tex, isDisplay] = formula;
    found.push({ start: match.index, end, tex, isDisplay });
    pattern.lastIndex = end;
  }
  return found;
}

// Whether an answer is a formula without delimiters: \frac{1}{2}, x^2.
const isBareFormula = (text) => /\\[a-zA-Z]|\^/.test(text) && !/[$\n]|\\[([]/.test(text) && !isProse(text);

const drawing = { isRaw: false, queue: [], isWaiting: false, observer: null };

// A node with the formula's source, which is drawn when it comes into view. Without KaTeX the source stays.
function formulaNode(source, tex, isDisplay) {
  const node = make("span", { class: "formula", dir: "ltr", translate: "no" }, source);
  node.formula = { source, tex, isDisplay };
  if (!drawing.isRaw && drawing.observer) drawing.observer.observe(node);
  return node;
}

// The tree of a formula without inline styles (the page's security policy blocks them) and without the class `text`
// (the page's style sheet uses it); null if the tree is too large.
function cleaned(tree) {
  let num = 0;
  const todo = [[tree, 1]];
  while (todo.length) {
    const [node, depth] = todo.pop();
    num += 1;
    if (num > MAX_FORMULA_NODES || depth > MAX_FORMULA_DEPTH) return null;
    if (node.attributes) delete node.attributes.style;
    if (node.classes) node.classes = node.classes.map((name) => (name === "text" ? "in-text" : name));
    for (const child of node.children || []) todo.push([child, depth + 1]);
  }
  return tree;
}

// The formula drawn by KaTeX, or undefined; its source then stays.
function drawn({ tex, isDisplay }) {
  if (REFUSED.test(tex) || tex.length > MAX_FORMULA_CHARS) return undefined;
  try {
    const tree = katex.__renderToDomTree(tex.replace(/(^|[^\\])%/g, "$1\\%"), {
      displayMode: isDisplay,
      throwOnError: true,
      strict: false,
      trust: false,
      maxSize: 5,
      maxExpand: 100,
    });
    return cleaned(tree)?.toNode();
  } catch {
    return undefined;
  }
}

function drawSome() {
  const end = performance.now() + FRAME_MS;
  const fresh = [];
  while (drawing.queue.length && performance.now() < end) {
    const node = drawing.queue.shift();
    const made = drawing.isRaw || !node.isConnected ? null : drawn(node.formula);
    if (!made) continue;
    node.replaceChildren(made);
    node.classList.toggle("display", node.formula.isDisplay);
    node.title = node.formula.source;
    fresh.push(node);
  }
  for (const node of fresh) {
    const em = parseFloat(getComputedStyle(node).fontSize);
    if (node.getBoundingClientRect().height > MAX_FORMULA_HEIGHT_EM * em) showSource(node);
  }
  drawing.isWaiting = drawing.queue.length > 0;
  if (drawing.isWaiting) requestAnimationFrame(drawSome);
}

function showSource(node) {
  node.replaceChildren(node.formula.source);
  node.classList.remove("display");
  node.removeAttribute("title");
}

// The button that switches between drawn formulas and their source.
function startFormulas() {
  if (typeof katex === "undefined") return;
  drawing.isRaw = recall("distill-formulas") === "raw";
  drawing.observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        drawing.observer.unobserve(target);
        drawing.queue.push(target);
      }
      if (drawing.queue.length && !drawing.isWaiting) {
        drawing.isWaiting = true;
        requestAnimationFrame(drawSome);
      }
    },
    { rootMargin: "400px" }
  );
  const button = byId("formulas");
  const name = () => {
    button.replaceChildren(drawing.isRaw ? "\\∑" : "∑", make("span", { class: "button-name" }, drawing.isRaw ? " Raw LaTeX" : " Formulas"));
    button.setAttribute("aria-label", drawing.isRaw ? "Formulas: raw LaTeX. Draw them" : "Formulas: drawn. Show raw LaTeX");
    button.setAttribute("aria-pressed", String(drawing.isRaw));
  };
  name();
  button.hidden = false;
  button.addEventListener("click", () => {
    drawing.isRaw = !drawing.isRaw;
    remember("distill-formulas", drawing.isRaw ? "raw" : "drawn");
    name();
    for (const node of document.querySelectorAll(".formula")) {
      if (drawing.isRaw) showSource(node);
      else drawing.observer.observe(node);
    }
  });
}
