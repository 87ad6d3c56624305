// The oldest rows leave a run's page, but what somebody opened or is at: other pages have them, and to those steps leads a link.
(() => {
  const isHeld = (row) => row.contains(document.activeElement) || row.querySelector("details[data-chosen][open]");
  const shorten = (list) => {
    const rows = [...list.children];
    const over = rows.slice(0, Math.max(0, rows.length - list.dataset.most));
    for (const row of over.filter((one) => !isHeld(one))) row.remove();
    for (const row of over.filter(isHeld)) {
      row.dataset.held = "";
      for (const bar of row.querySelectorAll(".bar")) bar.replaceChildren(); // the axis begins after it
    }
    const earlier = document.getElementById(`${list.id}-earlier`);
    if (!over.length || !earlier) return;
    const first = list.querySelector(":scope > li:not([data-held])").id.slice("step-".length);
    const link = earlier.firstElementChild;
    [link.search, link.textContent] = [link.search.replace(/before=\d*/, `before=${first}`), `Steps before step ${first}`];
    earlier.hidden = false;
  };
  document.addEventListener("parts:shown", () => document.querySelectorAll("ol[data-most]").forEach(shorten)); // after run.js
})();
