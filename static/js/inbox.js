// The inbox from the keyboard. A key moves the focus; it never decides: Enter on the focused button does.
(() => {
  const typing = (element) => element.closest("input, textarea, select, [contenteditable], dialog");
  const rows = () => [...document.querySelectorAll("#review-list li > a")];
  const here = (all) => {
    const focused = all.indexOf(document.activeElement);
    return focused >= 0 ? focused : all.findIndex((row) => row.hasAttribute("aria-current"));
  };
  const move = (by) => {
    const all = rows();
    const next = here(all) + by;
    all[Math.max(0, Math.min(all.length - 1, next))]?.focus();
  };
  // the first field of the choice where it has one, else its button
  const choose = (key) => {
    const button = document.querySelector(`.choices [data-key="${key}"]`);
    if (!button || button.disabled) return;
    const fold = button.closest("details");
    if (fold) fold.open = true;
    const field = button.form.querySelector("input:not([type=hidden]), textarea, select");
    (field || button).focus();
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
    if (event.key === "Escape" && typing(event.target)) return event.target.blur();
    if (typing(event.target)) return;
    if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
    else if ("aertfchn".includes(event.key)) choose(event.key);
    else if (event.key === "/") document.getElementById("filter-text")?.focus();
    else return;
    event.preventDefault();
  });
  // the list scrolls by itself; what takes its place stands where it stood
  const list = () => document.querySelector("#review-list .inbox");
  let scrolled = 0;
  document.addEventListener("htmx:beforeSwap", () => { scrolled = list()?.scrollTop || 0; });
  document.addEventListener("htmx:afterSwap", () => { if (list()) list().scrollTop = scrolled; });
  const open = list()?.querySelector("[aria-current]");
  if (open) list().scrollTop = open.offsetTop - list().offsetTop - open.offsetHeight;
  // where a keyboard and a screen reader begin: at what does not fit, else at the review
  (document.querySelector(".choices .is-invalid") || document.getElementById("review-title"))?.focus();
  // somebody else decided the open review: what is typed stays, and can no longer be sent
  document.addEventListener("htmx:afterSwap", (event) => {
    if (!event.target.querySelector("[data-closed]")) return;
    for (const button of document.querySelectorAll(".choices [type=submit]")) button.disabled = true;
  });
})();
