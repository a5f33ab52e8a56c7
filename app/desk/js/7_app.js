// The desk in one page: its life, moving from case to case, and what is shown. Talking and deciding are in the next files.

const CLAIM_AFTER_MS = 1200; // a case browsed to is taken when the reader stays on it
const DRAFT_AFTER_MS = 2000;
const HEARTBEAT_MS = 30000;
const IDLE_MS = 60000;
const LIST_AFTER_MS = 6000; // the list is fetched again when the reader pauses after a decision

class App {
  constructor(root, component) {
    this.root = root;
    this.component = component;
    this.desk = new Desk();
    this.desk.showThinking = this.recall("thinking") !== "folded";
    this.boxes = null;
    this.stamp = "";
    this.numToday = 0;
    this.page = 40;
    this.userName = "";
    this.skew = 0;
    this.paintedAt = Infinity;
    this.lastInput = performance.now();
    this.lastBeat = 0;
    this.decidedAt = 0; // of a decision that the list does not show yet; 0: none
    this.shownRule = null;
    this.drafts = new Set();
    this.tourStep = null;
    this.abort = new AbortController();
    const on = (target, name, run, capture) => target.addEventListener(name, run, { signal: this.abort.signal, capture: !!capture });
    on(document, "keydown", (event) => onKey(this, event), true);
    on(document, "pointerdown", () => this.touched());
    on(document, "visibilitychange", () => (document.hidden ? this.sendDrafts() : this.beat()));
    on(window, "blur", () => this.sendDrafts());
    on(window, "beforeunload", (event) => this.outbox?.numUnsaved && event.preventDefault());
    on(root, "click", (event) => event.detail > 0 && !isTyping(document.activeElement) && root.focus({ preventScroll: true }));
    on(root, "focusout", (event) => event.target.dataset?.box && this.leftBox());
    on(this.slot("dialog"), "close", (event) => this.tourStep !== null && !event.target.open && endTour(this)); // the event comes late
    this.sizes = new ResizeObserver(() => this.measure());
    for (const node of [root, this.slot("case")]) this.sizes.observe(node);
    this.measure();
    this.clock = setInterval(() => this.tick(), 1000);
  }

  /** How much room there is, as classes: the desk has it beside the page's own sidebar, not the window. */
  measure() {
    const { width } = this.root.getBoundingClientRect();
    this.root.classList.toggle("is-narrow", width <= 1120);
    this.root.classList.toggle("is-single", width <= 760);
    this.root.classList.toggle("is-roomy", this.slot("case").getBoundingClientRect().width >= 700);
  }

  get isSingle() {
    return this.root.classList.contains("is-single");
  }

  slot(name) {
    return this.root.querySelector(`[data-slot="${name}"]`);
  }

  isAlive() {
    return this.root.isConnected && !!this.outbox;
  }

  recall(name) {
    try {
      return localStorage.getItem(`consilium.desk.${name}`);
    } catch {
      return null; // storage is off: the default
    }
  }

  keep(name, value) {
    try {
      localStorage.setItem(`consilium.desk.${name}`, value);
    } catch {
      this.isForgetful = true; // storage is off: the choice lasts as long as the page
    }
  }

  destroy() {
    this.abort.abort();
    this.sizes.disconnect();
    clearInterval(this.clock);
    clearTimeout(this.claimTimer);
    clearTimeout(this.draftTimer);
    clearTimeout(this.lookUpTimer);
    this.outbox?.destroy();
  }

  // --- moving about --------------------------------------------------------------------------------------------------

  start(openCase) {
    const { desk } = this;
    const mine = desk.queue.filter((item) => item.is_mine && desk.stage(item.id) !== "done");
    const inHand = mine.find((item) => item.stage || item.has_draft) ?? mine[0];
    const first = openCase ?? inHand?.id ?? desk.nextFree(null);
    if (first === null || first === undefined) return this.draw();
    this.show(first, { claim: !document.hidden });
  }

  /** `isNext`: the desk chose the case, not the reader; if it turns out taken, it goes on to another. */
  show(id, { claim = false, isNext = false } = {}) {
    const { desk } = this;
    this.cameByNext = isNext;
    if (id === desk.ahead) desk.ahead = null;
    const before = desk.current;
    clearTimeout(this.claimTimer);
    if (before !== null && before !== id) {
      this.sendDrafts();
      this.release(before);
      if (before !== desk.correctingCase || id !== desk.correctingCase) this.leaveCorrection();
    }
    desk.current = id;
    desk.cursor = null;
    desk.row = null;
    desk.undo = [];
    desk.drawer = null;
    this.shownRule = null;
    const row = desk.queue.find((item) => item.id === id);
    const isFree = row && (row.is_mine || (!row.holder && ["open", "deferred"].includes(row.status)));
    if (claim && isFree && desk.stage(id) !== "done") this.claim(id);
    else if (!desk.leases.has(id)) {
      if (!desk.cases.has(id) || !row || row.status !== "open" || row.stage) this.send("look", id);
      if (row && row.status === "open" && !row.holder) this.claimTimer = setTimeout(() => document.hidden || (this.desk.current === id && this.claim(id)), CLAIM_AFTER_MS);
    }
    this.draw(["head", "case", "panel", "drawer"]);
    this.painted();
  }

  /** The dwell of a decision counts from the frame in which the case could first be seen. */
  painted({ isReveal = false } = {}) {
    this.paintedAt = Infinity;
    const id = this.desk.current;
    requestAnimationFrame(() => {
      const panel = this.slot("panel");
      panel.scrollTop = 0;
      const scroller = this.root.closest("[data-testid='stMain']");
      if (isReveal && this.isSingle) panel.scrollIntoView({ block: "start" }); // one column: the reveal lies below the case
      else if (scroller?.scrollTop) scroller.scrollTop = 0;
    });
    requestAnimationFrame(() => setTimeout(() => { // the list follows one frame after the case
      if (!this.isAlive()) return;
      this.draw(["queue"]);
      this.showInList();
    }));
    requestAnimationFrame(() => requestAnimationFrame(() => {
      if (this.desk.current !== id || !this.desk.cases.has(id)) return;
      this.paintedAt = performance.now();
      this.root.dataset.painted = String(id);
    }));
  }

  /** Bring the open case into sight where the list scrolls by itself; the page stays where it is. */
  showInList() {
    if (this.root.classList.contains("is-narrow")) return;
    const list = this.slot("queue");
    const item = list.querySelector("[aria-current]");
    if (!item) return;
    const [box, outer] = [item.getBoundingClientRect(), list.getBoundingClientRect()];
    if (box.top < outer.top) list.scrollTop -= outer.top - box.top + 8;
    else if (box.bottom > outer.bottom) list.scrollTop += box.bottom - outer.bottom + 8;
  }

  dwell() {
    return performance.now() - this.paintedAt;
  }

  browse(step) {
    const ids = this.desk.queue.map((item) => item.id);
    const here = ids.indexOf(this.desk.current);
    const id = ids[here === -1 ? 0 : here + step];
    if (id !== undefined) this.show(id);
  }

  goNext() {
    const { desk } = this;
    const id = desk.ahead !== null && ["blind", "loading"].includes(desk.stage(desk.ahead)) ? desk.ahead : desk.nextFree(desk.current);
    if (id !== null) return this.show(id, { claim: true, isNext: true });
    this.leaveCorrection();
    if (desk.view.status !== "open") return this.setView({ status: "open" });
    desk.current = null;
    if (this.outbox.waiting.length || this.decidedAt) this.send("list", 0); // the list here is used up; there may be more
    return this.draw();
  }

  setView(change) {
    const { desk } = this;
    desk.view = { ...desk.view, ...change };
    desk.queue = [];
    if (change.status || ["language", "topic", "risk", "text"].some((name) => name in change)) {
      this.sendDrafts();
      if (desk.current !== null) this.release(desk.current);
      this.releaseAhead();
      desk.current = null;
    }
    this.send("list", 0);
    this.draw();
  }

  // --- showing -------------------------------------------------------------------------------------------------------

  toggleThinking() {
    this.desk.showThinking = !this.desk.showThinking;
    this.keep("thinking", this.desk.showThinking ? "open" : "folded");
    this.draw(["case"]);
  }

  showRule(rule) {
    this.shownRule = this.shownRule === rule ? null : rule;
    if (this.shownRule) this.desk.showThinking = true;
    this.draw(["case", "panel"]);
    this.root.querySelector(".cd-span.is-strong")?.scrollIntoView({ block: "center" });
  }

  ruleName(id) {
    return this.desk.words[`scoring.${id}`] || id.replaceAll("_", " ");
  }

  reasonName(reason) {
    return this.desk.words[`scoring.reason_${reason}`] || reason || "–";
  }

  notice(text, kind = "") {
    const slot = this.slot("notices");
    for (const old of slot.querySelectorAll(".is-need")) old.remove();
    const node = el("div", { class: `cd-notice ${kind}` }, text);
    slot.append(node);
    while (slot.children.length > 3) slot.firstChild.remove();
    setTimeout(() => node.remove(), kind ? 12000 : 6000);
  }

  leaseText() {
    const { desk } = this;
    if (desk.current === null) return "";
    const stage = desk.stage();
    if (stage === "done" || stage === "held") return "";
    const lease = desk.leases.get(desk.current);
    if (!lease) return desk.t("browsing");
    if (lease.version === null) return desk.t("taking");
    const left = Math.floor((lease.expires - Date.now() - this.skew) / 1000);
    if (left <= 0) return desk.t("lease_over");
    return desk.t("in_hand", { time: `${String(Math.floor(left / 60)).padStart(2, "0")}:${String(left % 60).padStart(2, "0")}` });
  }

  draw(parts = ["head", "queue", "case", "panel", "drawer"]) {
    if (!this.boxes) return;
    this.root.dataset.case = String(this.desk.current ?? "");
    this.root.dataset.stage = this.desk.current === null ? "none" : this.desk.stage();
    const drawers = { head: drawHead, queue: drawQueue, case: drawCase, panel: drawPanel, drawer: drawDrawer };
    for (const part of parts) drawers[part](this);
    this.drawStatus();
  }

  drawStatus() {
    const stamp = this.root.querySelector("[data-stamp]");
    const lease = this.root.querySelector("[data-lease]");
    const n = this.outbox?.numUnsaved || 0;
    this.root.dataset.unsaved = String(n);
    const isLate = n > 0 && this.unsavedSince && performance.now() - this.unsavedSince > 3000;
    this.unsavedSince = n ? this.unsavedSince || performance.now() : 0;
    if (stamp) {
      const text = n ? this.desk.t(isLate ? "not_saved" : "saving", { n }) : this.stamp;
      if (stamp.textContent !== text) stamp.textContent = text;
      stamp.classList.toggle("is-bad", !!isLate);
    }
    const left = this.leaseText();
    if (lease && lease.textContent !== left) lease.textContent = left;
  }

  touched() {
    this.lastInput = performance.now();
  }

  tick() {
    if (!this.isAlive()) return;
    const { desk } = this;
    if (desk.current !== null && document.hasFocus() && performance.now() - this.lastInput < IDLE_MS && desk.isEditable()) desk.form().active_s += 1;
    this.beat();
    if (performance.now() - this.lastInput > IDLE_MS) this.releaseAhead();
    this.refreshList();
    this.drawStatus();
  }
}
