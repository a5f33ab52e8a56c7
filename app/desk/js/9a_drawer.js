// Opening, searching and citing in the drawer; follow-ups and the tour. None of it decides a case.

Object.assign(App.prototype, {
  openDrawer(tab) {
    const { desk } = this;
    if (desk.current === null || !desk.cases.has(desk.current)) return;
    const wasOpen = !!desk.drawer;
    desk.drawer = { tab, about: desk.cursor || "question", flagging: null };
    if (tab === "guideline" && !desk.guideline) this.send("guideline", desk.current);
    if (tab === "evidence") this.lookUp(desk.drawer.about);
    this.draw(["drawer"]);
    const slot = this.slot("drawer");
    if (!wasOpen) slot.scrollTop = 0;
    slot.focus({ preventScroll: true });
    if (this.isSingle) slot.scrollIntoView({ block: "start" }); // one column: it lies below the case
  },

  closeDrawer() {
    if (!this.desk.drawer) return;
    this.desk.drawer = null;
    clearTimeout(this.lookUpTimer);
    this.draw(["drawer", "panel"]);
    this.root.focus({ preventScroll: true });
    const panel = this.slot("panel");
    if (this.isSingle) panel.scrollIntoView({ block: "start" });
  },

  /** Show passages for the question or a sentence; what was asked once is kept. */
  lookUp(about) {
    const { desk } = this;
    if (desk.drawer?.tab !== "evidence") return;
    desk.drawer.about = about;
    clearTimeout(this.lookUpTimer);
    const id = desk.current;
    if (!desk.evidence.has(`${id}:${about}`)) {
      this.lookUpTimer = setTimeout(() => desk.current === id && desk.drawer && this.send("evidence", id, { about }), EVIDENCE_AFTER_MS);
    }
    this.draw(["drawer"]);
  },

  learnEvidence(id, about, found) {
    this.desk.evidence.set(`${id}:${about}`, found);
    if (this.desk.evidence.size > 60) this.desk.evidence.delete(this.desk.evidence.keys().next().value);
    requestAnimationFrame(() => {
      const slot = this.slot("drawer"); // in one column the browser would hold on to what stands below and show the last passage
      if (this.desk.drawer && this.isSingle) slot.scrollIntoView({ block: "start" });
    });
  },

  stepInDrawer(step) {
    const stops = [...this.slot("drawer").querySelectorAll("[data-stop]")];
    const here = stops.indexOf(document.activeElement);
    const next = stops[Math.min(stops.length - 1, Math.max(0, here === -1 ? (step > 0 ? 0 : stops.length - 1) : here + step))];
    next?.focus({ preventScroll: true });
    next?.closest("li, section")?.scrollIntoView({ block: "nearest" });
  },

  cite(passage, about) {
    const { sha256 } = passage;
    const isCited = this.desk.form().evidence.some((one) => one.sha256 === sha256);
    if (!isCited && this.desk.form().evidence.length >= MAX_EVIDENCE) return this.notice(this.desk.t("evidence_too_many", { limit: MAX_EVIDENCE }), "is-bad");
    this.edit((form) => {
      form.evidence = isCited ? form.evidence.filter((one) => one.sha256 !== sha256) : [...form.evidence, { about, ...passage }];
    });
    this.draw(["drawer"]);
  },

  flagParagraph(index) {
    this.desk.drawer.flagging = index;
    this.boxes.flag.value = "";
    if (document.activeElement === this.boxes.flag) this.boxes.flag.blur();
    this.draw(["drawer"]);
    if (index !== null) this.boxes.flag.focus();
    else this.slot("drawer").focus({ preventScroll: true });
  },

  sendFlag(paragraph) {
    const note = this.boxes.flag.value.trim();
    if (note.length < 5) return this.notice(this.desk.t("flag_needs_note"), "is-bad is-need");
    this.send("flag", this.desk.current, { kind: paragraph, paragraph, note });
    return this.flagParagraph(null);
  },

  toggleFollow(kind) {
    this.edit((form) => {
      const others = form.follow.filter((one) => one !== kind && !(SETS.has(one) && SETS.has(kind)));
      form.follow = form.follow.includes(kind) ? others : [...others, kind];
    });
  },

  focusFollow() {
    this.root.querySelector("[data-k^='o-']")?.focus();
  },

  follow(id, kind) {
    this.send("follow", id, { kind });
  },

  openTour() {
    this.closeDrawer();
    drawTour(this, 0);
    this.send("tour", 0);
  },
});
