// The page around the trace browser: theme, top bar, folded sections.

function startTheme() {
  const themes = ["system", "light", "dark"];
  const button = byId("theme");
  const set = (theme) => {
    if (theme === "system") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", theme);
    button.replaceChildren({ system: "◐", light: "○", dark: "●" }[theme],
      make("span", { class: "button-name" }, { system: " System", light: " Light", dark: " Dark" }[theme]));
    button.setAttribute("aria-label", `Colours: ${theme}. Change`);
    button.dataset.theme = theme;
  };
  set(themes.includes(recall("distill-theme")) ? recall("distill-theme") : "system");
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(button.dataset.theme) + 1) % themes.length];
    set(next);
    remember("distill-theme", next);
  });
}

// If the bar has more links than it shows, its ends fade out and show an arrow.
function startBar() {
  const bar = document.querySelector(".bar nav");
  const links = bar.parentElement;
  const tell = () => {
    links.classList.toggle("more-before", bar.scrollLeft > 2);
    links.classList.toggle("more-after", bar.scrollLeft + bar.clientWidth < bar.scrollWidth - 2);
  };
  links.classList.add("scrolls");
  bar.addEventListener("scroll", tell, { passive: true });
  new ResizeObserver(tell).observe(bar);
  tell();
}

// A link into a folded section opens it first.
function startUnfolding() {
  const unfold = () => {
    const target = /^#key-/.test(location.hash) && byId(location.hash.slice(1));
    const folded = target && target.closest("details:not([open])");
    if (!folded) return;
    folded.open = true;
    target.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", unfold);
  unfold();
}
