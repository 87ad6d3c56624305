// A page that shows many rows: when the socket says that something changed, its parts that wait for "changed" ask again.
(() => {
  let timer = 0;
  let last = 0;
  const ask = () => {
    timer = 0;
    last = Date.now();
    htmx.trigger(document.body, "changed");
  };
  const soon = () => {
    if (!timer) timer = setTimeout(ask, Math.max(300, 1500 - (Date.now() - last)));
  };
  for (const name of ["socket:message", "socket:back"]) {
    document.addEventListener(name, () => { if (!document.getElementById("review-list")) soon(); }); // an inbox is told all
  }
  setInterval(soon, 60_000); // a nudge can get lost; the list is then a minute old at most
  // A part that asks again and again says whether it was answered: socket.js shows that, and where there is no socket this does.
  const polled = document.querySelector("[data-polled]");
  const unanswered = new Set();
  if (polled) [polled.dataset.state, polled.textContent] = ["open", "Live"]; // it has only just been answered
  document.addEventListener("htmx:afterRequest", ({ detail: { requestConfig: { elt }, successful, xhr } }) => { // what asked may have been replaced by its answer
    if (!elt.id || !/every|changed|alerts/.test(elt.getAttribute("hx-trigger") || "")) return;
    const answered = Boolean(successful) && !xhr.responseURL.includes("/accounts/login/");
    document.dispatchEvent(new CustomEvent("page:looked", { detail: { part: elt.id, answered } }));
    if (!polled) return;
    unanswered[answered ? "delete" : "add"](elt.id);
    [polled.dataset.state, polled.textContent] = unanswered.size ? ["lost", "No answer, the page may be old"] : ["open", "Live"];
  });
  // what somebody is writing stays as it is
  document.addEventListener("input", (event) => { event.target.form?.setAttribute("data-touched", ""); });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, requestConfig, xhr } = event.detail;
    if (xhr.responseURL.includes("/accounts/login/")) event.detail.shouldSwap = false; // signed out meanwhile
    const byItself = ["changed", "alerts"].includes(requestConfig.triggeringEvent?.type || "changed"); // what asks every few seconds has no event
    if (byItself && target.querySelector("form[data-touched], dialog[open]")) {
      event.detail.shouldSwap = false;
    }
  });
})();
