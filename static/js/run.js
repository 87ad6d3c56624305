// A run's page: puts in place the parts that the socket sends, and moves the cursor.
(() => {
  const place = document.querySelector("[data-socket]");
  if (!place) return;
  const made = (html) => Object.assign(document.createElement("template"), { innerHTML: html.trim() }).content.firstElementChild;
  // what somebody opened or closed stays so, where the focus was it stays, and what somebody writes is not touched
  const everyOpen = new URLSearchParams(location.search).get("open") === "all";
  const replace = (old, next) => {
    if (old.querySelector("form[data-touched], dialog[open]")) return;
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    const at = focused && [...old.querySelectorAll("a, button, summary, input")].indexOf(focused);
    for (const one of next.querySelectorAll("details[id]")) {
      const before = old.querySelector(`#${one.id}`);
      if (before?.dataset.chosen) [one.open, one.dataset.chosen] = [before.open, before.dataset.chosen];
      else if (everyOpen || (before?.contains(focused) && focused.tagName !== "SUMMARY")) one.open = true;
    }
    const bar = old.querySelector(".bar[id]");
    if (bar) next.querySelector(".bar[id]")?.replaceWith(bar); // until timeline.js has a new one
    old.replaceWith(next);
    htmx.process(next);
    if (focused) [...next.querySelectorAll("a, button, summary, input")][at]?.focus({ preventScroll: true });
  };
  const number = ({ id }) => Number(id.slice(id.indexOf("-") + 1));
  // in its order; where an earlier page has it, it is left there
  const insert = (list, row) => {
    const after = [...list.children].find((one) => number(one) > number(row));
    const isEarlier = after === list.firstElementChild && document.getElementById(`${list.id}-earlier`)?.hidden === false;
    return !isEarlier && list.insertBefore(row, after ?? null);
  };
  const show = ({ id, html, into, url }) => {
    const old = document.getElementById(id);
    const list = !old && document.getElementById(into);
    if (!old && !list) return; // the bars: timeline.js
    if (url && list && !insert(list, Object.assign(document.createElement("li"), { id }))) return;
    if (url) return; // run-late.js
    const next = made(html);
    if (old) return replace(old, next);
    if (everyOpen) next.querySelector(":scope > details[id]")?.setAttribute("open", "");
    next.classList.add("arrived");
    if (list) insert(list, next);
  };
  const wanted = new URLSearchParams(location.search).get("step");
  document.getElementById(`step-${wanted}-body`)?.setAttribute("data-chosen", "yes");
  document.addEventListener("click", ({ target }) => {
    const details = target.closest("summary")?.parentElement;
    if (details) details.dataset.chosen = "yes";
  });
  document.addEventListener("input", (event) => { event.target.form?.setAttribute("data-touched", ""); });
  document.addEventListener("socket:message", ({ detail }) => {
    detail.parts.forEach(show);
    if (detail.seq !== null) place.dataset.after = detail.seq;
    document.dispatchEvent(new Event("parts:shown"));
  });
  document.addEventListener("part:fetched", ({ detail }) => { if (detail.html) show(detail); });
  document.addEventListener("socket:back", () => htmx.trigger(document.body, "changed")); // the number in the menu
})();
