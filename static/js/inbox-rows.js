// Puts rows that came into the list: each changes and leaves in its place, what would push others down waits behind "3 new".
(() => {
  const list = () => document.getElementById("review-list");
  const rows = () => [...list().querySelectorAll("[data-row]")];
  const row = (id) => list().querySelector(`[data-row="${id}"]`);
  const box = (one) => one.querySelector("[name=review]");
  const want = (detail) => document.dispatchEvent(new CustomEvent("rows:wanted", { detail }));
  const fresh = new Set(); // new ones that are not shown yet
  const swap = (old, next) => {
    if (old.matches(":active")) return want({ ids: [old.dataset.row] }); // it is being pressed
    const focused = old.contains(document.activeElement) && document.activeElement.localName;
    if (box(next) && box(old)) box(next).checked = box(old).checked;
    old.replaceWith(next);
    if (focused) (next.querySelector(focused) || next.querySelector("a")).focus({ preventScroll: true });
  };
  const aimed = () => list().matches(":hover") && rows().some((one) => one.dataset.gone === undefined);
  const go = (gone, isOfMany) => {
    if (!gone.isConnected || gone.querySelector("[aria-current]")) return; // the page of the open one stays where it is
    if (aimed()) return void setTimeout(go, 500, gone, isOfMany); // nothing moves under the pointer
    const beside = gone.nextElementSibling || gone.previousElementSibling;
    if (gone.contains(document.activeElement)) beside?.querySelector("a").focus({ preventScroll: true });
    gone.remove();
    if (!rows().length) want({ load: true });
    if (isOfMany) want({ whole: true }); // the next of its like takes its place
  };
  const leave = (old, next) => {
    if (old.dataset.gone === undefined) swap(old, next);
    setTimeout(go, 2000, next, old.dataset.alike !== undefined);
  };
  const place = (next) => {
    const { row: id, turn, gone } = next.dataset;
    const old = row(id);
    const end = rows().at(-1);
    if (gone !== undefined) return fresh.delete(id), old && leave(old, next);
    if (old) return swap(old, next);
    if (!end) return want({ load: true });
    const { later, after, past } = list().dataset;
    if (after !== undefined && turn < rows()[0].dataset.turn) return; // of a page before this one
    if (past !== undefined || turn < end.dataset.turn) fresh.add(id);
    else if (later === undefined) end.after(next), next.classList.add("arrived"); // at the end nothing moves
  };
  const replace = (next) => {
    const [old, ticked] = [list(), rows().filter((one) => box(one)?.checked).map((one) => one.dataset.row)];
    const [scrolled, focused] = [old.querySelector("ol")?.scrollTop || 0, old.contains(document.activeElement)];
    old.replaceWith(next);
    for (const id of ticked) if (row(id) && box(row(id))) box(row(id)).checked = true;
    if (next.querySelector("ol")) next.querySelector("ol").scrollTop = scrolled;
    for (const id of fresh) row(id)?.classList.add("arrived");
    if (focused) next.querySelector(".arrived a, [data-row] a")?.focus({ preventScroll: true });
    fresh.clear();
  };
  document.addEventListener("rows:came", ({ detail }) => {
    const whole = detail.querySelector("#review-list");
    if (whole) replace(whole);
    else detail.querySelectorAll("[data-row]").forEach(place);
    const button = document.getElementById("review-new");
    [button.hidden, button.textContent] = [!fresh.size, `${fresh.size} new`];
  });
  document.addEventListener("click", ({ target }) => { if (target.closest("#review-new")) want({ load: true }); });
})();
