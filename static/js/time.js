// Times in words that stay true while the page is open, with the exact time of the reader's zone in the title.
(() => {
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });
  const scales = [[86400, "day"], [3600, "hour"], [60, "minute"]];
  const relative = (seconds) => {
    const scale = scales.find(([size]) => Math.abs(seconds) >= size);
    if (scale) return words.format(Math.trunc(seconds / scale[0]), scale[1]);
    return Math.abs(seconds) < 10 ? "just now" : words.format(Math.trunc(seconds), "second");
  };
  const counted = (seconds) => (seconds < 1 ? "now" : seconds < 60 ? words.format(Math.trunc(seconds), "second") : relative(seconds));
  const show = (which = "time[datetime]") => {
    for (const element of document.querySelectorAll(which)) {
      const at = new Date(element.dateTime);
      const text = ("counts" in element.dataset ? counted : relative)((at - Date.now()) / 1000);
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
