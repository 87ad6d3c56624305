// The button that decides what is ticked says how many that are, also when ticked rows leave.
(() => {
  const count = () => {
    const button = document.querySelector("#bulk [data-ticked]");
    if (!button) return;
    const number = document.querySelectorAll("#review-list [name=review]:checked").length;
    const text = number ? `Decide the ${number.toLocaleString("en")} ticked` : "Decide the ticked";
    if (button.textContent !== text) button.textContent = text;
  };
  document.addEventListener("change", count);
  new MutationObserver(count).observe(document.querySelector("main"), { childList: true, subtree: true });
  addEventListener("pageshow", count); // the browser keeps the ticks of a page that one comes back to
})();
