// The bars of a run's page lie on one axis, which grows while it is open: they come by the socket, or are asked for after a while.
(() => {
  let timer = 0;
  let last = 0;
  // the address, for the steps from the first to the last of the page
  const reaching = (address) => {
    const url = new URL(address, location.href);
    const rows = [...document.querySelectorAll("#steps > li:not([data-held])")].map((row) => row.id.slice("step-".length));
    url.searchParams.set("first", rows[0] ?? 1);
    url.searchParams.set("last", rows.at(-1) ?? 1);
    return url.pathname + url.search;
  };
  let nested = 0;
  let lastNested = 0;
  const redraw = () => {
    [nested, lastNested] = [0, Date.now()];
    for (const one of document.querySelectorAll("details[open] > [data-nested]")) htmx.trigger(one, "redraw");
  };
  const paint = (html) => {
    last = Date.now();
    const drawn = Object.assign(document.createElement("template"), { innerHTML: html }).content;
    const scale = () => document.querySelector("#run-axis > .scale").innerHTML;
    const before = scale();
    for (const one of drawn.querySelectorAll("#run-axis, .bar:not(#bar-run)")) document.getElementById(one.id)?.replaceWith(one);
    const every = Number(document.getElementById("run-axis").dataset.every);
    // the bars come to all at once, and each of these asks: not at once
    if (scale() !== before) nested ||= setTimeout(redraw, Math.max(0, every - (Date.now() - lastNested)) + Math.random() * every);
  };
  const draw = async () => {
    timer = 0;
    const axis = document.getElementById("run-axis");
    const answer = await fetch(reaching(axis.dataset.bars)).catch(() => null);
    if (answer?.ok && !answer.redirected) paint(await answer.text());
  };
  const soon = () => {
    const every = Number(document.getElementById("run-axis").dataset.every); // milliseconds; longer where many look, and then not at once
    timer ||= setTimeout(draw, Math.max(200, every - (Date.now() - last)) + Math.random() * (every - 2000));
  };
  document.addEventListener("parts:shown", soon);
  document.addEventListener("socket:message", ({ detail }) => { // after run.js
    const bars = detail.parts.find(({ id }) => id === "bars");
    if (!bars?.html || new URLSearchParams(location.search).has("idle")) return; // those are folded
    paint(bars.html);
    timer = clearTimeout(timer);
  });
  document.addEventListener("htmx:configRequest", ({ target, detail }) => {
    if ("nested" in target.dataset) detail.path = reaching(detail.path);
  });
  setInterval(() => { if (!document.hidden && document.querySelector("#run-axis[data-grows]")) soon(); }, 15_000);
})();
