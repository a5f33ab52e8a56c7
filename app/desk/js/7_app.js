// The desk in one page: what a key or a click does, what the server is told, and what its answer changes.

const CLAIM_AFTER_MS = 1200; // a case browsed to is taken when the reader stays on it
const DRAFT_AFTER_MS = 2000;
const HEARTBEAT_MS = 30000;
const IDLE_MS = 60000;

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
    this.shownRule = null;
    this.drafts = new Set();
    this.abort = new AbortController();
    const on = (target, name, run, capture) => target.addEventListener(name, run, { signal: this.abort.signal, capture: !!capture });
    on(document, "keydown", (event) => onKey(this, event), true);
    on(document, "pointerdown", () => this.touched());
    on(document, "visibilitychange", () => (document.hidden ? this.sendDrafts() : this.beat()));
    on(window, "blur", () => this.sendDrafts());
    on(window, "beforeunload", (event) => this.outbox?.numUnsaved && event.preventDefault());
    on(root, "click", (event) => event.detail > 0 && !isTyping(document.activeElement) && root.focus({ preventScroll: true }));
    on(root, "focusout", (event) => event.target.dataset?.box && this.leftBox());
    this.clock = setInterval(() => this.tick(), 1000);
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
    clearInterval(this.clock);
    clearTimeout(this.claimTimer);
    clearTimeout(this.draftTimer);
    this.outbox?.destroy();
  }

  // --- server -> page ------------------------------------------------------------------------------------------------

  receive(data) {
    if (!data || data === this.lastData) return;
    this.lastData = data;
    const { desk } = this;
    if (data.problem) this.notice(data.problem, "is-bad");
    if (!data.queue) return;
    const isFirst = !this.outbox;
    if (data.strings && data.strings_version !== this.stringsVersion) {
      desk.words = data.strings;
      this.stringsVersion = data.strings_version;
      this.boxes = makeBoxes(this);
    }
    this.skew = Date.parse(data.now) - Date.now();
    this.userName = data.user.name;
    this.numToday = data.num_signed_today;
    this.page = data.page;
    this.correctionMs = data.correction_minutes * 60000;
    this.leaseMs = data.lease_minutes * 60000;
    if (["status", "language", "order"].every((name) => data.view[name] === desk.view[name])) {
      desk.queue = data.queue;
      desk.counts = data.counts;
    }
    for (const item of data.cases) desk.cases.set(item.id, item);
    for (const item of data.reveals) this.learnReveal(item);
    if (isFirst) {
      this.outbox = new Outbox(data.user.id, (messages) => this.post(messages));
      if (this.outbox.numKept) this.notice(desk.t("kept", { n: this.outbox.numKept }));
    }
    for (const ack of data.acks) this.settle(ack);
    if (isFirst) {
      this.start(data.open);
      this.outbox.flush();
      return;
    }
    if (desk.current === null && desk.queue.length) this.goNext();
    this.draw();
  }

  learnReveal(reveal) {
    const { desk } = this;
    const isNews = !desk.reveals.has(reveal.id);
    desk.reveals.set(reveal.id, reveal);
    desk.committing.delete(reveal.id);
    const form = desk.form(reveal.id);
    if (reveal.own && !form.verdict) {
      for (const name of ["verdict", "cannot_judge_reason", "criteria", "marks", "confidence", "note"]) form[name] = structuredClone(reveal.own[name]) ?? form[name];
    }
    if (isNews && reveal.id === desk.current) this.painted();
  }

  /** One acknowledgement. An answer to a message that was answered before changes nothing. */
  settle(ack) {
    const { desk } = this;
    const message = this.outbox.settle(ack);
    if (!message) return;
    if (!ack.ok) return this.refused(ack, message);
    if (ack.entry) this.stamp = desk.t("saved", { time: utcTime(ack.at), entry: ack.entry });
    if (ack.type === "claim") {
      desk.leases.set(ack.case, { token: ack.lease_token, version: ack.version, expires: Date.parse(ack.expires_at) });
      desk.states.set(ack.case, { status: "claimed", holder: null });
      this.outbox.arm(ack.case, ack.lease_token, ack.version);
      this.outbox.flush();
      this.takeDraft(ack);
    } else if (ack.type === "heartbeat") {
      const lease = desk.leases.get(ack.case);
      if (lease) lease.expires = Date.parse(ack.expires_at);
    } else if (ack.type === "look") {
      desk.states.set(ack.case, ack.state);
      this.takeDraft(ack);
    } else if (ack.type === "draft") {
      this.stamp = desk.t("draft_saved", { time: utcTime(ack.at) });
    } else if (ack.type === "commit") {
      const lease = desk.leases.get(ack.case);
      if (lease) lease.version = ack.version;
    } else if (ack.type === "sign") {
      desk.signed.set(ack.case, ack);
      desk.leases.delete(ack.case);
      if (ack.is_training_pair === false) this.notice(desk.t("kept_out", { split: desk.reveals.get(ack.case)?.split ?? "" }));
      if (ack.is_training_pair) this.notice(desk.t("pair_made"));
    } else if (ack.type === "stop_cord") {
      this.notice(desk.t("stop_cord_done"), "is-bad");
    } else if (ack.type === "hand_over") {
      this.notice(desk.t("handed_toast", { id: ack.case, name: message.name }));
    } else if (ack.type === "colleagues") {
      colleaguesDialog(this, ack.colleagues);
    }
  }

  refused(ack, message) {
    const { desk } = this;
    if (ack.retry) return this.notice(ack.text, "is-bad");
    if (ack.current) desk.states.set(ack.case, ack.current);
    const isDecision = DECIDING.has(message.type);
    if (["claim", "heartbeat"].includes(message.type)) {
      desk.leases.delete(ack.case);
      const lost = this.outbox.drop((m) => m.case === ack.case && m.version === null && DECIDING.has(m.type));
      for (const m of lost) refusedDialog(this, { ...ack, form: m.form });
      if (!lost.length && ack.case === desk.current && !desk.signed.has(ack.case)) this.notice(ack.text, "is-bad");
    } else if (isDecision) {
      desk.committing.delete(ack.case);
      desk.signed.delete(ack.case);
      desk.passed.delete(ack.case);
      if (["desk.other_window", "desk.not_claimed", "desk.stale"].includes(ack.code)) desk.leases.delete(ack.case);
      refusedDialog(this, { ...ack, form: message.form });
    } else {
      this.notice(ack.text, "is-bad");
    }
  }

  takeDraft(ack) {
    if (ack.draft && this.desk.isPristine(ack.case)) this.desk.forms.set(ack.case, { ...emptyForm(), ...ack.draft });
  }

  // --- page -> server ------------------------------------------------------------------------------------------------

  post(messages) {
    const { desk } = this;
    const view = { ...desk.view, current: desk.current, have: [...desk.cases.keys()], strings_version: this.stringsVersion };
    this.component.setTriggerValue("post", { messages, view });
    this.drawStatus();
  }

  send(type, id, extra) {
    return this.outbox.add({ type, case: id, ...extra });
  }

  decide(type, id, form) {
    const lease = this.desk.leases.get(id);
    this.send(type, id, { lease_token: lease?.token ?? "", version: lease ? lease.version : 0, form });
  }

  claim(id = this.desk.current) {
    const { desk } = this;
    if (id === null || desk.leases.has(id) || ["done", "held"].includes(desk.stage(id))) return;
    const token = newId();
    desk.leases.set(id, { token, version: null, expires: Date.now() + this.skew + this.leaseMs });
    this.send("claim", id, { lease_token: token });
  }

  release(id) {
    const lease = this.desk.leases.get(id);
    if (!lease || this.desk.stage(id) !== "blind" || !this.desk.isPristine(id)) return;
    this.desk.leases.delete(id);
    this.send("release", id, { lease_token: lease.token });
  }

  beat() {
    const { desk } = this;
    const now = performance.now();
    if (document.hidden || now - this.lastBeat < HEARTBEAT_MS - 500 || now - this.lastInput > this.leaseMs) return;
    this.lastBeat = now;
    for (const [id, lease] of desk.leases) {
      if (lease.version !== null && (id === desk.current || !desk.isPristine(id))) this.send("heartbeat", id, { lease_token: lease.token });
    }
  }

  changed() {
    const id = this.desk.current;
    if (id === null) return;
    this.claim(id);
    this.drafts.add(id);
    clearTimeout(this.draftTimer);
    this.draftTimer = setTimeout(() => this.sendDrafts(), DRAFT_AFTER_MS);
  }

  sendDrafts() {
    clearTimeout(this.draftTimer);
    if (!this.outbox) return;
    for (const id of this.drafts) if (!["done", "committing"].includes(this.desk.stage(id))) this.send("draft", id, { form: structuredClone(this.desk.form(id)) });
    this.drafts.clear();
  }

  // --- moving about --------------------------------------------------------------------------------------------------

  start(openCase) {
    const { desk } = this;
    const inHand = desk.queue.find((item) => item.is_mine);
    const first = openCase ?? inHand?.id ?? desk.nextFree(null);
    if (first === null || first === undefined) return this.draw();
    this.show(first, { claim: !document.hidden });
  }

  show(id, { claim = false } = {}) {
    const { desk } = this;
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
    this.shownRule = null;
    const row = desk.queue.find((item) => item.id === id);
    const isFree = row && (row.is_mine || (!row.holder && ["open", "deferred"].includes(row.status)));
    if (claim && isFree && desk.stage(id) !== "done") this.claim(id);
    else if (!desk.leases.has(id)) {
      if (!desk.cases.has(id) || !row || row.status !== "open" || row.stage) this.send("look", id);
      if (row && row.status === "open" && !row.holder) this.claimTimer = setTimeout(() => document.hidden || (this.desk.current === id && this.claim(id)), CLAIM_AFTER_MS);
    }
    this.draw();
    this.painted();
    this.slot("case").scrollIntoView({ block: "nearest" });
    this.root.closest("[data-testid='stMain']")?.scrollTo({ top: 0 });
  }

  /** The dwell of a decision counts from the frame in which the case could first be seen. */
  painted() {
    this.paintedAt = Infinity;
    const id = this.desk.current;
    requestAnimationFrame(() => requestAnimationFrame(() => {
      if (this.desk.current !== id || !this.desk.cases.has(id)) return;
      this.paintedAt = performance.now();
      this.root.dataset.painted = String(id);
    }));
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
    const id = desk.nextFree(desk.current);
    if (id !== null) return this.show(id, { claim: true });
    this.leaveCorrection();
    if (desk.view.status !== "open") return this.setView({ status: "open" });
    desk.current = null;
    return this.draw();
  }

  setView(change) {
    const { desk } = this;
    desk.view = { ...desk.view, ...change };
    desk.queue = [];
    if (change.status || "language" in change) {
      this.sendDrafts();
      if (desk.current !== null) this.release(desk.current);
      desk.current = null;
    }
    this.send("list", 0);
    this.draw();
  }

  // --- deciding ------------------------------------------------------------------------------------------------------

  edit(run) {
    if (!this.desk.isEditable()) return;
    this.desk.remember();
    run(this.desk.form());
    this.changed();
    this.draw(["panel", "case"]);
  }

  setVerdict(verdict) {
    this.edit((form) => {
      form.verdict = verdict;
      if (verdict !== "cannot_judge") form.cannot_judge_reason = null;
    });
  }

  setCannot(reason) {
    this.edit((form) => (form.cannot_judge_reason = reason));
  }

  setConfidence(value) {
    this.edit((form) => (form.confidence = form.confidence === value ? null : value));
  }

  setRight(who) {
    this.edit((form) => (form.who_was_right = who));
  }

  toggleBecause(tag) {
    this.edit((form) => (form.because = form.because.includes(tag) ? form.because.filter((t) => t !== tag) : [...form.because, tag]));
  }

  cycleCriterion(name) {
    this.desk.row = name;
    this.edit((form) => {
      const next = CRITERION_VALUES[(CRITERION_VALUES.indexOf(form.criteria[name] || null) + 1) % CRITERION_VALUES.length];
      const { [name]: _, ...others } = form.criteria;
      form.criteria = next ? { ...others, [name]: next } : others;
    });
  }

  focusCriterion(name) {
    this.desk.row = name;
    this.desk.detailsOpen = true;
    this.draw(["panel"]);
  }

  moveCriterion(step) {
    const names = Object.values(CRITERIA);
    this.focusCriterion(names[(names.indexOf(this.desk.row) + step + names.length) % names.length]);
  }

  clearRow() {
    this.desk.row = null;
    this.draw(["panel"]);
  }

  moveCursor(step) {
    const { desk } = this;
    const ids = desk.sentences();
    if (!ids.length) return;
    const here = ids.indexOf(desk.cursor);
    desk.cursor = here === -1 ? ids[step > 0 ? 0 : ids.length - 1] : ids[Math.min(ids.length - 1, Math.max(0, here + step))];
    this.draw(["case"]);
    this.root.querySelector(`#cd-${desk.cursor}`)?.scrollIntoView({ block: "nearest" });
  }

  clickSentence(id) {
    if (this.desk.cursor === id) return this.cycleMark();
    this.desk.cursor = id;
    this.draw(["case"]);
  }

  cycleMark() {
    const { desk } = this;
    if (!desk.cursor) return this.moveCursor(1);
    const id = desk.cursor;
    this.edit((form) => {
      const next = MARKS[(MARKS.indexOf(form.marks[id] || null) + 1) % MARKS.length];
      const { [id]: _, ...others } = form.marks;
      form.marks = next ? { ...others, [id]: next } : others;
    });
  }

  revise() {
    const own = this.desk.reveals.get(this.desk.current)?.own;
    this.edit((form) => {
      form.revising = !form.revising;
      if (!form.revising && own) Object.assign(form, { verdict: own.verdict, cannot_judge_reason: own.cannot_judge_reason, revision_reason: "" });
    });
  }

  rewrite(isOn) {
    const { desk } = this;
    if (!desk.isEditable()) return;
    const form = desk.form();
    if (isOn && !form.rewritten_answer) form.rewritten_answer = desk.cases.get(desk.current).answer_text;
    if (!isOn) form.rewritten_answer = "";
    form.rewriting = isOn;
    this.changed();
    this.draw(["panel"]);
    if (isOn) this.focusBox("rewritten_answer");
  }

  focusBecause() {
    this.root.querySelector(".cd-tag")?.focus();
  }

  focusBox(name) {
    if (name === "note" && !this.desk.detailsOpen) {
      this.desk.detailsOpen = true;
      this.draw(["panel"]);
    }
    const box = this.boxes[name];
    box.focus();
    box.scrollIntoView({ block: "nearest" });
  }

  typed(name, text) {
    this.desk.form()[name] = text;
    this.changed();
  }

  leftBox() {
    this.sendDrafts();
    requestAnimationFrame(() => this.draw(["panel"]));
  }

  /** Point at what is missing instead of refusing in words alone. */
  isComplete(stage) {
    const missing = this.desk.missing(stage);
    if (!missing) return true;
    const words = { verdict: "verdict", cannot: "cannot_why", note: "note_needed", reason: "revision_reason", right: "who_was_right" };
    this.notice(this.desk.t(words[missing]), "is-bad");
    if (missing === "note") this.focusBox("note");
    if (missing === "reason") this.focusBox("revision_reason");
    return false;
  }

  commit() {
    const { desk } = this;
    const id = desk.current;
    if (desk.stage() !== "blind" || this.dwell() < MIN_DWELL_MS || !this.isComplete("blind")) return;
    this.claim(id);
    desk.committing.add(id);
    this.drafts.delete(id);
    this.decide("commit", id, desk.payload("blind", this.dwell()));
    desk.undo = [];
    this.draw();
  }

  sign() {
    const { desk } = this;
    const id = desk.current;
    if (desk.stage() !== "sign" || this.dwell() < MIN_DWELL_MS || !this.isComplete("sign")) return;
    const form = desk.payload("sign", this.dwell());
    this.drafts.delete(id);
    if (desk.correcting !== null) this.send("sign", id, { lease_token: "", version: desk.signed.get(id).version, form });
    else {
      this.claim(id);
      this.decide("sign", id, form);
    }
    desk.correcting = desk.correctingCase = null;
    desk.signed.set(id, { at: new Date().toISOString() });
    this.lastSigned = id;
    this.notice(desk.t("signed_toast", { id, minutes: Math.round(this.correctionMs / 60000) }));
    this.goNext();
  }

  mayCorrect(id) {
    const receipt = this.desk.signed.get(id);
    return !!receipt && Date.now() + this.skew - Date.parse(receipt.at) < this.correctionMs;
  }

  /** U: take back the last change here; with nothing changed here, correct the last signature. */
  undoLast() {
    const { desk } = this;
    const last = desk.undo.pop();
    if (last && last.case === desk.current) {
      desk.forms.set(desk.current, { ...last.form, active_s: desk.form().active_s });
      this.changed();
      return this.draw();
    }
    if (desk.current !== null && desk.stage() === "sign" && desk.correcting === null) return this.notice(desk.t("committed_no_undo"));
    if (this.lastSigned !== undefined && this.mayCorrect(this.lastSigned)) return this.correct(this.lastSigned);
    return this.notice(desk.t("nothing_to_undo"));
  }

  correct(id) {
    const { desk } = this;
    const receipt = desk.signed.get(id);
    if (!receipt?.adjudication_id) return this.notice(desk.t("saving"));
    if (desk.current !== id) this.show(id);
    desk.correcting = receipt.adjudication_id;
    desk.correctingCase = id;
    desk.form(id).revising = true;
    this.draw();
    return this.painted();
  }

  leaveCorrection() {
    this.desk.correcting = this.desk.correctingCase = null;
  }

  skip(reason) {
    const id = this.desk.current;
    this.slot("dialog").close();
    this.decide("skip", id, { reason, dwell_ms: Math.round(this.dwell()) });
    this.desk.passed.add(id);
    this.drafts.delete(id);
    this.notice(this.desk.t("skipped_toast", { id }));
    this.goNext();
  }

  stopCord() {
    if (this.desk.current === null || this.dwell() < MIN_DWELL_MS) return;
    this.decide("stop_cord", this.desk.current, { note: this.desk.form().note });
    if (this.desk.stage() === "blind") this.setVerdict("unsafe");
  }

  openSkip() {
    if (this.desk.isEditable()) skipDialog(this);
  }

  openHelp() {
    helpCard(this);
  }

  openHandOver() {
    if (!this.desk.isEditable()) return;
    this.claim();
    this.send("colleagues", this.desk.current);
  }

  handOver(person) {
    const id = this.desk.current;
    const lease = this.desk.leases.get(id);
    this.slot("dialog").close();
    if (!lease) return;
    this.desk.leases.delete(id);
    this.desk.passed.add(id);
    this.send("hand_over", id, { lease_token: lease.token, to: person.id, name: person.name });
    this.goNext();
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
    return this.desk.words[`scoring.rule_${id}`] || id;
  }

  reasonName(reason) {
    return this.desk.words[`scoring.reason_${reason}`] || reason || "–";
  }

  notice(text, kind = "") {
    const slot = this.slot("notices");
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

  draw(parts = ["head", "queue", "case", "panel"]) {
    if (!this.boxes) return;
    this.root.dataset.case = String(this.desk.current ?? "");
    this.root.dataset.stage = this.desk.current === null ? "none" : this.desk.stage();
    const drawers = { head: drawHead, queue: drawQueue, case: drawCase, panel: drawPanel };
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
    this.drawStatus();
  }
}

const apps = new WeakMap();

/** Called by Streamlit at the mount and again with every answer; the same element keeps the same desk. */
export default function (component) {
  const parent = component.parentElement;
  const root = parent.querySelector(".cd");
  let app = apps.get(root);
  if (!app) {
    app = new App(root, component);
    apps.set(root, app);
  }
  app.component = component;
  app.receive(component.data);
  // Streamlit also runs the cleanup of a call that was overtaken, so only a desk that left the page is ended
  return () => setTimeout(() => root.isConnected || app.destroy(), 200);
}
