// The one socket of a page: [data-socket] names its path, data-after its cursor. What comes is sent on as "socket:message".
// Each time it opens "socket:back" is said: what changed before was not heard of. "page:looked" says whether a part could ask.
(() => {
  const place = document.querySelector("[data-socket]");
  if (!place) return;
  let failures = 0;
  let opened = 0;
  let said = ["", ""]; // of the socket
  const unanswered = new Set(); // parts that asked and got no answer
  const show = () => {
    const isOld = said[0] === "open" && unanswered.size;
    const [state, text] = isOld ? ["lost", "No answer, the page may be old"] : said;
    if (place.textContent !== text) [place.dataset.state, place.textContent] = [state, text];
  };
  const say = (...words) => { said = words; show(); };
  document.addEventListener("page:looked", ({ detail: { part, answered } }) => {
    unanswered[answered ? "delete" : "add"](part);
    setTimeout(show, answered ? 0 : 1000); // whoever leaves the page need not hear of it
  });
  let patient = true; // most connections are there at once: only one that is not deserves a warning
  const connect = () => {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}${place.dataset.socket}?after=${place.dataset.after}`);
    socket.onopen = () => {
      place.dispatchEvent(new CustomEvent("socket:back", { bubbles: true }));
      opened = Date.now();
      say("open", "Live");
    };
    socket.onmessage = (message) => {
      const detail = JSON.parse(message.data);
      place.dispatchEvent(new CustomEvent("socket:message", { bubbles: true, detail }));
    };
    socket.onclose = (closed) => {
      if (closed.code === 4403) return say("lost", "No longer live: sign in again");
      failures = opened && Date.now() - opened > 10_000 ? 1 : failures + 1; // one that opens and breaks must not hammer
      if (opened || !patient) say("lost", "Reconnecting, the page may be old");
      const longest = Math.min(15_000, 500 * 2 ** Math.min(failures, 6));
      setTimeout(connect, 300 + Math.random() * longest);
    };
  };
  say("connecting", "Connecting");
  setTimeout(() => {
    patient = false;
    if (!opened) say("lost", "Not live yet: reload to see what is new");
  }, 2000);
  connect();
})();
