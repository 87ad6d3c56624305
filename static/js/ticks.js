// Rows that are ticked to be acted on together: how many, and all of the page with one click.
(() => {
  const rows = () => [...document.querySelectorAll("#run-list tbody [name=run]")];
  document.addEventListener("input", ({ target }) => {
    if (target.id === "tick-all") for (const one of rows()) one.checked = target.checked;
    const [all, number] = [document.getElementById("tick-all"), rows().filter((one) => one.checked).length];
    if (!all) return;
    document.getElementById("tick-count").textContent = number;
    [all.checked, all.indeterminate] = [number === rows().length, number > 0 && number < rows().length];
    if (number) document.getElementById("bulk").setAttribute("data-touched", ""); // refresh.js: the list stands still ...
    else document.getElementById("bulk").removeAttribute("data-touched"); // ... until none is ticked
  });
})();
