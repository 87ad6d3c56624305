// The numbers of the tabs and of the title, in the menu and on the bell: after the rows, and not as often, the socket brings them.
(() => {
  document.cookie = "scripts=on; path=/; SameSite=Lax"; // so the page of a review comes without waiting for the counts
  const { title } = document;
  const all = document.querySelector("[data-count=all]");
  let [timer, last] = [0, 0];
  const entitle = (number) => { document.title = Number(number) ? `(${number}) ${title}` : title; };
  const show = (counts) => {
    for (const [tab, number] of Object.entries(counts)) {
      const text = Number(number).toLocaleString("en");
      for (const place of document.querySelectorAll(`[data-count="${tab}"]`)) {
        if (place.textContent !== text) place.textContent = text;
      }
    }
    if ("all" in counts) entitle(counts.all);
  };
  const numbers = (part) => Object.fromEntries([...part.querySelectorAll("[data-number]")].map(({ dataset }) => [dataset.count, dataset.number]));
  const put = ([id, html]) => {
    const old = document.getElementById(id);
    const said = (part) => [part.getAttribute("aria-label"), part.textContent.trim()].join();
    const part = Object.assign(document.createElement("template"), { innerHTML: html.trim() }).content.firstElementChild;
    if (!old || said(old) === said(part)) return; // the page itself asks too: what was brought last may not stand there
    const isFocused = old === document.activeElement;
    old.replaceWith(part);
    htmx.process(document.getElementById(id));
    if (isFocused) document.getElementById(id).focus();
  };
  const ask = async () => {
    [timer, last] = [0, Date.now()];
    const { rows, query } = document.getElementById("review-list").dataset;
    const answer = await fetch(`${rows}?${new URLSearchParams(query)}&counts=1`).catch(() => null); // the next change asks again
    if (!answer?.ok || answer.redirected) return;
    show(numbers(Object.assign(document.createElement("template"), { innerHTML: await answer.text() }).content));
  };
  const later = () => { timer ||= setTimeout(ask, Math.max(500, 4000 - (Date.now() - last))); };
  document.addEventListener("counts:wanted", later);
  document.addEventListener("rows:came", ({ detail }) => {
    if (detail.querySelector("[data-number]")) timer = clearTimeout(timer) || 0; // they came with the rows
    show(numbers(detail));
  });
  document.addEventListener("socket:message", ({ detail }) => {
    show(detail.counts || {});
    Object.entries(detail.around || {}).forEach(put);
  });
  if (all?.dataset.number === "") later();
  entitle(all?.dataset.number);
})();
