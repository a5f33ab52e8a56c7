// Messages to the server. A decision or draft lies in localStorage until it is acknowledged and is sent again until then;
// the server stores a repeat once. All that waits goes out as one list, because of several posts only the last may arrive.

const RESEND_MS = 4000;
const SEND_AFTER_MS = 20; // the frame with the next case comes first; what waits is in localStorage by then
const DURABLE = new Set(["commit", "sign", "skip", "stop_cord", "draft", "flag", "follow"]);
const DECIDING = new Set(["commit", "sign", "skip", "stop_cord"]);

class Outbox {
  /** `post(list)` hands messages to Streamlit; it may lose them. */
  constructor(userId, post) {
    this.key = `consilium.desk.${userId}`;
    this.post = post;
    this.waiting = this.load();
    this.numKept = this.waiting.filter((m) => DECIDING.has(m.type)).length;
    this.timer = null;
    this.soon = null;
  }

  load() {
    try {
      const list = JSON.parse(localStorage.getItem(this.key) || "[]");
      return Array.isArray(list) ? list : [];
    } catch {
      return []; // storage is off or holds something else: decisions then live as long as the page
    }
  }

  save() {
    try {
      localStorage.setItem(this.key, JSON.stringify(this.waiting.filter((m) => DURABLE.has(m.type))));
    } catch {
      this.isVolatile = true; // storage is full or off; resending still works while the page is open
    }
  }

  /** Queue one message; a newer draft, claim or heartbeat of a case replaces the older one. Returns its id. */
  add(message) {
    const full = { id: newId(), ...message };
    if (!DECIDING.has(full.type)) this.waiting = this.waiting.filter((m) => m.type !== full.type || m.case !== full.case || m.kind !== full.kind);
    this.waiting.push(full);
    this.save();
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.flush(), SEND_AFTER_MS);
    return full.id;
  }

  /** Decisions wait for the claim that gives them their version. */
  arm(caseId, token, version) {
    for (const m of this.waiting) {
      if (m.case === caseId && m.lease_token === token && m.version === null) m.version = version;
    }
    this.save();
  }

  flush() {
    clearTimeout(this.timer);
    const ready = this.waiting.filter((m) => m.version !== null);
    if (ready.length) this.post(ready);
    if (this.waiting.length) this.timer = setTimeout(() => this.flush(), RESEND_MS);
  }

  /** Take an acknowledgement; returns the message it answers, or null for a repeat. */
  settle(ack) {
    const message = this.waiting.find((m) => m.id === ack.id);
    if (!message) return null;
    if (ack.ok || !ack.retry) this.waiting = this.waiting.filter((m) => m.id !== ack.id);
    this.save();
    if (!this.waiting.length) clearTimeout(this.timer);
    return message;
  }

  drop(predicate) {
    const dropped = this.waiting.filter(predicate);
    this.waiting = this.waiting.filter((m) => !predicate(m));
    this.save();
    return dropped;
  }

  get numUnsaved() {
    return this.waiting.filter((m) => DECIDING.has(m.type)).length;
  }

  destroy() {
    clearTimeout(this.timer);
    clearTimeout(this.soon);
  }
}
