// Draws [data-plot] with uPlot, in the colours of the page; anew when a part was fetched, the window or the theme changed.
(() => {
  const HEIGHT = 150;
  const drawn = new Map(); // element -> plot
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (name) => { // light-dark() is resolved by the browser only where it is used
    const probe = Object.assign(document.createElement("i"), { className: `tone-${name}` });
    probe.style.color = name === "soft" || name === "line" ? `var(--${name})` : "var(--tone)";
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };
  const faint = (found) => found.replace(/^rgb\((.*)\)$/, "rgba($1, .45)");
  const round = (value) => (value == null ? "–" : Number(value.toPrecision(3)).toLocaleString("en"));
  const steps = [.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 432_000, 864_000]; // of an axis of seconds
  const lasted = (seconds) => {
    const [large, small, of] = seconds >= 3600 ? [" h", " min", Math.round(seconds / 60)] : [" min", " s", Math.round(seconds)];
    if (seconds < 60) return seconds && seconds < 1 ? `${round(seconds * 1000)} ms` : `${round(seconds)} s`;
    return [[Math.floor(of / 60), large], [of % 60, small]].flatMap(([number, word]) => (number ? number + word : [])).join(" ");
  };
  const moments = (plot, ticks, axis, space, seconds) => ticks.map((at) => new Date(at * 1000).toLocaleString("en-GB",
    seconds >= 86_400 ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit" }));
  const draw = (place) => {
    const { unit, kind, times, lines } = JSON.parse(place.dataset.plot);
    const said = (plot, value) => (value == null ? "–" : unit === "s" ? lasted(value) : `${round(value)}${unit && ` ${unit}`}`);
    const scale = unit === "s" ? { size: 60, incrs: steps, values: (plot, ticks) => ticks.map(lasted) } : { size: 44, values: (plot, ticks) => ticks.map(round) };
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: `11px ${style("--tblr-font-sans-serif")}` };
    const series = lines.map(({ word, tone, values }) => ({
      label: word, stroke: colour(tone), width: kind === "bars" ? 0 : 1.5, value: said, spanGaps: true, points: { show: kind === "lines", size: values.filter((one) => one != null).length > 1 ? 3 : 7 },
      ...(kind === "bars" && { fill: tone === "red" ? colour(tone) : faint(colour(tone)), paths: uPlot.paths.bars({ size: [0.8, 40] }) }),
    }));
    const options = {
      width: place.clientWidth, height: HEIGHT, legend: { live: true }, cursor: { y: false, drag: { x: false } },
      scales: { y: { range: (plot, least, most) => [0, (most || 1) * 1.1] } },
      axes: [{ ...axis, space: 60, values: moments, size: 26 }, { ...axis, ...scale }],
      series: [{ label: "", value: (plot, at) => (at == null ? "" : new Date(at * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })) }, ...series],
    };
    drawn.get(place)?.destroy();
    drawn.set(place, new uPlot(options, [times, ...lines.map(({ values }) => values)], place));
    widths.observe(place);
  };
  const all = () => {
    for (const [place, plot] of drawn) if (!place.isConnected) { plot.destroy(); drawn.delete(place); }
    document.querySelectorAll("[data-plot]").forEach(draw);
  };
  const widths = new ResizeObserver((entries) => {
    for (const { target, contentRect } of entries) {
      const plot = drawn.get(target);
      if (plot && Math.round(contentRect.width) !== plot.width) plot.setSize({ width: Math.round(contentRect.width), height: HEIGHT });
    }
  });
  all();
  document.addEventListener("htmx:afterSwap", ({ detail: { target } }) => { if (target.id === "trends" || !document.querySelector(".uplot")) all(); });
  new MutationObserver(all).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
})();
