// Counts down how long a decision can be taken back, by the server's clock; then its button goes, and nothing moves.
for (const form of document.querySelectorAll("form.undo")) {
  const button = form.querySelector("button");
  const end = performance.now() + (new Date(form.dataset.until) - new Date(form.dataset.now));
  const tick = () => {
    const seconds = Math.ceil((end - performance.now()) / 1000);
    form.querySelector("[data-left]").textContent = ` (${seconds} s)`;
    if (seconds > 0) return void setTimeout(tick, 250);
    button.disabled = true;
    form.dataset.gone = "";
  };
  tick();
}
