// A browser of traces: a filtered, paged list with one open entry.

const PAGE_SIZE = 25;
let usedLast = null;

// Keys go to the browser that most of is on the screen; if none is, to the one used last.
function browserForKeys() {
  const all = [...document.querySelectorAll(".browser:not([hidden])")];
  const seen = all.map((root) => {
    const { top, bottom } = root.getBoundingClientRect();
    return Math.min(bottom, innerHeight) - Math.max(top, 0);
  });
  const most = Math.max(...seen);
  return most > 0 ? all[seen.indexOf(most)] : usedLast || all[0];
}

function startBrowser(list) {
  const root = byId(list.root);
  const form = root.querySelector("form");
  const [found, rows, pager, reader] = [".found", ".list", ".pager", ".reader"].map((name) => root.querySelector(name));
  const filters = list.filters.filter((filter) => filter.bounds || filter.options.length > 1);
  const settings = list.settings || [];
  const names = [list.key, list.query, ...[...settings, ...filters].map((one) => one.name), list.page];
  // `asked`: the id in the address, whether it exists or not; `open`: the entry that is shown.
  const state = { terms: [], thinking: null, page: 0, open: null, asked: null };
  const byName = new Map(list.entries.map((entry) => [list.idOf(entry), entry]));
  const words = new Map();
  let entries = list.entries;
  let matching = entries;

  const wordsOf = (entry) => {
    if (!words.has(entry)) words.set(entry, list.words(entry).map(fold).join("\0"));
    return words.get(entry);
  };
  const isNarrow = () => matchMedia("(max-width: 60rem)").matches;

  for (const { name, label, options, value } of settings) {
    form.append(make("label", {}, make("span", {}, label), make("select", { name },
      ...options.map(([option, shown]) => make("option", { value: option, selected: option === value }, shown)))));
  }
  for (const filter of filters) {
    if (filter.bounds) {
      const inputs = filter.bounds.map((bound, i) =>
        make("input", { type: "number", min: 0, name: `${filter.name}-${i}`, placeholder: `${i ? "to" : "from"} ${bound}`,
          "aria-label": `${filter.label}, ${i ? "at most" : "at least"}`, inputmode: "numeric" })
      );
      form.append(make("fieldset", { class: "bounds" }, make("legend", {}, filter.label), ...inputs));
    } else {
      const options = filter.options.map(([value, shown, num]) => make("option", { value }, `${shown} (${whole(num)})`));
      form.append(make("label", {}, make("span", {}, filter.label),
        make("select", { name: filter.name }, make("option", { value: "" }, "Any"), ...options)));
    }
  }
  form.append(make("button", { type: "reset" }, "Clear"));

  // The chosen filters in the address's format, and the reverse.
  const boundsOf = (filter) => [0, 1].map((i) => form.elements[`${filter.name}-${i}`].value);
  function chosen() {
    const view = { [list.query]: form.elements.search.value.trim() };
    for (const { name, value } of settings) view[name] = form.elements[name].value === value ? "" : form.elements[name].value;
    for (const filter of filters) {
      const value = filter.bounds ? boundsOf(filter).join("-") : form.elements[filter.name].value;
      view[filter.name] = value === "-" ? "" : value;
    }
    return view;
  }
  const now = () => ({ ...chosen(), [list.key]: state.asked, [list.page]: state.asked || !state.page ? "" : state.page + 1 });
  function choose(view) {
    form.elements.search.value = view[list.query] || "";
    for (const { name, value, options } of settings) {
      form.elements[name].value = options.some(([option]) => option === view[name]) ? view[name] : value;
    }
    for (const filter of filters) {
      const value = view[filter.name] || "";
      if (filter.bounds) [0, 1].forEach((i) => { form.elements[`${filter.name}-${i}`].value = value.split("-")[i] || ""; });
      else form.elements[filter.name].value = filter.options.some(([option]) => option === value) ? value : "";
    }
  }
  const addressOf = (entry) => `#${writeView({ ...chosen(), [list.key]: entry && list.idOf(entry) }, names) || list.home}`;

  function search() {
    const view = chosen();
    state.terms = searchTerms(view[list.query]);
    if (list.arrange) {
      entries = list.arrange(Object.fromEntries(settings.map(({ name }) => [name, form.elements[name].value])));
      relabel();
    }
    const tests = filters.filter((filter) => view[filter.name]).map((filter) => {
      if (!filter.bounds) return (entry) => filter.test(entry, view[filter.name]);
      const [low, high] = boundsOf(filter);
      const bounds = [low === "" ? -Infinity : Number(low), high === "" ? Infinity : Number(high)];
      return (entry) => filter.test(entry, bounds);
    });
    tests.push((entry) => state.terms.every((term) => wordsOf(entry).includes(term)));
    matching = entries.filter((entry) => tests.every((test) => test(entry)));
  }

  // Labels and counts of filters that depend on the settings.
  function relabel() {
    for (const filter of filters.filter((one) => one.isLive)) {
      for (const option of form.elements[filter.name].options) {
        if (option.value === "") continue;
        const num = entries.filter((entry) => filter.test(entry, option.value)).length;
        option.textContent = `${filter.labelOf(option.value)} (${whole(num)})`;
        option.hidden = num === 0;
      }
    }
  }

  const link = (entry) =>
    make("a", { href: addressOf(entry), "aria-current": entry === state.open ? "true" : null }, ...list.row(entry, state));

  // The entries of a page; groups of entries share a heading.
  function items(entries) {
    if (!list.groupOf) return entries.map((entry) => make("li", {}, link(entry)));
    const groups = [];
    for (const entry of entries) {
      const last = groups[groups.length - 1];
      if (last && list.groupOf(last[0]) === list.groupOf(entry)) last.push(entry);
      else groups.push([entry]);
    }
    return groups.map((some) =>
      make("li", { class: "together" }, make("div", { class: "common" }, ...list.group(some[0], state)),
        make("ol", {}, ...some.map((entry) => make("li", {}, link(entry))))));
  }

  function showList() {
    const num = matching.length;
    const noun = list.noun[list.entries.length === 1 ? 0 : 1];
    found.textContent = num === list.entries.length ? `${whole(num)} ${noun}` : `${whole(num)} of ${whole(list.entries.length)} ${noun}`;
    const numPages = Math.max(1, Math.ceil(num / PAGE_SIZE));
    state.page = Math.min(Math.max(state.page, 0), numPages - 1);
    const first = state.page * PAGE_SIZE;
    rows.replaceChildren(...items(matching.slice(first, first + PAGE_SIZE)));
    const turn = (label, step, isPossible) => {
      const button = make("button", { type: "button", disabled: !isPossible, "data-step": step }, label);
      button.addEventListener("click", () => {
        state.page += step;
        showList();
        address.write(now(), false);
        rows.parentElement.scrollTop = 0;
        if (isNarrow()) root.scrollIntoView();
      });
      return button;
    };
    pager.replaceChildren(
      turn("← Back", -1, state.page > 0),
      make("span", {}, num ? `${whole(first + 1)} to ${whole(Math.min(first + PAGE_SIZE, num))} of ${whole(num)}` : "Nothing fits"),
      turn("Next →", 1, state.page < numPages - 1)
    );
  }

  function showEntry() {
    const place = matching.indexOf(state.open);
    const beside = [["Previous", place > 0 ? place - 1 : -1], ["Next", place >= 0 ? place + 1 : -1]]
      .filter(([, at]) => matching[at])
      .map(([label, at]) => make("a", { href: addressOf(matching[at]) }, label));
    const back = make("nav", { class: "back", "aria-label": list.noun[1] }, make("a", { href: addressOf(null) }, `← All ${list.noun[1]}`), ...beside);
    const isGone = state.asked && !state.open;
    let message = `Choose one of the ${list.noun[1]} to read it.`;
    if (!matching.length) message = "Nothing fits. Search for something else, or clear the filters.";
    if (isGone) message = `${state.asked} is not on this page.${list.elsewhere(state.asked)}`;
    const nodes = state.open ? list.read(state.open, state, addressOf) : [make("p", { class: "note" }, message)];
    reader.replaceChildren(back, ...nodes.filter(Boolean));
    reader.scrollTop = 0;
    root.classList.toggle("reading", Boolean(state.asked));
  }

  function showOpen() {
    showList();
    showEntry();
    const current = rows.querySelector("[aria-current]");
    if (!current) return;
    const pane = rows.parentElement;
    const [top, bottom] = [current.offsetTop - pane.offsetTop, current.offsetTop - pane.offsetTop + current.offsetHeight];
    if (top < pane.scrollTop) pane.scrollTop = top;
    else if (bottom > pane.scrollTop + pane.clientHeight) pane.scrollTop = bottom - pane.clientHeight;
  }

  // A wide page shows the list and a trace side by side; a narrow page shows one of them.
  function open(asked, page) {
    state.asked = asked || null;
    const fallback = matching.includes(state.open) ? state.open : matching[0];
    state.open = asked ? byName.get(asked) || null : isNarrow() ? null : fallback || null;
    const place = matching.indexOf(state.open);
    if (page) state.page = page - 1;
    else if (place >= 0) state.page = Math.floor(place / PAGE_SIZE);
    showOpen();
  }

  function show(view, isLink) {
    isTyping = false;
    choose(view);
    search();
    if (!view[list.key] && isLink) state.open = null;
    state.page = 0;
    open(view[list.key], Number(view[list.page]) || 0);
    if (!isLink) return;
    const { top, bottom } = root.getBoundingClientRect();
    if (!view[list.key]) byId(list.home).scrollIntoView();
    else if (isNarrow() || bottom < 200 || top > innerHeight - 200) root.scrollIntoView();
  }

  const address = startAddress(names, list.home, now, show);
  let isTyping = false;
  let waiting = 0;

  // The user changed a filter: the open entry stays open if it still matches.
  function refresh(isStep) {
    search();
    state.page = 0;
    open(matching.includes(byName.get(state.asked)) ? state.asked : null, 0);
    address.write(now(), isStep);
  }

  form.addEventListener("input", ({ target }) => {
    clearTimeout(waiting);
    const isChoice = target.matches("select");
    waiting = setTimeout(() => {
      waiting = 0;
      refresh(isChoice || !isTyping);
      isTyping = !isChoice && form.contains(document.activeElement);
    }, isChoice ? 0 : 120);
  });
  form.addEventListener("focusout", () => {
    if (!waiting) isTyping = false;
  });
  form.addEventListener("reset", () => setTimeout(() => {
    isTyping = false;
    refresh(true);
  }));
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    const isInput = event.target.closest("input, select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || isInput || browserForKeys() !== root) return;
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
      if (!next) return;
      open(list.idOf(next), 0);
      address.write(now(), false);
    }
  });
  for (const kind of ["pointerdown", "focusin"]) root.addEventListener(kind, () => { usedLast = root; });
  root.hidden = false;
  search();
  address.follow();
  if (!state.asked && !rows.childElementCount) open(null, 0);
}
