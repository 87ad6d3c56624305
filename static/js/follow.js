// One may stop following a run: what comes meanwhile is kept, counted, and shown in its order when one follows again.
// What happened last is also said to those who do not see it, at most every few seconds.
(() => {
  const button = document.getElementById("follow");
  const news = document.getElementById("run-news");
  if (!button || !news) return;
  const MOST = 500; // parts: who has missed more gets a new page
  let kept = null; // what came last of each part, while nobody follows; "more" than are kept
  let seq = null;
  let said = 0;
  let timer = 0;
  const show = () => {
    const events = kept instanceof Map && [...kept.keys()].filter((id) => id.startsWith("event-")).length;
    const count = kept === "more" ? `more than ${MOST}` : events;
    button.textContent = kept === null ? "Stop following" : count ? `Follow (${count} new)` : "Follow";
  };
  button.addEventListener("click", () => {
    if (kept === "more") return location.reload();
    const detail = { seq, parts: [...kept?.values() ?? []] };
    [kept, seq] = [kept === null ? new Map() : null, null];
    show();
    if (!detail.parts.length) return;
    document.querySelector("[data-socket]").dispatchEvent(new CustomEvent("socket:message", { bubbles: true, detail }));
  });
  document.addEventListener("socket:message", (message) => {
    if (kept === null) return;
    message.stopImmediatePropagation();
    if (kept === "more") return;
    seq = message.detail.seq ?? seq;
    for (const part of message.detail.parts) if (part.id !== "bars") kept.set(part.id, part); // bars grow old: they are asked for
    if (kept.size > MOST) kept = "more";
    show();
  }, true); // before run.js
  document.addEventListener("parts:shown", () => {
    timer ||= setTimeout(() => {
      timer = 0;
      said = Date.now();
      news.textContent = document.querySelector("#events > li:last-child summary > span:nth-child(2)")?.textContent ?? "";
    }, Math.max(500, 5000 - (Date.now() - said)));
  });
  button.hidden = false;
})();
