// When the page of a review is left, others need not wait until it has been silent for long: its claim ends soon.
(() => {
  const place = document.querySelector("[data-here]");
  if (!place) return;
  addEventListener("pagehide", () => {
    const form = new FormData();
    form.append("csrfmiddlewaretoken", JSON.parse(document.body.getAttribute("hx-headers"))["x-csrftoken"]);
    form.append("left", "yes");
    navigator.sendBeacon(place.dataset.here, form);
  });
})();
