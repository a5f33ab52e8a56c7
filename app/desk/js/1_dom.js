// Building elements. Every text of a model or a person becomes a text node: nothing here parses markup.

/** An element. `on*` props are listeners, `class` and dashed props attributes; null children are left out. */
function el(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
}

/** Replace what a slot shows, keeping the keyboard focus on the element with the same data-k. */
function fill(slot, ...children) {
  const active = document.activeElement;
  const kept = active && slot.contains(active) ? active.dataset.k : null;
  slot.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  if (kept) slot.querySelector(`[data-k="${CSS.escape(kept)}"]`)?.focus({ preventScroll: true });
}

/** A key cap. */
const key = (text) => el("kbd", { class: "cd-key", "aria-hidden": "true" }, text);

/** HH:MM:SS of a server time, in UTC. */
const utcTime = (iso) => new Date(iso).toISOString().slice(11, 19);

const utcMinute = (iso) => new Date(iso).toISOString().slice(0, 16).replace("T", " ");

const number = (value) => (value === null || value === undefined ? "–" : Number(value).toFixed(2));

const isTyping = (node) =>
  node instanceof Element && (node.matches("input, textarea, select") || node.isContentEditable || !!node.closest("[contenteditable='true']"));

const newId = () => `${Date.now().toString(36)}-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
