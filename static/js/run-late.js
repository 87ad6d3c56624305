// A part of a run's page that was too large to be sent: asked for, three times if need be, and if it does not come that is said.
(() => {
  const asked = {}; // for each part: what came last counts, whichever answer is the quickest
  const failed = new Set();
  const looked = (part, answered) => document.dispatchEvent(new CustomEvent("page:looked", { detail: { part, answered } }));
  const fetched = async (url) => {
    const answer = await fetch(url).catch(() => null);
    return answer?.ok && !answer.redirected ? answer.text().catch(() => "") : "";
  };
  const came = (id) => {
    delete asked[id];
    if (failed.delete(id)) looked(id, true);
  };
  const lose = (id) => {
    const row = document.getElementById(id);
    if (!row) return;
    failed.add(id);
    looked(id, false);
    if (row.childElementCount) return;
    const again = Object.assign(document.createElement("a"), { href: "", textContent: "reload the page" });
    row.replaceChildren("This did not come: ", again);
  };
  const ask = async (id, url) => {
    const mine = (asked[id] = {});
    let html = await fetched(url);
    for (const pause of [1000, 5000]) {
      if (html || asked[id] !== mine) break;
      await new Promise((then) => setTimeout(then, pause * (1 + Math.random())));
      html = await fetched(url);
    }
    if (asked[id] !== mine) return;
    if (html) came(id);
    else lose(id);
    document.dispatchEvent(new CustomEvent("part:fetched", { detail: { id, html } }));
  };
  document.addEventListener("socket:message", ({ detail }) => { // after run.js
    for (const { id, url } of detail.parts) {
      if (!url) came(id);
      else if (document.getElementById(id)) setTimeout(ask, id === "nav-count" ? Math.random() * 1500 : 0, id, url); // every page is told that
    }
  });
})();
