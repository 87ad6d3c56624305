// What the list of the inbox asks for: the rows that the socket names, all of them after a break, the whole list when wanted.
(() => {
  const list = () => document.getElementById("review-list");
  if (!list()) return;
  const nothing = () => ({ ids: new Set(), whole: false, load: false });
  const countLater = () => document.dispatchEvent(new Event("counts:wanted"));
  let [wanted, timer, last] = [nothing(), 0, 0];
  const soon = ({ ids = [], whole = false, load = false }) => {
    for (const id of ids) wanted.ids.add(String(id));
    wanted.whole ||= whole;
    wanted.load ||= load;
    timer ||= setTimeout(ask, Math.max(60, 250 - (Date.now() - last))); // a burst is one question
  };
  const got = async (address) => {
    const answer = await fetch(address, { signal: AbortSignal.timeout(10_000) });
    if (!answer.ok || answer.redirected) throw new Error(answer.status);
    return Object.assign(document.createElement("template"), { innerHTML: await answer.text() }).content;
  };
  const ask = async () => {
    const { ids, whole, load } = wanted;
    [wanted, last] = [nothing(), Date.now()];
    const { dataset } = list();
    if (whole) for (const row of list().querySelectorAll("[data-row]")) ids.add(row.dataset.row);
    const query = new URLSearchParams(`${dataset.query}&ids=${[...ids].join()}`);
    if (whole) query.set("whole", "1");
    if (load || !whole) countLater();
    let answered = true;
    try {
      const part = await got(`${load ? dataset.list : dataset.rows}?${query}`);
      document.dispatchEvent(new CustomEvent("rows:came", { detail: part }));
      document.dispatchEvent(new Event("parts:shown"));
    } catch {
      answered = false;
      [wanted.whole, wanted.load] = [true, wanted.load || load];
    }
    document.dispatchEvent(new CustomEvent("page:looked", { detail: { part: "list", answered } }));
    timer = answered ? 0 : setTimeout(ask, 5000);
    if (wanted.ids.size || wanted.load || wanted.whole) soon({});
  };
  document.addEventListener("rows:wanted", ({ detail }) => soon(detail));
  document.addEventListener("socket:message", ({ detail: { changed } }) => {
    const ids = Object.keys(changed);
    if (ids.length > 100) return soon({ whole: true });
    const { past, query } = list().dataset;
    const tab = new URLSearchParams(query).has("tab");
    const ended = past === undefined ? ids.filter((id) => list().querySelector(`template[data-end="${changed[id]}"]`)) : [];
    for (const id of ended) document.dispatchEvent(new CustomEvent("row:ended", { detail: { id, state: changed[id] } }));
    if (ended.length) countLater();
    const asked = ids.filter((id) => !ended.includes(id) && (changed[id] !== "who" || tab || list().querySelector(`[data-row="${id}"]`)));
    if (asked.length) soon({ ids: asked });
  });
  document.addEventListener("socket:back", () => soon({ whole: true }));
  setInterval(soon, 60_000, { whole: true }); // what the socket did not say
})();
