// A review that is closed leaves the list without being asked for: the socket says how it ended, the list has a mark for each.
(() => {
  document.addEventListener("row:ended", ({ detail: { id, state } }) => {
    const list = document.getElementById("review-list");
    const old = list.querySelector(`[data-row="${id}"]`);
    if (old && old.dataset.gone !== undefined) return;
    const next = old ? old.cloneNode(true) : document.createElement("li"); // one that waits behind "3 new" need not come
    [next.dataset.row, next.dataset.gone] = [id, ""];
    next.querySelector(".state")?.replaceWith(list.querySelector(`template[data-end="${state}"]`).content.cloneNode(true));
    for (const part of next.querySelectorAll("input, .lock, .due, .who")) part.remove();
    const came = new DocumentFragment();
    came.append(next);
    document.dispatchEvent(new CustomEvent("rows:came", { detail: came }));
  });
})();
