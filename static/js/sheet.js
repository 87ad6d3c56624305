// The sheet of keys shows only those that do something on this page.
(() => {
  const sheet = document.getElementById("keys");
  sheet?.addEventListener("beforetoggle", () => {
    for (const line of sheet.querySelectorAll("[data-for]")) line.hidden = !document.querySelector(`main ${line.dataset.for}`);
  });
})();
