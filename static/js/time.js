// Times in words that stay true while the page is open, by the server's clock, with the exact time of the reader's zone in the title.
(() => {
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
  const minutes = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  const scales = [[86400, "day"], [3600, "hour"], [60, "minute"]];
  const relative = (seconds) => {
    const scale = scales.find(([size]) => Math.abs(seconds) >= size);
    if (scale) return words.format(Math.trunc(seconds / scale[0]), scale[1]);
    return Math.abs(seconds) < 10 ? "just now" : words.format(Math.trunc(seconds), "second");
  };
  const counted = (seconds) => (seconds < 1 ? "now" : seconds < 60 ? words.format(Math.trunc(seconds), "second") : relative(seconds));
  const left = (seconds) => {
    const minutes = Math.floor(Math.abs(seconds) / 60);
    const days = Math.floor(minutes / 1440);
    const parts = [[days, "d"], [Math.floor(minutes / 60) % 24, "h"], [days ? 0 : minutes % 60, "min"]];
    const words = parts.filter(([number]) => number).map((part) => part.join(" ")).join(" ");
    return `${words || "under 1 min"} ${seconds > 0 ? "left" : "overdue"}`;
  };
  const age = (seconds) => {
    const scale = [[86400, "d"], [3600, "h"], [60, "min"]].find(([size]) => -seconds >= size);
    return scale ? `${Math.floor(-seconds / scale[0])} ${scale[1]}` : "now";
  };
  const overdue = (looks, is) => ["late", "tone-red", "tone-amber"].forEach((look) => looks.toggle(look, is === (look !== "tone-amber")));
  const isFresh = performance.getEntriesByType("navigation")[0]?.transferSize > 0; // not one that the browser had kept
  const slow = isFresh ? new Date(document.documentElement.dataset.now) - Date.now() : 0; // the reader's clock
  const now = () => Date.now() + (Math.abs(slow) > 5000 ? slow : 0); // its way to the reader takes a page a moment too
  const show = (which = "time[datetime]") => {
    for (const element of document.querySelectorAll(which)) {
      const at = new Date(element.dateTime);
      const seconds = (at - now()) / 1000;
      const { due, counts, age: short, exact: whole } = element.dataset;
      const said = due !== undefined ? left : counts !== undefined ? counted : short !== undefined ? age : relative;
      const text = whole !== undefined ? minutes.format(at) : said(seconds);
      if (due !== undefined) overdue(element.parentElement.classList, seconds <= 0);
      if (element.textContent !== text) element.textContent = text;
      element.title = exact.format(at);
    }
  };
  show();
  setInterval(show, 10_000);
  setInterval(show, 1000, "time[data-counts]");
  document.addEventListener("htmx:afterSettle", () => show());
  document.addEventListener("parts:shown", () => show());
})();
