// What the server is told, and what its answers change. Answers may come twice or late; a settled message is settled.

Object.assign(App.prototype, {
  receive(data) {
    if (!data || data === this.lastData) return;
    this.lastData = data;
    const { desk } = this;
    if (data.problem) this.notice(data.problem, "is-bad");
    if (!data.user) return;
    const isFirst = !this.outbox;
    if (data.strings && data.strings_version !== this.stringsVersion) {
      desk.words = data.strings;
      desk.guideline = null; // in the other language now
      this.topics = data.topics;
      this.stringsVersion = data.strings_version;
      this.boxes = makeBoxes(this);
    }
    this.skew = Date.parse(data.now) - Date.now();
    this.userName = data.user.name;
    if (data.queue) this.learnList(data);
    for (const item of data.cases) desk.cases.set(item.id, item);
    for (const item of data.reveals) this.learnReveal(item);
    if (isFirst) {
      this.outbox = new Outbox(data.user.id, (messages) => this.post(messages));
      if (this.outbox.numKept) this.notice(desk.t("kept", { n: this.outbox.numKept }));
      for (const m of this.outbox.waiting) {
        if (m.type === "sign") desk.signed.set(m.case, { at: data.now });
        if (m.type === "skip") desk.passed.add(m.case);
        if (m.type === "commit") desk.committing.add(m.case);
        if (m.version === null) this.claim(m.case);
      }
    }
    for (const ack of data.acks) this.settle(ack);
    if (isFirst) {
      this.start(data.open);
      this.outbox.flush();
      if (!data.has_seen_tour && desk.current !== null && !document.hidden) this.openTour();
      return;
    }
    const isFree = desk.view.status === "open";
    const first = desk.current === null ? desk.nextFree(null) ?? (isFree ? undefined : desk.queue[0]?.id) : undefined;
    if (first !== undefined && first !== null) return this.show(first, { claim: isFree });
    return this.draw();
  },

  /** The list of cases, which the server leaves out while the one here will do. */
  learnList(data) {
    const { desk } = this;
    this.numToday = data.num_signed_today;
    this.page = data.page;
    this.correctionMs = data.correction_minutes * 60000;
    this.leaseMs = data.lease_minutes * 60000;
    this.decidedAt = 0;
    if (!["status", "language", "order", "topic", "risk", "text"].every((name) => (data.view[name] || null) === (desk.view[name]?.trim() || null))) return;
    desk.queue = data.queue;
    desk.counts = data.counts;
    desk.listed = data.listed;
  },

  learnReveal(reveal) {
    const { desk } = this;
    const isNews = !desk.reveals.has(reveal.id);
    desk.reveals.set(reveal.id, reveal);
    desk.committing.delete(reveal.id);
    const form = desk.form(reveal.id);
    if (reveal.own && !form.verdict) {
      for (const name of ["verdict", "cannot_judge_reason", "criteria", "marks", "confidence", "note", "evidence"]) form[name] = structuredClone(reveal.own[name]) ?? form[name];
    }
    if (isNews && reveal.id === desk.current) this.painted({ isReveal: true });
  },

  /** One acknowledgement. An answer to a message that was answered before changes nothing. */
  settle(ack) {
    const { desk } = this;
    const message = this.outbox.settle(ack);
    if (!message) return;
    if (DECIDING.has(ack.type)) this.decidedAt = performance.now();
    if (!ack.ok) return this.refused(ack, message);
    if (ack.entry) this.stamp = desk.t("saved", { time: utcTime(ack.at), entry: ack.entry });
    if (ack.type === "claim") {
      if (ack.case !== message.case) this.tookAnother(message.case, ack.case);
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
      const taken = (message.form?.follow || []).find((kind) => SETS.has(kind));
      if (ack.is_training_pair === false) this.notice(desk.t("kept_out", { split: taken ?? desk.reveals.get(ack.case)?.split ?? "" }));
      if (ack.is_training_pair) this.notice(desk.t("pair_made"));
    } else if (ack.type === "stop_cord") {
      this.notice(desk.t("stop_cord_done"), "is-bad");
    } else if (ack.type === "hand_over") {
      this.notice(desk.t("handed_toast", { id: ack.case, name: message.name }));
    } else if (ack.type === "colleagues") {
      colleaguesDialog(this, ack.colleagues);
    } else if (ack.type === "evidence") {
      this.learnEvidence(ack.case, ack.about, { passages: ack.passages, problem: ack.problem });
    } else if (ack.type === "guideline") {
      desk.guideline = { version: ack.version, paragraphs: ack.paragraphs };
    } else if (ack.type === "flag") {
      this.notice(desk.t("flagged"));
    } else if (ack.type === "follow") {
      this.notice(desk.t("follow_added", { what: desk.t(`follow_${message.kind}`) }));
    }
  },

  refused(ack, message) {
    const { desk } = this;
    if (ack.retry) return this.notice(ack.text, "is-bad");
    if (ack.current) desk.states.set(ack.case, ack.current);
    if (message.type === "evidence") return this.learnEvidence(ack.case, message.about, { passages: [], problem: ack.text });
    const isDecision = DECIDING.has(message.type);
    if (["claim", "heartbeat"].includes(message.type)) {
      desk.leases.delete(ack.case);
      const lost = this.outbox.drop((m) => m.case === ack.case && m.version === null && DECIDING.has(m.type));
      for (const m of lost) refusedDialog(this, { ...ack, form: m.form });
      if (ack.case === desk.ahead) {
        desk.ahead = null;
        if (desk.current !== null && ["committing", "sign"].includes(desk.stage())) this.claimAhead();
        return;
      }
      if (lost.length || ack.case !== desk.current || desk.signed.has(ack.case)) return;
      this.notice(ack.text, "is-bad");
      if (message.type === "claim" && this.cameByNext && desk.isPristine(ack.case)) this.goNext();
    } else if (isDecision) {
      desk.committing.delete(ack.case);
      desk.signed.delete(ack.case);
      desk.passed.delete(ack.case);
      if (["desk.other_window", "desk.not_claimed", "desk.stale"].includes(ack.code)) desk.leases.delete(ack.case);
      refusedDialog(this, { ...ack, form: message.form });
    } else {
      this.notice(ack.text, "is-bad");
    }
  },

  takeDraft(ack) {
    if (ack.draft && this.desk.isPristine(ack.case)) this.desk.forms.set(ack.case, { ...emptyForm(), ...ack.draft, rewriting: !!ack.draft.rewritten_answer });
  },

  // --- page -> server ------------------------------------------------------------------------------------------------

  post(messages) {
    const { desk } = this;
    const view = { ...desk.view, current: desk.current, have: [...desk.cases.keys()], ahead: desk.following(), listed: desk.listed, strings_version: this.stringsVersion };
    this.component.setTriggerValue("post", { messages, view });
    this.drawStatus();
  },

  send(type, id, extra) {
    return this.outbox.add({ type, case: id, ...extra });
  },

  decide(type, id, form) {
    const lease = this.desk.leases.get(id);
    this.send(type, id, { lease_token: lease?.token ?? "", version: lease ? lease.version : 0, form });
  },

  /** `others` are as good to the reader: the server gives the first that is free. */
  claim(id = this.desk.current, others = []) {
    const { desk } = this;
    if (id === null || desk.leases.has(id)) return;
    const waiting = this.outbox.waiting.find((m) => m.case === id && m.version === null); // from before a reload
    if (!waiting && ["done", "held"].includes(desk.stage(id))) return;
    const token = waiting ? waiting.lease_token : newId();
    desk.leases.set(id, { token, version: null, expires: Date.now() + this.skew + this.leaseMs });
    this.send("claim", id, { lease_token: token, others });
  },

  /** Take the next case with the commit on this one: it is there at once after the signature, and nobody else begins on it. */
  claimAhead() {
    const { desk } = this;
    if (desk.view.status !== "open" || desk.correcting !== null || desk.ahead !== null) return;
    const [id, ...others] = desk.following(8).filter((one) => desk.queue.some((row) => row.id === one && row.status === "open" && !row.holder));
    if (id === undefined || desk.leases.has(id)) return;
    desk.ahead = id;
    this.claim(id, others);
  },

  /** The case wanted in advance was taken, the server gave the one after it. */
  tookAnother(wanted, given) {
    const { desk } = this;
    desk.leases.delete(wanted);
    if (desk.ahead === wanted) desk.ahead = given;
    if (desk.current === wanted) this.claim(wanted); // the reader went there meanwhile: say who has it
  },

  /** Give it back when the reader has gone for a coffee, or elsewhere. */
  releaseAhead() {
    const { desk } = this;
    if (desk.ahead === null) return;
    this.release(desk.ahead);
    desk.ahead = null;
  },

  release(id) {
    const lease = this.desk.leases.get(id);
    if (!lease || this.desk.stage(id) !== "blind" || !this.desk.isPristine(id)) return;
    this.desk.leases.delete(id);
    this.send("release", id, { lease_token: lease.token });
  },

  beat() {
    const { desk } = this;
    const now = performance.now();
    if (document.hidden || now - this.lastBeat < HEARTBEAT_MS - 500 || now - this.lastInput > this.leaseMs) return;
    this.lastBeat = now;
    for (const [id, lease] of desk.leases) {
      if (lease.version !== null && (id === desk.current || !desk.isPristine(id))) this.send("heartbeat", id, { lease_token: lease.token });
    }
  },

  /** After a pause in deciding, the list and its counts are fetched again. */
  refreshList() {
    if (!this.decidedAt || document.hidden || performance.now() - this.decidedAt < LIST_AFTER_MS) return;
    this.decidedAt = 0;
    this.send("list", 0);
  },

  changed() {
    const id = this.desk.current;
    if (id === null) return;
    this.claim(id);
    this.drafts.add(id);
    clearTimeout(this.draftTimer);
    this.draftTimer = setTimeout(() => this.sendDrafts(), DRAFT_AFTER_MS);
  },

  sendDrafts() {
    clearTimeout(this.draftTimer);
    if (!this.outbox) return;
    for (const id of this.drafts) if (!["done", "committing"].includes(this.desk.stage(id))) this.send("draft", id, { form: structuredClone(this.desk.form(id)) });
    this.drafts.clear();
  },
});
