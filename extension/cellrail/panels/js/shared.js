// What every room of a panel uses: the line to the kernel, elements, words and small pictures.
// Text becomes a document in `h` only, and there it stays text: nothing is ever parsed as markup.

const rooms = {};

// --- elements ---------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
const PICTURES = new Set(["svg", "path", "circle", "rect", "line", "g", "pattern", "defs", "svg-title"]);
// attributes that would run something, or load it from elsewhere
const FORBIDDEN = /^(on.*|srcdoc|href|xlink:href|action|formaction|style)$/i;

/** An element. Children are elements, text, lists of those, or nothing; never markup. */
function h(tag, properties, ...children) {
  const node = PICTURES.has(tag) ? document.createElementNS(SVG, tag.replace("svg-", "")) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") listen(node, name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (name === "value" || name === "checked" || name === "indeterminate" || name === "selected") node[name] = value;
    else if (name === "key") node.dataset.key = value;
    else if (name === "src" && /^data:image\/(png|jpeg|gif|webp|svg\+xml);base64,/.test(value)) node.setAttribute(name, value);
    else if (name !== "src" && !FORBIDDEN.test(name)) node.setAttribute(name, value === true ? "" : String(value));
  }
  add(node, children);
  return node;
}

function add(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

function listen(node, kind, callback) {
  node.callbacks ??= {};
  if (!(kind in node.callbacks)) node.addEventListener(kind, (event) => node.callbacks[kind]?.(event));
  node.callbacks[kind] = callback;
}

/** Make what `node` holds be `children`, and leave alone what is the same: focus, scrolling, text. */
function draw(node, ...children) {
  const fresh = document.createDocumentFragment();
  add(fresh, children);
  const root = node.getRootNode();
  const held = root.activeElement;
  const around = [];
  for (let place = held; place && place !== node && node.contains(place); place = place.parentNode) around.push(place);
  morphChildren(node, fresh);
  if (around.length && root.activeElement !== held) {
    // it was moved; or it is gone, and who works by keyboard goes on where it stood: on nothing that
    // another Enter would press
    if (node.contains(held)) held.focus({ preventScroll: true });
    else focus_on(around.find((place) => node.contains(place)) ?? node);
  }
  return node;
}

/** Put the focus on a part itself: the next Tab is the first thing in it. */
function focus_on(part) {
  part.setAttribute("tabindex", "-1");
  part.focus({ preventScroll: true });
}

function morphChildren(old, fresh) {
  const keyed = new Map();
  for (const child of old.children) if (child.dataset?.key) keyed.set(child.dataset.key, child);
  let place = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const key = next.dataset?.key;
    const same = key ? keyed.get(key) : place;
    if (same && alike(same, next)) {
      if (same !== place) old.insertBefore(same, place);
      else place = place.nextSibling;
      morph(same, next);
    } else {
      old.insertBefore(next, place);
    }
  }
  while (place) {
    const gone = place;
    place = place.nextSibling;
    gone.remove();
  }
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.dataset?.key ?? "") === (b.dataset?.key ?? "");
}

function morph(old, fresh) {
  if (old === fresh) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.dataset?.fixed) return; // it looks after itself
  const busy = old.getRootNode().activeElement === old;
  // (a part that was given the focus keeps it)
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && !(busy && name === "tabindex")) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const kind of Object.keys(old.callbacks ?? {})) if (!(kind in (fresh.callbacks ?? {}))) delete old.callbacks[kind];
  for (const [kind, callback] of Object.entries(fresh.callbacks ?? {})) listen(old, kind, callback);
  if (old instanceof HTMLInputElement) {
    if (old.type === "checkbox" || old.type === "radio") old.checked = fresh.checked;
    else if (!busy && old.value !== fresh.value) old.value = fresh.value;
  }
  if (old instanceof HTMLTextAreaElement) {
    if (!busy && old.value !== fresh.value) old.value = fresh.value;
    return;
  }
  morphChildren(old, fresh);
  if (old instanceof HTMLSelectElement && !busy && old.value !== fresh.value) old.value = fresh.value;
}

/** What a cell has displayed as HTML: in a frame of its own, without scripts, links and network. */
function frame(markup, title) {
  const style = getComputedStyle(document.querySelector(".cellrail") ?? document.body);
  const take = (name, other) => style.getPropertyValue(name).trim() || other;
  const node = document.createElement("iframe");
  node.className = "cr-frame";
  node.title = title;
  node.dataset.fixed = "1";
  node.dataset.key = `frame-${digest(markup)}-${take("--cr-ground", "")}`;
  // no scripts run in it; the same origin only lets us measure its height
  node.setAttribute("sandbox", "allow-same-origin");
  node.setAttribute("referrerpolicy", "no-referrer");
  node.setAttribute("srcdoc", `<!doctype html><meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:">
<style>:root{color-scheme:${take("--cr-scheme", "light")}}html{overflow-x:auto}body{margin:0;padding:2px;background:${take("--cr-ground", "#fff")};color:${take("--cr-text", "#222")};font:13px ${take("--cr-font", "sans-serif")}}
table{border-collapse:collapse;font-size:12px}th,td{padding:3px 8px;text-align:right;border:none;white-space:nowrap}thead{border-bottom:1px solid ${take("--cr-line", "#bbb")}}
tbody tr:nth-child(odd){background:${take("--cr-shade", "#f5f5f5")}}a{color:inherit;pointer-events:none}pre{white-space:pre-wrap}</style>${markup}`);
  node.addEventListener("load", () => {
    const inside = node.contentDocument?.documentElement;
    // nothing in it leads anywhere
    for (const link of node.contentDocument?.querySelectorAll("[href],[action],[formaction]") ?? []) for (const name of ["href", "action", "formaction"]) link.removeAttribute(name);
    if (inside) node.style.height = `${Math.min(inside.scrollHeight + 4, 600)}px`;
  });
  return node;
}

function digest(text) {
  let sum = 5381;
  for (let place = 0; place < text.length; place++) sum = ((sum * 33) ^ text.charCodeAt(place)) >>> 0;
  return sum.toString(36);
}

/** Text as a terminal would colour it. */
function ansi(text) {
  const parts = [];
  let colour = "";
  let bold = false;
  for (const piece of String(text).split(/(\x1b\[[0-9;]*[A-Za-z])/)) {
    const code = /^\x1b\[([0-9;]*)m$/.exec(piece);
    if (code) {
      const numbers = code[1].split(";").map(Number);
      for (let place = 0; place < numbers.length; place++) {
        const number = numbers[place];
        if (number === 0) [colour, bold] = ["", false];
        else if (number === 1) bold = true;
        else if (number === 38 || number === 48) place += numbers[place + 1] === 5 ? 2 : 4;
        else if (number === 39) colour = "";
        else if (number >= 30 && number <= 37) colour = `cr-ansi-${number - 30}`;
        else if (number >= 90 && number <= 97) colour = `cr-ansi-${number - 90}`;
      }
    } else if (piece && !piece.startsWith("\x1b")) {
      parts.push(colour || bold ? h("span", { class: `${colour}${bold ? " cr-bold" : ""}` }, piece) : piece);
    }
  }
  return parts;
}

// --- words ------------------------------------------------------------------------------------

function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 10) return `${value.toFixed(1)} s`;
  // rounded first: never 59 min 60 s
  const whole = Math.round(value), minutes = Math.round(value / 60), hours = Math.round(value / 3600);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function bytes(value) {
  if (!value) return value === 0 ? "0 B" : "";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let place = 0;
  while (value >= 1000 && place < units.length - 1) [value, place] = [value / 1000, place + 1];
  return `${value >= 100 || place === 0 ? Math.round(value) : value.toFixed(1)} ${units[place]}`;
}

function ago(moment) {
  const past = Date.now() / 1000 - moment;
  if (past < 5) return "just now";
  if (past < 60) return `${Math.floor(past)} s ago`;
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  if (past < 7 * 86400) return `${Math.floor(past / 86400)} d ago`;
  return day(moment);
}

const two = (number) => String(number).padStart(2, "0");

function day(moment) {
  const date = new Date(moment * 1000);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

function clock(moment) {
  const date = new Date(moment * 1000);
  return `${day(moment)} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

const count = (number) => number.toLocaleString("en-US");

/** A part of a whole, as a width. */
const percent = (part) => `${(part * 100).toFixed(3)}%`;

/** A value in one line: its line breaks are seen. */
const one_line = (text) => String(text).replace(/\r\n?|\n/g, "⏎");

// --- JSON that a person types ------------------------------------------------------------------

const JSON_PARTS = /"(?:[^"\\]|\\.)*"|[{}[\]:,]|[^\s{}[\]:,"]+/g;
const NO_NUMBER = /^(NaN|-?Infinity)$/;

/** Whether a text is JSON, or would be with other numbers: no text that is to be taken as it stands. */
function is_json(text) {
  try {
    JSON.parse(text.replace(JSON_PARTS, (part) => (NO_NUMBER.test(part) ? "0" : part)));
    return true;
  } catch {
    return false;
  }
}

/** What is wrong with a JSON text; "" for nothing. The same rule as `typed` in `run/jsontext.py`. */
function json_fault(text) {
  const parts = text.match(JSON_PARTS) ?? [];
  if (is_json(text)) {
    const open = []; // the keys of the objects that are open
    for (const [place, part] of parts.entries()) {
      if (part === "{" || part === "[") open.push(new Set());
      else if (part === "}" || part === "]") open.pop();
      else if (NO_NUMBER.test(part)) return `${part} is no number of JSON`;
      else if (/^-?\d.*[.eE]/.test(part) && !Number.isFinite(Number(part))) return `${part} is too large a number`;
      else if (parts[place + 1] === ":") {
        const key = JSON.parse(part);
        if (open.at(-1).has(key)) return `the key ${part} comes twice`;
        open.at(-1).add(key);
      }
    }
    return "";
  }
  try { JSON.parse(text); } catch (problem) { return problem.message; }
}

/** The fields of an object's text, each value as it is written: no number loses a digit. */
function json_fields(text) {
  const found = [];
  let [depth, start, key, last] = [0, 0, null, ""];
  for (const { 0: part, index } of text.matchAll(JSON_PARTS)) {
    if (depth === 1 && part === ":") [key, start] = [JSON.parse(last), index + 1];
    else if (depth === 1 && key !== null && (part === "," || part === "}")) {
      found.push([key, text.slice(start, index).trim()]);
      key = null;
    }
    if (part === "{" || part === "[") depth += 1;
    else if (part === "}" || part === "]") depth -= 1;
    last = part;
  }
  return found;
}

// --- pictures ---------------------------------------------------------------------------------

// each status has a shape of its own, so that it is told without colour; a word stands beside it
const SHAPES = {
  success: "M4.5 8.3l2.4 2.4 4.6-5",
  failed: "M5.2 5.2l5.6 5.6M10.8 5.2l-5.6 5.6",
  kept: "M10.8 6.2A3.4 3.4 0 1 0 11.4 8.6M11.2 4.2v2.3H8.9",
  running: "M6.4 5l4.6 3-4.6 3z",
  suspended: "M6.3 5.3v5.4M9.7 5.3v5.4",
  interrupted: "M8.6 4.2L6 8.5h4L7.4 11.8",
  cancelled: "M4.6 8h6.8",
  skipped: "M4.8 5.4l2.8 2.6-2.8 2.6M8.4 5.4l2.8 2.6-2.8 2.6",
  pending: "",
  queued: "M8 5v3.2l2 1.4",
  waiting: "M8 5v3.2l2 1.4",
};

function icon(status) {
  return h("svg", { class: `cr-icon cr-${status}`, viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" },
    h("circle", { cx: 8, cy: 8, r: 6.6 }), h("path", { d: SHAPES[status] ?? "" }));
}

function badge(status, words) {
  return h("span", { class: `cr-badge cr-is-${status}` }, icon(status), h("span", {}, words ?? status));
}

/** The class of a cause: red is for what went wrong, not for what waits or was cancelled. */
const cause_class = (status, kind = "cr-cause") => `${kind}${status === "failed" || status === "interrupted" ? "" : " cr-calm-cause"}`;

function chips(pairs, kind) {
  return pairs.map(([name, value]) => h("span", { class: `cr-chip cr-chip-${kind}`, title: `${kind} ${name} = ${value}` },
    h("span", { class: "cr-chip-name" }, name), h("span", { class: "cr-chip-value" }, one_line(value))));
}

// milliseconds after a press in which nothing is confirmed
const SECOND_THOUGHT = 500;
let last_press = -Infinity;

/** A button; with `confirms` it answers what a press has asked. One that is disabled keeps the focus. */
function button(words, onclick, more) {
  const { kind, confirms, disabled, ...rest } = more ?? {};
  const act = (event) => {
    if (disabled) return;
    // the second half of a double click, or a key that is held, is no second thought
    if (confirms && (event.detail > 1 || performance.now() - last_press < SECOND_THOUGHT)) return;
    last_press = performance.now();
    onclick(event);
  };
  return h("button", { type: "button", class: `cr-button${kind ? ` cr-${kind}` : ""}`, onclick: act, "aria-disabled": disabled ? "true" : null, ...rest }, words);
}

/** For a field: Enter does what the button beside it does. Front ends keep forms in outputs from it. */
const on_enter = (act) => (event) => {
  if (event.key !== "Enter" || event.isComposing) return;
  event.preventDefault();
  act(event.currentTarget);
};

function problem(error, key) {
  return h("div", { class: "cr-problem", role: "alert", key: key ?? "problem" }, icon("failed"),
    h("span", {}, error.message, error.hint ? h("span", { class: "cr-hint" }, ` ${error.hint}`) : null));
}

/** Tabs that arrow keys walk through. `tabs` are [name, words]. */
function tablist(tabs, chosen, choose, label) {
  const step = (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const place = tabs.findIndex(([name]) => name === chosen());
    const [name] = tabs[(place + move + tabs.length) % tabs.length];
    const list = event.currentTarget;
    choose(name);
    list.querySelector(`[data-key="tab-${name}"]`)?.focus();
  };
  return h("div", { class: "cr-tabs", role: "tablist", "aria-label": label, onkeydown: step },
    tabs.map(([name, words]) => h("button", {
      type: "button", role: "tab", class: "cr-tab", key: `tab-${name}`, "aria-selected": String(name === chosen()),
      tabindex: name === chosen() ? 0 : -1, onclick: () => choose(name),
    }, words)));
}

// --- the line to the kernel -------------------------------------------------------------------

const GONE = { message: "The kernel was restarted or is gone.", hint: "Run this cell again." };
// milliseconds without a sign of the kernel after which that is told: it may execute a cell
const SILENT_AFTER = 6000;
// the same, where it was seen to start
const DOUBTED_FOR = 2000;

// states of a kernel after which it knows no widget of before
const LOST = new Set(["restarting", "autorestarting", "terminating", "dead"]);

/** Hear of the kernel's end where the front end tells of it (JupyterLab, Notebook); gives what ends that. */
function follow_kernel(model, gone, doubt) {
  const { kernel } = model.widget_manager ?? {};
  const look = (_, status) => {
    if (LOST.has(status)) gone();
    else if (status === "starting") doubt(); // somebody else has restarted it
  };
  kernel?.statusChanged?.connect(look);
  kernel?.disposed?.connect(gone); // it was shut down
  return () => {
    kernel?.statusChanged?.disconnect(look);
    kernel?.disposed?.disconnect(gone);
  };
}

/** Questions and what is followed, of one view of the widget. */
class Line {
  /** `told(state)` hears how it stands with the kernel: "" (well), "silent" or "gone". */
  constructor(model, told) {
    this.model = model;
    this.told = told;
    this.state = "";
    this.since = 0; // the first message that waits for a sign
    this.next = Math.floor(Math.random() * 2 ** 40);
    this.asked = new Map();
    this.watched = new Map();
    this.hear = (message) => this.take(message);
    this.show = () => document.hidden || this.send({ alive: true });
    model.on("msg:custom", this.hear);
    this.doubts = false; // another kernel may be there: an answer settles it
    this.leave = follow_kernel(model, () => this.gone(), () => { this.doubts = true; this.send({ alive: true }); });
    this.beat = setInterval(this.show, 20000);
    this.watch_over = setInterval(() => this.look(), 1000);
    document.addEventListener("visibilitychange", this.show);
  }

  ask(room, what, args) {
    const n = this.next++;
    return new Promise((resolve, reject) => {
      this.asked.set(n, { resolve, reject });
      this.send({ n, room, what, args: args ?? {} });
    });
  }

  send(message) {
    if (this.state === "gone") {
      this.gone();
      return;
    }
    this.since ||= Date.now();
    try {
      this.model.send(message);
    } catch {
      this.gone(); // the front end has closed the line
    }
  }

  /** Every message has a sign for an answer; a kernel that executes a cell gives it later. */
  look() {
    if (!this.since || this.state === "gone") return;
    const waited = Date.now() - this.since;
    if (this.doubts && waited > DOUBTED_FOR) this.gone();
    else if (waited > SILENT_AFTER) this.stand("silent");
  }

  stand(state) {
    if (this.state === state) return;
    this.state = state;
    this.told(state);
  }

  /** Nobody answers any more: who waits is told. */
  gone() {
    this.stand("gone");
    for (const { reject } of this.asked.values()) reject(GONE);
    this.asked.clear();
    // what was shown stays; what never came never will
    for (const one of this.watched.values()) if (!one.answered) one.heard(undefined, GONE);
  }

  watch(room, what, args, heard) {
    const n = this.next++;
    const question = { n, room, what, args: args ?? {}, watch: true };
    this.watched.set(n, { question, heard, answered: false });
    this.send(question);
    return () => this.watched.delete(n) && this.send({ n, drop: true });
  }

  take(message) {
    [this.since, this.doubts] = [0, false];
    if (this.state === "silent") this.stand("");
    if (message.lost) {
      // the process that answers has ended: ask anew
      for (const { reject } of this.asked.values()) reject({ message: "the panel's process has ended", hint: "try again" });
      this.asked.clear();
      for (const { question } of this.watched.values()) this.send(question);
      return;
    }
    const asked = this.asked.get(message.n);
    if (asked) {
      this.asked.delete(message.n);
      if (message.error) asked.reject(message.error);
      else asked.resolve(message.data);
    }
    const watched = this.watched.get(message.n);
    if (watched) {
      watched.answered = true;
      watched.heard(message.data, message.error);
    }
  }

  close() {
    clearInterval(this.beat);
    clearInterval(this.watch_over);
    document.removeEventListener("visibilitychange", this.show);
    this.model.off("msg:custom", this.hear);
    this.leave();
    for (const n of this.watched.keys()) this.send({ n, drop: true });
    this.watched.clear();
  }
}
