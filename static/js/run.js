// A run's page: puts in place the parts that the socket sends, moves the cursor, and says whether every event arrived.
(() => {
  const place = document.querySelector("[data-socket]");
  if (!place) return;
  const count = document.getElementById("run-count");
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
    old.replaceWith(next);
    htmx.process(next);
    if (focused) [...next.querySelectorAll("a, button, summary, input")][at]?.focus({ preventScroll: true });
  };
  const asked = {}; // for each part: what came last counts, whichever answer is the quickest
  const ask = async (id, url) => {
    const mine = (asked[id] = {});
    const answer = await fetch(url);
    const html = await answer.text();
    if (answer.ok && !answer.redirected && asked[id] === mine) show({ id, html });
  };
  const show = ({ id, html, into, url }) => {
    const old = document.getElementById(id);
    if (url && !old && into) document.getElementById(into).append(Object.assign(document.createElement("li"), { id }));
    if (url) return void ask(id, url);
    const next = made(html);
    delete asked[id];
    if (old) return replace(old, next);
    if (everyOpen) next.querySelector(":scope > details[id]")?.setAttribute("open", "");
    next.classList.add("arrived");
    document.getElementById(into)?.append(next);
  };
  const complete = (seq) => {
    const seen = [...document.querySelectorAll("#events [data-seq]")].map((one) => Number(one.dataset.seq));
    const whole = seen.every((one, index) => !index || one === seen[index - 1] + 1) && seen.at(-1) === seq;
    count.textContent = whole ? seq === 1 ? "its one event received" : `all ${seq} events received` : "events are missing: reload the page";
  };
  document.addEventListener("click", ({ target }) => {
    const details = target.closest("summary")?.parentElement;
    if (details) details.dataset.chosen = "yes";
  });
  document.addEventListener("input", (event) => { event.target.form?.setAttribute("data-touched", ""); });
  document.addEventListener("socket:message", ({ detail }) => {
    detail.parts.forEach(show);
    document.dispatchEvent(new Event("parts:shown"));
    if (detail.seq === null) return;
    place.dataset.after = detail.seq;
    complete(detail.seq);
  });
  document.addEventListener("socket:back", () => htmx.trigger(document.body, "changed")); // the number in the menu
  complete(Number(place.dataset.after));
})();
