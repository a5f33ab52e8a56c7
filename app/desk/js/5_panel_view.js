// Drawing the decision column: blind verdict, then reveal and signature; and the dialogs.

/** The three long-lived text boxes. They are made once, so that drawing never disturbs somebody who types. */
function makeBoxes(app) {
  const box = (name, label, rows) =>
    el("textarea", { class: "cd-box", "data-k": name, "data-box": name, rows, maxlength: 20000, "aria-label": label, oninput: (event) => app.typed(name, event.target.value) });
  return {
    note: box("note", app.desk.t("note"), 3),
    revision_reason: box("revision_reason", app.desk.t("revision_reason"), 2),
    rewritten_answer: box("rewritten_answer", app.desk.t("rewrite"), 8),
    flag: el("textarea", { class: "cd-box", "data-k": "flag-box", rows: 3, maxlength: 2000, "aria-label": app.desk.t("flag_what") }),
  };
}

function drawPanel(app) {
  const { desk } = app;
  const slot = app.slot("panel");
  if (slot.contains(document.activeElement) && isTyping(document.activeElement) && document.activeElement.dataset.box) {
    app.panelIsStale = true; // drawn when the box is left
    return;
  }
  app.panelIsStale = false;
  const stage = desk.current === null ? "none" : desk.stage();
  const form = desk.current === null ? null : desk.form();
  for (const [name, box] of Object.entries(app.boxes)) if (form && name in form && box.value !== form[name]) box.value = form[name];
  const views = { blind: blindPanel, committing: blindPanel, sign: signPanel, held: heldPanel, done: donePanel };
  fill(slot, views[stage] ? views[stage](app, form, stage) : null);
}

const stepTitle = (app, name) => el("h3", { class: "cd-step" }, app.desk.t(name));

function verdictButtons(app, form, isLocked) {
  const t = (k) => app.desk.t(k);
  return el("div", { class: "cd-verdicts", role: "radiogroup", "aria-label": t("verdict") }, VERDICTS.map((verdict, i) =>
    el("button", { class: `cd-verdict is-${verdict}`, role: "radio", "aria-checked": String(form.verdict === verdict), "data-k": `v${i + 1}`, "data-verdict": verdict, disabled: isLocked, onclick: () => app.setVerdict(verdict) }, key(i + 1), t(`verdict_${verdict}`))));
}

function opinionFields(app, form) {
  const { desk } = app;
  const t = (k) => desk.t(k);
  const cannot = form.verdict === "cannot_judge"
    ? el("div", { class: "cd-group", role: "radiogroup", "aria-label": t("cannot_why") }, el("h4", {}, t("cannot_why")), Object.entries(CANNOT).map(([letter, reason]) =>
        el("button", { class: "cd-choice", role: "radio", "aria-checked": String(form.cannot_judge_reason === reason), "data-k": `c-${reason}`, onclick: () => app.setCannot(reason) }, key(letter.toUpperCase()), t(`cannot_${reason}`))))
    : null;
  const criteria = el("div", { class: "cd-group", role: "group", "aria-label": t("criteria") }, el("h4", {}, t("criteria")), Object.entries(CRITERIA).map(([letter, name]) => {
    const value = form.criteria[name] || null;
    return el("button", { class: `cd-criterion ${desk.row === name ? "is-current" : ""} ${value ? `is-${value}` : ""}`, "data-k": `k-${name}`, "data-criterion": name, onclick: () => app.cycleCriterion(name) },
      key(letter.toUpperCase()), el("span", { class: "cd-grow" }, t(`criterion_${name}`)), el("span", { class: "cd-value" }, t(`value_${value || "none"}`)));
  }));
  const confidence = el("div", { class: "cd-group", role: "radiogroup", "aria-label": t("confidence") }, el("h4", {}, t("confidence")), el("div", { class: "cd-row" }, Object.entries(CONFIDENCE).map(([digit, value]) =>
    el("button", { class: "cd-choice", role: "radio", "aria-checked": String(form.confidence === value), "data-k": `f-${value}`, onclick: () => app.setConfidence(value) }, key(digit), t(`confidence_${value}`)))));
  const isNeeded = NOTE_NEEDED.has(form.verdict) && !form.note.trim();
  const note = el("label", { class: "cd-group" }, el("h4", {}, key("N"), t("note"), isNeeded ? el("em", { class: "cd-needed" }, t("note_needed")) : null), app.boxes.note);
  const evidence = el("div", { class: "cd-group", role: "group", "aria-label": t("evidence") },
    el("h4", {}, key("I"), t("evidence"), el("span", { class: "cd-grow" }), el("button", { class: "cd-link", "data-k": "look-up", onclick: () => app.openDrawer("evidence") }, t("evidence_look_up"))),
    form.evidence.length ? citedView(app, form.evidence, (one) => app.cite(one, one.about)) : null);
  return [cannot, criteria, confidence, note, evidence];
}

function footer(app, main) {
  const t = (k) => app.desk.t(k);
  return el("footer", { class: "cd-foot" }, main, el("div", { class: "cd-row" },
    el("button", { class: "cd-small", "data-k": "undo", onclick: () => app.undoLast() }, key("U"), t("undo")),
    el("button", { class: "cd-small", "data-k": "skip", onclick: () => app.openSkip() }, key("S"), t("skip")),
    el("button", { class: "cd-small", "data-k": "hand", onclick: () => app.openHandOver() }, key("F"), t("hand_over")),
    el("button", { class: "cd-small is-danger", "data-k": "stop", onclick: () => app.stopCord() }, key("Shift 4"), t("stop_cord"))));
}

function blindPanel(app, form, stage) {
  const { desk } = app;
  const t = (k) => desk.t(k);
  const isBusy = stage === "committing";
  app.boxes.note.placeholder = t("note_hint");
  return [
    stepTitle(app, "step_blind"),
    el("p", { class: "cd-muted" }, t("blind_hint")),
    verdictButtons(app, form, isBusy),
    opinionFields(app, form),
    footer(app, el("button", { class: "cd-main", "data-k": "commit", disabled: isBusy, onclick: () => app.commit() }, key("Enter"), t(isBusy ? "committing" : "commit"))),
  ];
}

function signPanel(app, form) {
  const { desk } = app;
  const t = (k, p) => desk.t(k, p);
  const reveal = desk.reveals.get(desk.current);
  const isRevised = reveal.own && form.verdict !== reveal.own.verdict;
  const verdict = el("div", { class: "cd-group cd-revision" },
    el("h4", {}, t("your_blind")),
    el("div", { class: "cd-row" },
      el("span", { class: `cd-verdict is-${reveal.own.verdict} is-static` }, t(`verdict_${reveal.own.verdict}`)),
      el("button", { class: "cd-small", "data-k": "revise", "aria-pressed": String(form.revising), onclick: () => app.revise() }, key("V"), t(form.revising ? "keep" : "revise"))),
    form.revising ? [verdictButtons(app, form, false), isRevised ? el("label", { class: "cd-group" }, el("h4", {}, t("revision_reason")), app.boxes.revision_reason) : null] : null);
  const right = el("div", { class: "cd-group", role: "radiogroup", "aria-label": t("who_was_right") }, el("h4", {}, t("who_was_right")), el("div", { class: "cd-grid2" }, RIGHT.map((who, i) =>
    el("button", { class: "cd-choice", role: "radio", "aria-checked": String(form.who_was_right === who), "data-k": `r-${who}`, "data-right": who, onclick: () => app.setRight(who) }, key(i + 1), t(`right_${who}`)))));
  const because = el("div", { class: "cd-group", role: "group", "aria-label": t("because") }, el("h4", {}, key("B"), t("because")), el("div", { class: "cd-tags" }, BECAUSE.map((tag) =>
    el("button", { class: "cd-tag", "aria-pressed": String(form.because.includes(tag)), "data-k": `b-${tag}`, onclick: () => app.toggleBecause(tag) }, t(`because_${tag}`)))));
  const rewrite = form.rewriting
    ? el("label", { class: "cd-group" }, el("h4", {}, key("W"), t("rewrite")), app.boxes.rewritten_answer, el("span", { class: "cd-muted" }, t("rewrite_hint")), el("button", { class: "cd-link", "data-k": "unwrite", onclick: () => app.rewrite(false) }, t("rewrite_remove")))
    : el("button", { class: "cd-small", "data-k": "rewrite", onclick: () => app.rewrite(true) }, key("W"), t("rewrite"));
  return [
    stepTitle(app, desk.correcting !== null ? "step_correct" : "step_sign"),
    revealView(app, reveal),
    reveal.is_disputed ? right : null,
    because,
    verdict,
    el("details", { class: "cd-more", open: desk.detailsOpen, ontoggle: (event) => (desk.detailsOpen = event.target.open) }, el("summary", { "data-k": "details" }, [t("criteria"), t("confidence"), t("note"), t("evidence")].join(" · ")), opinionFields(app, form)),
    rewrite,
    desk.correcting === null ? followChoices(app, form, reveal) : null,
    footer(app, [el("p", { class: "cd-muted" }, t("signature", { name: app.userName })), el("button", { class: "cd-main", "data-k": "sign", onclick: () => app.sign() }, key("Ctrl Enter"), t("sign"))]),
  ];
}

function revealView(app, reveal) {
  const { desk } = app;
  const t = (k, p) => desk.t(k, p);
  const score = (value, isPenalty) =>
    el("span", { class: "cd-score" }, el("span", { class: `cd-bar ${isPenalty ? "is-penalty" : ""}`, style: `--v:${Math.round((value ?? 0) * 100)}%` }), el("b", isPenalty ? { title: t("penalty") } : {}, isPenalty && value > 0 ? `−${number(value)}` : number(value)));
  const gap = reveal.gap === null ? null : t(reveal.threshold === null ? "gap_only" : "gap", { gap: number(reveal.gap), threshold: number(reveal.threshold) });
  const why = el("div", { class: "cd-why" }, el("b", {}, t(`kind_${reveal.kind}`)), gap ? el("span", { class: "cd-muted" }, gap) : null,
    reveal.teacher_value !== null || reveal.rules_value !== null
      ? el("span", { class: "cd-versus" }, t("teacher"), " ", el("b", {}, number(reveal.teacher_value)), " · ", t("rules"), " ", el("b", {}, number(reveal.rules_value)))
      : null);
  const rules = reveal.rules.map((rule) =>
    el("div", { class: `cd-rule is-rule-${rule.id}` },
      el("span", { class: "cd-swatch", "aria-hidden": "true" }),
      el("span", { title: desk.words[`scoring.${rule.id}_help`] }, app.ruleName(rule.id)),
      rule.score === null ? el("span", { class: "cd-muted" }, t("unscored", { reason: app.reasonName(rule.unscored_reason) })) : score(rule.score, rule.is_penalty),
      rule.num_spans
        ? el("button", { class: "cd-link", "data-k": `show-${rule.id}`, "aria-pressed": String(app.shownRule === rule.id), onclick: () => app.showRule(rule.id) }, t("show_me", { n: rule.num_spans }))
        : el("span", { class: "cd-muted", title: t("no_evidence") }, "–"),
      rule.missing.length ? el("span", { class: "cd-terms" }, t("missing_terms", { terms: rule.missing.map((term) => app.ruleName(term)).join(", ") })) : null));
  const teacher = reveal.teacher;
  return el("div", { class: "cd-reveal", "data-reveal": "" },
    why,
    el("h4", {}, t("rules")), rules,
    el("h4", {}, t("teacher"), teacher ? el("span", { class: "cd-muted" }, ` ${teacher.name}`) : null),
    teacher
      ? el("div", { class: "cd-teacher" },
          teacher.is_offline ? el("p", { class: "cd-offline" }, t("teacher_offline")) : null,
          el("div", { class: "cd-row" },
            teacher.score === null ? el("span", { class: "cd-muted" }, t("unscored", { reason: app.reasonName(teacher.unscored_reason) })) : score(teacher.score, false),
            teacher.safety_flag === null ? null : el("span", { class: `cd-chip ${teacher.safety_flag ? "is-unsafe" : ""}` }, t(teacher.safety_flag ? "flag_unsafe" : "flag_safe"))),
          teacher.critique ? el("p", { class: "cd-critique" }, teacher.critique) : null,
          teacher.suggested_answer ? el("details", {}, el("summary", {}, t("suggested")), el("p", {}, teacher.suggested_answer)) : null)
      : el("p", { class: "cd-muted" }, reveal.advice || t("teacher_none")),
    reveal.reference ? el("details", {}, el("summary", {}, t("reference")), el("p", {}, reveal.reference)) : null,
    reveal.model ? el("p", { class: "cd-muted" }, t("model", { name: reveal.model })) : null);
}

function heldPanel(app) {
  const { desk } = app;
  return [
    el("p", { class: "cd-banner" }, desk.t("held_by", { name: desk.holder(desk.current) })),
    el("button", { class: "cd-main", "data-k": "go", onclick: () => app.goNext() }, desk.t("next_case")),
  ];
}

function donePanel(app) {
  const { desk } = app;
  const reveal = desk.reveals.get(desk.current);
  const receipt = desk.signed.get(desk.current);
  return [
    el("p", { class: "cd-banner" }, desk.t(desk.passed.has(desk.current) ? "stage_skipped" : "read_only")),
    reveal?.next && !desk.passed.has(desk.current) ? nextView(app, desk.current, reveal.next) : null,
    reveal && !desk.passed.has(desk.current) ? revealView(app, reveal) : null,
    receipt?.adjudication_id && app.mayCorrect(desk.current) ? el("button", { class: "cd-small", "data-k": "undo", onclick: () => app.correct(desk.current) }, key("U"), desk.t("step_correct")) : null,
    el("button", { class: "cd-main", "data-k": "go", onclick: () => app.goNext() }, desk.t("next_case")),
  ];
}

// --- dialogs ---------------------------------------------------------------------------------------------------------

function openDialog(app, title, ...body) {
  const dialog = app.slot("dialog");
  const close = () => dialog.close();
  if (app.tourStep !== null) endTour(app);
  dialog.setAttribute("aria-label", title);
  fill(dialog, el("div", { class: "cd-dialog-head" }, el("h3", {}, title), el("button", { class: "cd-icon", onclick: close, "aria-label": app.desk.t("close") }, "×")), body);
  if (!dialog.open) dialog.showModal();
}

function helpCard(app) {
  const rows = [
    ["1 – 5", "verdict"], ["A B D", "cannot"], ["Enter", "commit"], ["Ctrl Enter", "sign"], ["J K", "sentence"], ["X", "mark"], ["T", "thinking"],
    ["E P L", "criterion"], ["Space", "space"], ["7 8 9", "confidence"], ["N", "note"], ["V", "revise"], ["B", "because"], ["W", "rewrite"],
    ["← →", "browse"], ["I", "evidence"], ["G", "guideline"], ["O", "follow"], ["U", "undo"], ["S", "skip"], ["F", "flag"], ["Shift 4", "stop"], ["H", "help"],
  ];
  openDialog(app, app.desk.t("keys"),
    el("dl", { class: "cd-keys" }, rows.map(([keys, name]) => el("div", {}, el("dt", {}, keys.split(" ").map((k) => (k === "–" ? "–" : key(k)))), el("dd", {}, app.desk.t(`key_${name}`))))),
    el("p", { class: "cd-muted" }, app.desk.t("keys_note")),
    el("button", { class: "cd-small", "data-k": "tour", onclick: () => app.openTour() }, app.desk.t("tour_again")));
}

function skipDialog(app) {
  openDialog(app, app.desk.t("skip_why"), el("div", { class: "cd-group" }, SKIPS.map((reason, i) =>
    el("button", { class: "cd-choice", "data-skip": i + 1, onclick: () => app.skip(reason) }, key(i + 1), app.desk.t(`skip_${reason}`)))));
}

function colleaguesDialog(app, people) {
  openDialog(app, app.desk.t("hand_over_to"), people.length
    ? el("div", { class: "cd-group" }, people.map((person, i) => el("button", { class: "cd-choice", "data-person": i + 1, onclick: () => app.handOver(person) }, i < 9 ? key(i + 1) : null, person.name)))
    : el("p", {}, app.desk.t("no_colleagues")));
}

/** A refused decision: what is stored beside what was not, so that nothing is lost in silence. */
function refusedDialog(app, ack) {
  const t = (k, p) => app.desk.t(k, p);
  const side = (title, state) => el("div", { class: "cd-side" }, el("h4", {}, title), state.verdict ? el("p", {}, el("b", {}, t(`verdict_${state.verdict}`)), state.by ? ` · ${state.by}` : null, state.at ? ` · ${utcMinute(state.at)} UTC` : null) : state.holder ? el("p", {}, t("held_by", { name: state.holder })) : el("p", {}, "–"), ["note", "revision_reason", "rewritten_answer"].map((name) => state[name] ? el("p", { class: "cd-kept" }, state[name]) : null));
  const mine = ack.form || ack.submitted || {};
  openDialog(app, t("refused", { id: ack.case }), el("p", { class: "cd-banner is-bad" }, ack.text),
    ack.current ? el("div", { class: "cd-grid2" }, side(t("stored_state"), ack.current), side(t("your_state"), mine)) : null,
    el("p", { class: "cd-muted" }, t("refused_kept")),
    el("button", { class: "cd-small", onclick: () => { app.slot("dialog").close(); app.show(ack.case, { claim: true }); } }, t("open_case", { id: ack.case })));
}
