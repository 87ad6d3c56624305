// The one socket of a page: [data-socket] names its path, data-after its cursor, data-query what the page shows.
// What comes is sent on as "socket:message". Each time it opens "socket:back" is said: what changed before was
// not heard of. "page:looked" says whether a part could ask.
// The server says something every few seconds, if only {}: of a connection that broke without a word, nothing else tells.
(() => {
  const place = document.querySelector("[data-socket]");
  if (!place) return;
  const [SILENT, SPREAD] = [30_000, 1500]; // milliseconds; what every page is told not all ask about at one moment
  let [failures, opened] = [0, 0];
  let [socket, heard, alerts] = [null, 0, 0];
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
    socket = new WebSocket(`${scheme}://${location.host}${place.dataset.socket}?after=${place.dataset.after}&${place.dataset.query}`);
    socket.onopen = () => {
      place.dispatchEvent(new CustomEvent("socket:back", { bubbles: true }));
      opened = heard = Date.now();
      say("open", "Live");
    };
    socket.onmessage = (message) => {
      const detail = JSON.parse(message.data);
      heard = Date.now();
      if (detail.alerts) alerts ||= setTimeout(() => { alerts = 0; htmx.trigger(document.body, "alerts"); }, Math.random() * SPREAD);
      if (detail.alerts || !Object.keys(detail).length) return;
      place.dispatchEvent(new CustomEvent("socket:message", { bubbles: true, detail }));
    };
    socket.onclose = lost;
  };
  const lost = (closed) => {
    if (closed.code === 4403) return say("lost", "No longer live: sign in again");
    failures = opened && Date.now() - opened > 10_000 ? 1 : failures + 1; // one that opens and breaks must not hammer
    if (opened || !patient) say("lost", "Reconnecting, the page may be old");
    const longest = Math.min(15_000, 500 * 2 ** Math.min(failures, 6));
    setTimeout(connect, 300 + Math.random() * longest);
  };
  setInterval(() => {
    if (socket?.readyState !== WebSocket.OPEN || Date.now() - heard < SILENT) return;
    socket.onmessage = socket.onclose = null; // its end may take minutes to come
    socket.close();
    lost({});
  }, 5000);
  say("connecting", "Connecting");
  setTimeout(() => {
    patient = false;
    if (!opened) say("lost", "Not live yet: reload to see what is new");
  }, 2000);
  connect();
})();
