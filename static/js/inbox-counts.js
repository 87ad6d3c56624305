// The numbers of the tabs and of the title. They are counted over every review: they come after the rows, and not as often.
(() => {
  const { title } = document;
  const all = document.querySelector("[data-count=all]");
  let [timer, last] = [0, 0];
  const entitle = (number) => { document.title = Number(number) ? `(${number}) ${title}` : title; };
  const show = (part) => {
    for (const { dataset, textContent } of part.querySelectorAll("[data-number]")) {
      for (const place of document.querySelectorAll(`[data-count="${dataset.count}"]`)) {
        if (place.textContent !== textContent) place.textContent = textContent;
      }
      if (dataset.count === "all") entitle(dataset.number);
    }
  };
  const ask = async () => {
    [timer, last] = [0, Date.now()];
    const { rows, query } = document.getElementById("review-list").dataset;
    const answer = await fetch(`${rows}?${new URLSearchParams(query)}&counts=1`).catch(() => null); // the next change asks again
    if (!answer?.ok || answer.redirected) return;
    show(Object.assign(document.createElement("template"), { innerHTML: await answer.text() }).content);
  };
  const later = () => { timer ||= setTimeout(ask, Math.max(500, 4000 - (Date.now() - last))); };
  document.addEventListener("counts:wanted", later);
  document.addEventListener("rows:came", ({ detail }) => {
    if (detail.querySelector("[data-number]")) timer = clearTimeout(timer) || 0; // they came with the rows
    show(detail);
  });
  if (all?.dataset.number === "") later(); // the page of a review comes without waiting for the counts
  entitle(all?.dataset.number);
})();
