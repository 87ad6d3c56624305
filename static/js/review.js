// The open review: where one begins, and what others do to it meanwhile. What is typed here stays.
(() => {
  const list = () => document.querySelector("#review-list .inbox");
  const open = list()?.querySelector("[aria-current]");
  if (open) list().scrollTop = open.offsetTop - list().offsetTop - open.offsetHeight;
  // where a keyboard and a screen reader begin: at what does not fit, at a new row, else at the review
  (document.querySelector(".choices :is(.is-invalid, [autofocus])") || document.getElementById("review-title"))?.focus();
  document.addEventListener("input", ({ target }) => { // what is being corrected is not said to be wrong
    if (!target.classList.contains("is-invalid")) return;
    target.classList.remove("is-invalid");
    target.removeAttribute("aria-invalid");
    for (const said of target.parentElement.querySelectorAll(":scope > .invalid-feedback")) said.hidden = true;
  });
  const news = document.getElementById("review-news");
  if (!news) return;
  let timer = 0;
  const look = () => { timer ||= setTimeout(() => { timer = 0; htmx.trigger(news, "look"); }, 200); };
  document.addEventListener("socket:message", ({ detail }) => {
    if (news.dataset.review in detail.changed) look();
  });
  document.addEventListener("socket:back", look); // what was said meanwhile was missed
  setInterval(look, 60_000);
  const signedOut = (xhr) => xhr.responseURL.includes("/accounts/login/");
  news.addEventListener("htmx:beforeSwap", (event) => { event.detail.shouldSwap &&= !signedOut(event.detail.xhr); });
  news.addEventListener("htmx:afterRequest", ({ detail: { successful, xhr } }) => {
    const answered = Boolean(successful) && !signedOut(xhr);
    document.dispatchEvent(new CustomEvent("page:looked", { detail: { part: "news", answered } }));
    if (!answered) setTimeout(look, 5000);
  });
  const fields = ".choices > .card-body > form :is(textarea, select, input:not([type=hidden]))";
  const holds = (part) => part.matches("details[open]") || part.querySelector(`details[open], ${fields}`); // what may have been typed
  news.addEventListener("htmx:afterSwap", () => {
    const closed = Boolean(news.querySelector("[data-closed]")); // until it is taken back
    for (const button of document.querySelectorAll(".choices [type=submit]:not(form > button:first-of-type)")) button.disabled = button.hidden = closed;
    for (const field of document.querySelectorAll(".choices :is(input, textarea)")) field.readOnly = closed; // to be read and copied
    for (const part of document.querySelectorAll(".barred, .choices, .choices > *")) part.hidden = closed && !holds(part);
  });
})();
