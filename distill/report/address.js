// What the browser of traces shows, as an address that can be passed on: #trace=9f2c%2F0&q=carry&reason=wrong_answer
// Whoever goes Back finds the list as it was. A choice is a step of its own in the history; letters typed one after
// another are one step, and walking through the list or turning its pages is none.

function parseView(address, names) {
  const view = {};
  for (const part of address.replace(/^#/, "").split("&")) {
    const at = part.indexOf("=");
    const name = part.slice(0, at);
    if (at < 0 || !names.includes(name)) return null;
    try {
      view[name] = decodeURIComponent(part.slice(at + 1));
    } catch {
      view[name] = part.slice(at + 1); // not an address of ours; it is looked up as it stands
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
function startAddress(names, now, show) {
  const stamp = (method, view, hash) => {
    try {
      history[method]({ view: writeView(view, names) }, "", hash);
    } catch {
      // Some browsers allow no more than so many changes in a while; the page works without.
    }
  };
  const remembered = () =>
    history.state && typeof history.state.view === "string"
      ? history.state.view === "" ? {} : parseView(history.state.view, names)
      : null;
  function follow() {
    const isLink = remembered() === null;
    const list = location.hash === "#traces" ? { ...now(), [names[0]]: null } : null;
    const view = parseView(location.hash, names) || remembered() || list;
    // A link to another section leaves the list as it is, and Back to it finds it so.
    stamp("replaceState", view || now(), location.href);
    if (view) show(view, isLink && view !== list);
  }
  addEventListener("hashchange", follow);
  return {
    follow,
    write: (view, isStep) => stamp(isStep ? "pushState" : "replaceState", view, `#${writeView(view, names) || "traces"}`),
  };
}
