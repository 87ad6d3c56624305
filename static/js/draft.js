// While somebody writes an answer: keeps a draft of it on the server, and shows what it changes in the proposal.
(() => {
  const made = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
  for (const form of document.querySelectorAll(".choices form[action*='/decision/']")) {
    const button = form.querySelector("[type=submit]:not([name], [hidden])");
    if (!form.querySelector("input:not([type=hidden]), textarea, select")) continue;
    const difference = made("div", { className: "difference", ariaLive: "polite" });
    const said = made("span", { className: "saved", role: "status" });
    button.before(difference);
    button.after(said);
    button.append(made("kbd", { textContent: "Ctrl Enter", ariaHidden: "true" }));
    let timer = 0;
    let last = null; // the answer to what was asked last counts, whichever comes first
    const send = async (what, body) => {
      try {
        return await fetch(form.action.replace("/decision/", `/${what}/`), { method: "POST", body });
      } catch {
        return { ok: false, status: 0 };
      }
    };
    const keep = async () => {
      const body = new FormData(form);
      const mine = (last = {});
      const [draft, changes] = await Promise.all([send("draft", body), send("diff", body)]);
      if (mine !== last) return;
      said.textContent = draft.ok && !draft.redirected ? `Saved ${clock.format(new Date())}` : "Not saved: it is on this page alone";
      if (changes.status === 200 && !changes.redirected) difference.innerHTML = await changes.text();
    };
    form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(keep, 800); });
    form.addEventListener("submit", () => { clearTimeout(timer); last = null; });
  }
})();
