// The Moorage client: connects a page to its live session, keeps what the person does until the store has it, and
// comes back by itself. An ES module without a build step:
//
//   import { connect } from "/live/moorage.js";
//   const live = connect({ url: "/live", status: document.querySelector("#connection") });
//   live.on("welcome", (w) => ...);            // created | resumed | fresh, with states, shared, story
//   live.set("board:draft:v1", "text", "Hello");   // kept; sent again after a hand-over until the store has it
//   live.send("add_note", { text: "Hello" });      // calls an action; a promise of its acknowledgement
//
// The session id is a secret of this tab: it lives in sessionStorage and travels only inside the socket.

const PROTOCOL = 1;
const TAKEN_OVER = 4001;
const PROTOCOL_ERROR = 4002;
const RECONNECT_CODES = new Set([1012]);
const NOTICE_JITTER_MS = 100;
const BACKOFF_FIRST_MS = 250;
const BACKOFF_MAX_MS = 10_000;
const HELLO_PATIENCE_MS = 8_000;
const SILENCE_MS = 40_000; // the server beats every 15 s
const PENDING_COUNT = 2_000;

const WORDS = {
  connecting: "Connecting",
  live: "Live",
  saving: "Saving",
  draining: "Live, this version is retiring",
  handover: "Moving to the new version",
  reconnecting: "Reconnecting",
  taken_over: "Open in another tab",
  outdated: "Reload to continue",
};

export function connect(options = {}) {
  return new LiveSession(options);
}

export class LiveSession {
  constructor({ url = "/live", status = null, storageKey } = {}) {
    this.url = new URL(url, location.href);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.statusElement = status;
    this.storageKey = storageKey ?? `moorage:${this.url.pathname}`;
    this.handlers = new Map();
    this.states = {};
    this.shared = {};
    this.people = { count: 0, people: [] };
    this.welcome = null;
    this.status = "";
    this.seq = 0;
    this.known = false; // a welcome was seen: our numbers follow the server's
    this.pending = []; // { seq, numbered, message, sent, promise, resolve, reject }
    this.attempt = 0;
    this.socket = null;
    this.timer = null;
    this.load();
    addEventListener("pagehide", () => this.save());
    addEventListener("online", () => this.hurry());
    addEventListener("pageshow", (event) => event.persisted && this.hurry());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.hurry());
    this.show("connecting");
    this.open();
  }

  // ---- for pages --------------------------------------------------------------------------------------------
  // Events: welcome, state(id, values), shared(id, value), people, message(name, data), status(word, text),
  // refused({code, message}), drain({deadline_ms}), pending(count).
  on(name, handler) {
    if (!this.handlers.has(name)) this.handlers.set(name, new Set());
    this.handlers.get(name).add(handler);
    return () => this.handlers.get(name).delete(handler);
  }

  state(id) {
    return this.states[id] ?? {};
  }

  set(state, field, value) {
    this.states[state] = { ...this.states[state], [field]: value };
    const last = this.pending.at(-1);
    if (last && !last.sent && last.message.type === "set" && last.message.state === state && last.message.field === field) {
      last.message.value = value; // nobody has seen the older value
      return last.promise;
    }
    return this.queue({ type: "set", state, field, value });
  }

  send(name, data = null) {
    return this.queue({ type: "send", name, data });
  }

  // Takes the session back into this tab after another one took it over.
  takeBack() {
    if (this.status === "taken_over") this.reopen(0);
  }

  // ---- pending changes --------------------------------------------------------------------------------------
  queue(message, seq = null) {
    if (this.pending.length >= PENDING_COUNT) return Promise.reject(refusal("too-much-pending", "Too much is waiting to be sent."));
    const entry = { seq: seq ?? ++this.seq, numbered: seq !== null || this.known, message, sent: false };
    entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    entry.promise.catch(() => {}); // a page may leave it alone; "refused" tells it too
    this.pending.push(entry);
    this.flush();
    this.emit("pending", this.pending.length);
    return entry.promise;
  }

  flush() {
    if (!this.welcomed || this.socket?.readyState !== WebSocket.OPEN) return;
    for (const entry of this.pending) {
      if (entry.sent) continue;
      this.socket.send(JSON.stringify({ ...entry.message, seq: entry.seq }));
      entry.sent = true;
    }
  }

  acknowledge(seq) {
    while (this.pending.length && this.pending[0].seq <= seq) this.pending.shift().resolve();
    this.emit("pending", this.pending.length);
  }

  // ---- storage of this tab ----------------------------------------------------------------------------------
  load() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(this.storageKey) ?? "{}");
      this.session = typeof kept.session === "string" ? kept.session : null;
      this.kept = Array.isArray(kept.pending) ? kept.pending : [];
      if (this.kept.length) this.save([]);
    } catch {
      this.session = null;
      this.kept = [];
    }
    for (const { seq, message } of this.kept) this.queue(message, seq);
  }

  save(pending = this.pending.filter((entry) => entry.numbered).map(({ seq, message }) => ({ seq, message }))) {
    try {
      sessionStorage.setItem(this.storageKey, JSON.stringify({ session: this.session, pending }));
    } catch {
      // a browser without storage: the session lives as long as the page
    }
  }

  // ---- the socket -------------------------------------------------------------------------------------------
  open() {
    clearTimeout(this.timer);
    this.timer = null;
    this.welcomed = false;
    this.noticed = false;
    const socket = new WebSocket(this.url);
    this.socket = socket;
    this.watch(HELLO_PATIENCE_MS);
    socket.addEventListener("open", () => {
      socket.send(JSON.stringify({ type: "hello", protocol: PROTOCOL, session: this.session }));
    });
    socket.addEventListener("message", (event) => {
      if (socket !== this.socket) return;
      this.watch(SILENCE_MS);
      this.receive(JSON.parse(event.data));
    });
    socket.addEventListener("close", (event) => {
      if (socket === this.socket) this.lost(event.code);
    });
  }

  watch(patience) {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      const silent = this.socket;
      this.socket = null;
      silent?.close();
      this.lost(1006);
    }, patience);
  }

  lost(code) {
    clearTimeout(this.silence);
    this.welcomed = false;
    for (const entry of this.pending) entry.sent = false;
    if (code === TAKEN_OVER) return this.giveUp();
    if (code === PROTOCOL_ERROR) return this.show("outdated");
    const asked = this.noticed || RECONNECT_CODES.has(code);
    if (asked && this.attempt === 0) {
      this.show("handover");
      this.reopen(Math.random() * NOTICE_JITTER_MS);
    } else {
      this.show("reconnecting");
      const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 1.8 ** this.attempt);
      this.reopen(ceiling * (0.5 + Math.random() / 2));
    }
    this.attempt += 1;
  }

  giveUp() {
    this.known = false; // the other tab goes on counting
    for (const entry of this.pending.splice(0)) entry.reject(refusal("taken-over", "The session goes on in another tab."));
    this.show("taken_over");
  }

  reopen(delay) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), delay);
  }

  hurry() {
    if (this.timer !== null && this.status !== "taken_over") this.reopen(0);
  }

  // ---- what the server says ---------------------------------------------------------------------------------
  receive(message) {
    switch (message.type) {
      case "welcome":
        return this.enter(message);
      case "ack":
        return this.acknowledge(message.seq);
      case "refused":
        return this.refuse(message);
      case "state":
        this.states[message.state] = { ...this.states[message.state], ...message.values };
        return this.emit("state", message.state, this.states[message.state]);
      case "shared":
        this.shared[message.state] = message.value;
        return this.emit("shared", message.state, message.value);
      case "people":
        this.people = { count: message.count, people: message.people };
        return this.emit("people", this.people);
      case "message":
        return this.emit("message", message.name, message.data);
      case "drain":
        this.show("draining");
        return this.emit("drain", message);
      case "store":
        return this.show(message.available ? "live" : "saving");
      case "reconnect":
        this.noticed = true;
        return this.show("handover");
      case "taken_over":
        return this.show("taken_over");
    }
  }

  enter(welcome) {
    this.welcomed = true;
    this.attempt = 0;
    this.session = welcome.session;
    this.save([]);
    this.states = welcome.states;
    this.shared = Object.fromEntries(Object.entries(welcome.shared).map(([id, one]) => [id, one.value]));
    this.people = welcome.people;
    this.welcome = welcome;
    welcome.unsent = [];
    if (welcome.outcome === "fresh") {
      // What was typed for the lost values has no place any more: the page is told and may offer it again.
      welcome.unsent = this.pending.map((entry) => entry.message);
      for (const entry of this.pending.splice(0)) entry.reject(refusal("session-fresh", "The session started fresh."));
    }
    this.catchUp(welcome.seq);
    this.known = true;
    this.show(welcome.draining ? "draining" : "live");
    this.emit("welcome", welcome);
    this.emit("people", this.people);
    this.flush();
  }

  // Changes the store already has are done; the others are sent again. What was done before the first welcome has no
  // number the server knows: it is numbered after everything the server has seen.
  catchUp(seq) {
    const done = this.pending.filter((entry) => entry.numbered && entry.seq <= seq);
    this.pending = this.pending.filter((entry) => !done.includes(entry));
    for (const entry of done) entry.resolve();
    this.seq = Math.max(seq, ...this.pending.filter((entry) => entry.numbered).map((entry) => entry.seq));
    for (const entry of this.pending) {
      if (!entry.numbered) Object.assign(entry, { seq: ++this.seq, numbered: true });
      const { type, state, field, value } = entry.message;
      if (type === "set") this.states[state] = { ...this.states[state], [field]: value };
    }
    this.emit("pending", this.pending.length);
  }

  refuse(message) {
    const found = this.pending.findIndex((entry) => entry.seq === message.seq);
    if (found >= 0) this.pending.splice(found, 1)[0].reject(refusal(message.code, message.message));
    this.emit("refused", { code: message.code, message: message.message });
    this.emit("pending", this.pending.length);
  }

  // ---- telling the page -------------------------------------------------------------------------------------
  show(status) {
    if (this.status === "taken_over" && status === "handover") return;
    this.status = status;
    const text = WORDS[status];
    if (this.statusElement) {
      this.statusElement.dataset.moorage = status;
      this.statusElement.textContent = text;
    }
    this.emit("status", status, text);
  }

  emit(name, ...values) {
    for (const handler of this.handlers.get(name) ?? []) handler(...values);
  }
}

function refusal(code, message) {
  return Object.assign(new Error(message), { code });
}

// The session's story in words, newest first: [{ at: Date, event, text }]. `labels` may name the fields that come back:
// { "board:draft:v1.text": "draft" }.
export function tell(welcome, labels = {}) {
  return [...welcome.story].reverse().map((event) => ({
    at: new Date(event.at_ms),
    event: event.event,
    text: sentence(event, labels),
  }));
}

const REASONS = {
  expired: "it had been away for too long",
  schema: "this version keeps its state differently",
  corrupt: "the stored record could not be read; it was put aside",
  newer_format: "the stored record is of a newer version; it was put aside",
  unknown_id: "the session store does not know it",
};

function sentence(event, labels) {
  const where = event.deployment ? ` by deployment ${event.deployment}` : "";
  switch (event.event) {
    case "created":
      return `Session started${where}`;
    case "resumed":
      return `Resumed from the session store${where}${names(event.restored, labels)}`;
    case "fresh":
      return `Started fresh${where}: ${REASONS[event.reason] ?? event.reason}${detail(event, labels)}`;
    case "handed_over":
      return `Stored and handed over${where}`;
    case "ended":
      return "Page closed";
    case "dropped":
      return "Connection lost";
    default:
      return event.event;
  }
}

function detail(event, labels) {
  if (!event.detail) return "";
  return ` (${Object.entries(labels).reduce((text, [name, label]) => text.replaceAll(name, label), event.detail)})`;
}

// "board:draft:v1.text" and "board:draft:v1.colour" become ": draft text and draft colour kept".
function names(restored = [], labels = {}) {
  if (!restored.length) return "";
  return `: ${list(restored.map((name) => labels[name] ?? plainName(name)))} kept`;
}

function plainName(name) {
  const cut = name.lastIndexOf(".");
  const parts = name.slice(0, cut).split(":");
  return `${parts.at(-2) ?? parts[0]} ${name.slice(cut + 1)}`;
}

function list(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
