// Says on a run's page whether every event arrived, by their numbers.
(() => {
  const place = document.querySelector("[data-socket]");
  if (!place) return;
  const complete = () => {
    const seq = Number(place.dataset.after);
    // one that is too large to be sent is asked for; one that is held is older than what the page shows
    const rows = [...document.querySelectorAll("#events > li:not([data-held])")];
    const seen = rows.map(({ id }) => Number(id.slice("event-".length)));
    const whole = seen.every((one, index) => !index || one === seen[index - 1] + 1) && seen.at(-1) >= seq;
    const missing = rows.filter((row) => !row.querySelector("details")).length;
    const all = seq.toLocaleString("en");
    const received = seq === 1 ? "its one event received" : `all ${all} events received`;
    const said = missing ? `${missing} of ${all} events still to come` : received;
    document.getElementById("run-count").textContent = whole ? said : "events are missing: reload the page";
  };
  for (const name of ["parts:shown", "part:fetched"]) document.addEventListener(name, complete);
  complete();
})();
