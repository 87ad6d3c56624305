// The inbox from the keyboard. A key presses the real button where nothing more is asked; else it goes to its field.
(() => {
  const sheet = document.getElementById("keys");
  const single = sheet?.dataset.single === "on";
  const careful = () => document.querySelector("[data-risk='2'], .choices > details[open]"); // high risk, or something is typed
  const pressed = ["a", "c", "z", "A", "?"]; // these press; all others open a form and wait
  const held = new Set();
  let seen = false; // nobody has read a page that has just come
  let busy = false; // a form is on its way
  const typing = (one) => one.closest("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable], dialog");
  const field = (form) => form?.querySelector("input:not([type=hidden]), textarea, select");
  const rows = () => [...document.querySelectorAll("#review-list li a[id^=row-]")];
  const current = (all) => {
    const focused = all.indexOf(document.activeElement);
    return focused >= 0 ? focused : all.findIndex((row) => row.hasAttribute("aria-current"));
  };
  const move = (by) => {
    const all = rows();
    all[Math.max(0, Math.min(all.length - 1, current(all) + by))]?.focus();
  };
  const select = () => rows()[current(rows())]?.closest("li").querySelector("[name=review]")?.click();
  sheet?.addEventListener("beforetoggle", () => { // only what does something here
    for (const line of sheet.querySelectorAll("[data-for]")) line.hidden = !document.querySelector(`main ${line.dataset.for}`);
  });
  const act = (key) => {
    const control = document.querySelector(`main [data-key="${key}"]:not(:disabled)`);
    const fold = control?.closest("details");
    if (fold) fold.open = true;
    const asked = control?.matches("summary") ? field(fold) || fold.querySelector("button") : field(control?.form);
    if (!control || asked) return asked?.focus();
    if (!pressed.includes(key) || (key === "a" && careful())) return control.focus();
    if (!fold && !control.offsetParent) return; // it does nothing as long as nobody can see it
    if (seen && !busy && held.size === 1) control.click(); // a key that is held, or a second one, presses nothing
  };
  const letter = (key, repeats) => {
    if (key === "j" || key === "ArrowDown") move(1);
    else if (key === "k" || key === "ArrowUp") move(-1);
    else if (repeats) return false;
    else if (key === "x") select();
    else if (key === "/") document.getElementById("filter-text")?.focus();
    else if (/^[a-zA-Z?]$/.test(key) && document.querySelector(`main [data-key="${key}"]`)) act(key);
    else return false;
    return true;
  };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (key.length === 1) held.add(event.code); // not Shift, which some need
    if (event.isComposing || document.querySelector("dialog[open]")) return;
    if (key === "Escape" && typing(target)) return target.blur();
    const send = key === "Enter" && (event.ctrlKey || event.metaKey) && target.form?.closest("main") && typing(target);
    if (send && !busy && !event.repeat) return target.form.requestSubmit(target.form.querySelector("[type=submit]:not([name])"));
    if (!single || typing(target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (key.startsWith("Arrow") && !target.closest("#review-list")) return; // elsewhere they scroll
    if (letter(key, event.repeat)) event.preventDefault();
  });
  document.addEventListener("keyup", (event) => held.delete(event.code));
  addEventListener("blur", () => held.clear());
  document.addEventListener("submit", (event) => { busy = event.target.method === "post" && event.submitter?.formMethod !== "dialog"; });
  addEventListener("pageshow", () => { busy = false; setTimeout(() => { seen = true; document.body.dataset.seen = ""; }, 400); });
})();
