// The inbox from the keyboard. A key presses the real button where nothing more is asked; else it goes to its field.
(() => {
  const single = document.getElementById("keys")?.dataset.single === "on";
  const unfolded = () => document.querySelector(".choices > details[open]"); // something is typed
  const careful = () => document.querySelector("[data-risk='2']") || unfolded();
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
  const act = (key, control) => {
    const fold = control.closest("details");
    if (fold) fold.open = true;
    const asked = control.matches("summary") ? field(fold) || fold.querySelector("button:not([hidden])") : field(control.form);
    if (asked) return asked.focus();
    if (!pressed.includes(key) || "ask" in control.dataset || (key === "a" && careful())) return control.focus();
    if (!fold && !control.offsetParent) return; // it does nothing as long as nobody can see it
    const looked = seen || key === "z"; // what was decided in error is taken back before the next is read
    if (looked && !busy && held.size === 1) control.click(); // a key that is held, or a second one, presses nothing
  };
  const letter = (key, repeats) => {
    const control = /^[a-zA-Z?]$/.test(key) && document.querySelector(`main [data-key="${key}"]:not(:disabled)`);
    if (key === "j" || key === "ArrowDown") move(1);
    else if (key === "k" || key === "ArrowUp") move(-1);
    else if (repeats) return false;
    else if (key === "x") select();
    else if (key === "/") document.getElementById("filter-text")?.focus();
    else if (control) act(key, control);
    else return false;
    return true;
  };
  document.addEventListener("keydown", (event) => {
    const { target, shiftKey, ctrlKey, metaKey, altKey, repeat } = event;
    const key = /^[a-z]$/i.test(event.key) ? event.key[shiftKey ? "toUpperCase" : "toLowerCase"]() : event.key; // CapsLock or not
    if (key.length === 1) held.add(event.code); // not Shift, which some need
    if (event.isComposing || document.querySelector("dialog[open]")) return;
    if (key === "Escape" && typing(target)) return target.blur();
    if (key === "Escape" && unfolded()) return unfolded().querySelector("summary").focus(), unfolded().open = false;
    const sends = key === "Enter" && (ctrlKey || metaKey) && target.form?.closest("main") && !target.matches("button");
    if (sends && !busy && !repeat) return target.form.requestSubmit(target.form.querySelector("[type=submit]:not([name], [hidden])"));
    if (!single || typing(target) || ctrlKey || metaKey || altKey) return;
    if (key.startsWith("Arrow") && !target.closest("#review-list")) return; // elsewhere they scroll
    if (letter(key, repeat)) event.preventDefault();
  });
  document.addEventListener("keyup", ({ key, code }) => { key === "Meta" ? held.clear() : held.delete(code); }); // a Mac forgets the others
  addEventListener("blur", () => held.clear());
  document.addEventListener("submit", (event) => { busy = event.target.method === "post" && event.submitter?.formMethod !== "dialog"; });
  addEventListener("pageshow", () => { busy = false; setTimeout(() => { seen = true; document.body.dataset.seen = ""; }, 400); });
})();
