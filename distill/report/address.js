// The state of a browser of traces as a shareable address: #trace=9f2c%2F0&q=carry&reason=wrong_answer
// A page may have two of them: the address is that of the one used last, and the history keeps the state of both.
// Back restores the earlier list. Each choice is one history entry, letters typed in sequence are one together, and
// moving through the list or its pages adds none.

function parseView(address, names) {
  const view = {};
  for (const part of address.replace(/^#/, "").split("&")) {
    const at = part.indexOf("=");
    const name = part.slice(0, at);
    if (at < 0 || !names.includes(name)) return null;
    try {
      view[name] = decodeURIComponent(part.slice(at + 1));
    } catch {
      view[name] = part.slice(at + 1); // invalid escapes: use the text as it is
    }
  }
  return view;
}

const writeView = (view, names) =>
  names
    .filter((name) => view[name] !== undefined && view[name] !== null && view[name] !== "")
    .map((name) => `${name}=${encodeURIComponent(view[name])}`)
    .join("&");

// Calls `show(view, isLink)` whenever the address changes; returns what writes a view into the address.
// `names`: the parts of the address, the entry first; `home`: id of the heading, which is the address of the whole list.
function startAddress(names, home, now, show) {
  const views = () => (history.state && history.state.views) || {};
  const stamp = (method, view, hash) => {
    try {
      history[method]({ views: { ...views(), [home]: writeView(view, names) } }, "", hash);
    } catch {
      // Some browsers limit the rate of history changes; the page works without them.
    }
  };
  function remembered() {
    const view = views()[home];
    return typeof view !== "string" ? null : view === "" ? {} : parseView(view, names);
  }
  function follow() {
    const isLink = remembered() === null;
    const list = location.hash === `#${home}` ? { ...now(), [names[0]]: null } : null;
    const view = parseView(location.hash, names) || remembered() || list;
    // For a link to another section, keep the list's state so that Back restores it.
    stamp("replaceState", view || now(), location.href);
    if (view) show(view, isLink && view !== list);
  }
  addEventListener("hashchange", follow);
  return {
    follow,
    write: (view, isStep) => stamp(isStep ? "pushState" : "replaceState", view, `#${writeView(view, names) || home}`),
  };
}
