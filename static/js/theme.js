// The button for dark or light. The style sheet follows the system by itself; what somebody chooses instead is an attribute,
// kept until they choose what the system says. In <head>, so that no page flashes.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const chosen = () => ["dark", "light"].find((theme) => theme === stored()); // Django's admin keeps "auto" under this name
  const show = (theme) => { theme ? root.dataset.bsTheme = theme : delete root.dataset.bsTheme; };
  const keep = (theme) => { try { theme ? localStorage.setItem("theme", theme) : localStorage.removeItem("theme"); } catch { /* private */ } };
  show(chosen());
  addEventListener("storage", () => show(chosen()));
  addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        const usual = system.matches ? "dark" : "light";
        const next = (root.dataset.bsTheme || usual) === "dark" ? "light" : "dark";
        for (const apply of [show, keep]) apply(next === usual ? "" : next);
      });
    }
  });
})();
