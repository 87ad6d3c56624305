// Dark or light: as the system says, until somebody presses the button. In <head>, so that no page flashes.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const chosen = () => ["dark", "light"].find((theme) => theme === stored()); // Django's admin keeps "auto" under this name
  const show = () => { root.dataset.bsTheme = chosen() || (system.matches ? "dark" : "light"); };
  show();
  system.addEventListener("change", show);
  addEventListener("storage", show);
  addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        const next = root.dataset.bsTheme === "dark" ? "light" : "dark";
        try { localStorage.setItem("theme", next); } catch { /* private window: for this page only */ }
        root.dataset.bsTheme = next;
      });
    }
  });
})();
