// What comes into the list of the inbox: the rows that the socket brings, those that it only names, all of them after a break.
(() => {
  const list = () => document.getElementById("review-list");
  if (!list()) return;
  const nothing = () => ({ ids: new Set(), whole: false, load: false });
  const countLater = () => document.dispatchEvent(new Event("counts:wanted"));
  let [wanted, timer, last, asking] = [nothing(), 0, 0, false];
  const parsed = (html) => Object.assign(document.createElement("template"), { innerHTML: html }).content;
  const came = (part) => {
    document.dispatchEvent(new CustomEvent("rows:came", { detail: part }));
    document.dispatchEvent(new Event("parts:shown"));
  };
  const soon = ({ ids = [], whole = false, load = false }) => {
    for (const id of ids) wanted.ids.add(String(id));
    wanted.whole ||= whole;
    wanted.load ||= load;
    timer ||= setTimeout(ask, Math.max(60, 250 - (Date.now() - last))); // a burst is one question
  };
  const got = async (answer) => {
    if (!answer.ok || answer.redirected) throw new Error(answer.status);
    return parsed(await answer.text());
  };
  const ask = async () => {
    const { ids, whole, load } = wanted;
    [wanted, last] = [nothing(), Date.now()];
    const { dataset } = list();
    if (whole) for (const row of list().querySelectorAll("[data-row]")) ids.add(row.dataset.row);
    const query = new URLSearchParams(`${dataset.query}&ids=${[...ids].join()}`);
    if (whole) query.set("whole", "1");
    if (load) countLater();
    let answered = asking = true;
    try {
      came(await got(await fetch(`${load ? dataset.list : dataset.rows}?${query}`, { signal: AbortSignal.timeout(10_000) })));
    } catch {
      answered = false;
      [wanted.whole, wanted.load] = [true, wanted.load || load];
    }
    [asking, timer] = [false, answered ? 0 : setTimeout(ask, 5000)];
    document.dispatchEvent(new CustomEvent("page:looked", { detail: { part: "list", answered } }));
    if (wanted.ids.size || wanted.load || wanted.whole) soon({});
  };
  document.addEventListener("rows:wanted", ({ detail }) => soon(detail));
  document.addEventListener("socket:message", ({ detail: { changed, rows } }) => {
    const ids = Object.keys(changed);
    if (ids.length > 100) return soon({ whole: true });
    const { past, query } = list().dataset;
    const tab = new URLSearchParams(query).has("tab");
    const ended = past === undefined ? ids.filter((id) => list().querySelector(`template[data-end="${changed[id]}"]`)) : [];
    for (const id of ended) document.dispatchEvent(new CustomEvent("row:ended", { detail: { id, state: changed[id] } }));
    const concerns = (id) => !ended.includes(id) && (changed[id] !== "who" || tab || list().querySelector(`[data-row="${id}"]`));
    const others = ids.filter(concerns);
    if (others.length && (rows === undefined || asking)) soon({ ids: others }); // what is asked may be older than what comes
    const part = parsed(rows ?? "");
    for (const row of part.querySelectorAll("[data-row]")) if (!others.includes(row.dataset.row)) row.remove();
    if (part.childElementCount) came(part);
  });
  document.addEventListener("socket:back", () => soon({ whole: true }));
  setInterval(soon, 60_000, { whole: true }); // what the socket did not say
})();
