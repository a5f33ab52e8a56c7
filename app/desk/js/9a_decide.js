// What keys and clicks decide. Every change makes a draft; nothing is sent as a decision that would be refused for its form.

Object.assign(App.prototype, {
  edit(run) {
    if (!this.desk.isEditable()) return;
    this.desk.remember();
    this.root.querySelector(".is-need")?.remove();
    run(this.desk.form());
    this.changed();
    this.draw(["panel", "case"]);
  },

  setVerdict(verdict) {
    this.edit((form) => {
      form.verdict = verdict;
      if (verdict !== "cannot_judge") form.cannot_judge_reason = null;
    });
  },

  setCannot(reason) {
    this.edit((form) => (form.cannot_judge_reason = reason));
  },

  setConfidence(value) {
    this.edit((form) => (form.confidence = form.confidence === value ? null : value));
  },

  setRight(who) {
    this.edit((form) => (form.who_was_right = who));
  },

  toggleBecause(tag) {
    this.edit((form) => (form.because = form.because.includes(tag) ? form.because.filter((t) => t !== tag) : [...form.because, tag]));
  },

  cycleCriterion(name) {
    this.desk.row = name;
    this.edit((form) => {
      const next = CRITERION_VALUES[(CRITERION_VALUES.indexOf(form.criteria[name] || null) + 1) % CRITERION_VALUES.length];
      const { [name]: _, ...others } = form.criteria;
      form.criteria = next ? { ...others, [name]: next } : others;
    });
  },

  focusCriterion(name) {
    this.desk.row = name;
    this.desk.detailsOpen = true;
    this.draw(["panel"]);
  },

  moveCriterion(step) {
    const names = Object.values(CRITERIA);
    this.focusCriterion(names[(names.indexOf(this.desk.row) + step + names.length) % names.length]);
  },

  clearRow() {
    this.desk.row = null;
    this.draw(["panel"]);
  },

  moveCursor(step) {
    const { desk } = this;
    const ids = desk.sentences();
    if (!ids.length) return;
    const here = ids.indexOf(desk.cursor);
    desk.cursor = here === -1 ? ids[step > 0 ? 0 : ids.length - 1] : ids[Math.min(ids.length - 1, Math.max(0, here + step))];
    this.draw(["case"]);
    this.root.querySelector(`#cd-${desk.cursor}`)?.scrollIntoView({ block: "nearest" });
    this.lookUp(desk.cursor);
  },

  clickSentence(id) {
    if (this.desk.cursor === id) return this.cycleMark();
    this.desk.cursor = id;
    this.draw(["case"]);
    this.lookUp(id);
  },

  cycleMark() {
    const { desk } = this;
    if (!desk.cursor) return this.moveCursor(1);
    const id = desk.cursor;
    this.edit((form) => {
      const next = MARKS[(MARKS.indexOf(form.marks[id] || null) + 1) % MARKS.length];
      const { [id]: _, ...others } = form.marks;
      form.marks = next ? { ...others, [id]: next } : others;
    });
  },

  revise() {
    const own = this.desk.reveals.get(this.desk.current)?.own;
    this.edit((form) => {
      form.revising = !form.revising;
      if (!form.revising && own) Object.assign(form, { verdict: own.verdict, cannot_judge_reason: own.cannot_judge_reason, revision_reason: "" });
    });
    this.root.querySelector(".cd-revision")?.scrollIntoView({ block: "nearest" });
  },

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
  },

  focusBecause() {
    this.root.querySelector(".cd-tag")?.focus();
  },

  focusBox(name) {
    if (name === "note" && !this.desk.detailsOpen) {
      this.desk.detailsOpen = true;
      this.draw(["panel"]);
    }
    const box = this.boxes[name];
    box.focus();
    box.scrollIntoView({ block: "nearest" });
  },

  typed(name, text) {
    this.desk.form()[name] = text;
    this.changed();
  },

  leftBox() {
    this.sendDrafts();
    requestAnimationFrame(() => this.draw(["panel"]));
  },

  /** Point at what is missing instead of refusing in words alone. */
  isComplete(stage) {
    const missing = this.desk.missing(stage);
    if (!missing) return true;
    this.notice(this.desk.t(`need_${missing}`), "is-bad is-need");
    if (missing === "note") this.focusBox("note");
    if (missing === "reason") this.focusBox("revision_reason");
    return false;
  },

  commit() {
    const { desk } = this;
    const id = desk.current;
    if (desk.stage() !== "blind" || this.dwell() < MIN_DWELL_MS || !this.isComplete("blind")) return;
    this.claim(id);
    desk.committing.add(id);
    this.drafts.delete(id);
    this.decide("commit", id, desk.payload("blind", this.dwell()));
    this.claimAhead();
    desk.undo = [];
    this.draw();
  },

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
  },

  mayCorrect(id) {
    const receipt = this.desk.signed.get(id);
    return !!receipt && Date.now() + this.skew - Date.parse(receipt.at) < this.correctionMs;
  },

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
  },

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
  },

  leaveCorrection() {
    this.desk.correcting = this.desk.correctingCase = null;
  },

  skip(reason) {
    const id = this.desk.current;
    this.slot("dialog").close();
    this.decide("skip", id, { reason, dwell_ms: Math.round(this.dwell()) });
    this.desk.passed.add(id);
    this.drafts.delete(id);
    this.notice(this.desk.t("skipped_toast", { id }));
    this.goNext();
  },

  stopCord() {
    if (this.desk.current === null || this.dwell() < MIN_DWELL_MS) return;
    this.decide("stop_cord", this.desk.current, { note: this.desk.form().note });
    if (this.desk.stage() === "blind") this.setVerdict("unsafe");
  },

  openSkip() {
    if (this.desk.isEditable()) skipDialog(this);
  },

  openHelp() {
    helpCard(this);
  },

  openHandOver() {
    if (!this.desk.isEditable()) return;
    this.claim();
    this.send("colleagues", this.desk.current);
  },

  handOver(person) {
    const id = this.desk.current;
    const lease = this.desk.leases.get(id);
    this.slot("dialog").close();
    if (!lease) return;
    this.desk.leases.delete(id);
    this.desk.passed.add(id);
    this.send("hand_over", id, { lease_token: lease.token, to: person.id, name: person.name });
    this.goNext();
  },
});
