// The keyboard. No key decides while it is held down, while a box has the focus, or before the case has been seen.

const MIN_DWELL_MS = 400;

function onKey(app, event) {
  if (!app.isAlive() || event.isComposing) return;
  app.touched();
  const dialog = app.slot("dialog");
  const target = event.target instanceof Element ? event.target : null;
  if (dialog.open) return dialogKey(app, dialog, event);
  if (isTyping(target)) {
    if (event.key === "Escape" && app.root.contains(target)) {
      event.preventDefault();
      target.blur();
      app.root.focus({ preventScroll: true });
    }
    return;
  }
  if (app.desk.drawer && target?.closest(".cd-drawer button") && (event.key === "Enter" || event.key === " ")) return;
  if (app.desk.drawer && drawerKey(app, event)) return;
  if (document.querySelector("[data-testid='stDialog'], [data-baseweb='popover']")) return;
  // Enter and Space belong to whatever control has the focus
  const isControl = target?.closest("button, a[href], summary, [role='tab']");
  if (isControl && (event.key === "Enter" || event.key === " ") && !event.ctrlKey && !event.metaKey) return;
  const action = keyAction(app, event);
  if (!action) return;
  event.preventDefault();
  event.stopPropagation();
  if (event.repeat && !action.mayRepeat) return;
  if (action.decides && app.dwell() < MIN_DWELL_MS) return;
  action.run();
}

function dialogKey(app, dialog, event) {
  if (event.repeat) return event.preventDefault();
  if (app.tourStep !== null && ["ArrowRight", "ArrowLeft"].includes(event.key)) {
    event.preventDefault();
    event.stopPropagation();
    const step = app.tourStep + (event.key === "ArrowRight" ? 1 : -1);
    if (step >= 0 && step < TOUR.length) drawTour(app, step);
    return;
  }
  if (/^[1-9]$/.test(event.key)) {
    const button = dialog.querySelector(`[data-skip="${event.key}"], [data-person="${event.key}"]`);
    if (button) {
      event.preventDefault();
      event.stopPropagation();
      button.click();
    }
  } else if (event.key.toLowerCase() === "h") {
    event.preventDefault();
    dialog.close();
  }
}

/** What a key does now: {run, decides?, mayRepeat?}, or null when it is not ours. */
function keyAction(app, event) {
  const { desk } = app;
  const stage = desk.current === null ? "none" : desk.stage();
  const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return stage === "sign" ? { decides: true, run: () => app.sign() } : null;
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  if (event.shiftKey && event.code === "Digit4") return desk.current === null ? null : { decides: true, run: () => app.stopCord() };
  const always = {
    h: { run: () => app.openHelp() },
    "?": { run: () => app.openHelp() },
    t: { run: () => app.toggleThinking() },
    j: { mayRepeat: true, run: () => app.moveCursor(1) },
    k: { mayRepeat: true, run: () => app.moveCursor(-1) },
    u: { run: () => app.undoLast() },
    i: { run: () => app.openDrawer("evidence") },
    g: { run: () => app.openDrawer("guideline") },
    ArrowRight: { run: () => app.browse(1) },
    ArrowLeft: { run: () => app.browse(-1) },
  };
  if (letter in always) return always[letter];
  if (stage === "held" || stage === "done") return event.key === "Enter" ? { run: () => app.goNext() } : null;
  if (!["blind", "sign"].includes(stage)) return null;
  const form = desk.form();
  const digit = /^Digit[1-9]$/.test(event.code) ? Number(event.code.slice(5)) : /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
  if (digit && !event.shiftKey) return digitAction(app, stage, digit);
  if (form.verdict === "cannot_judge" && letter in CANNOT && (stage === "blind" || form.revising)) return { decides: true, run: () => app.setCannot(CANNOT[letter]) };
  if (letter in CRITERIA) return { run: () => app.focusCriterion(CRITERIA[letter]) };
  if (letter === " ") return desk.row ? { decides: true, run: () => app.cycleCriterion(desk.row) } : null;
  if ((event.key === "ArrowDown" || event.key === "ArrowUp") && desk.row) return { mayRepeat: true, run: () => app.moveCriterion(event.key === "ArrowDown" ? 1 : -1) };
  const here = {
    x: { decides: true, run: () => app.cycleMark() },
    n: { run: () => app.focusBox("note") },
    s: { run: () => app.openSkip() },
    f: { run: () => app.openHandOver() },
    Escape: { run: () => app.clearRow() },
  };
  if (stage === "blind") here.Enter = { decides: true, run: () => app.commit() };
  if (stage === "sign") {
    here.v = { run: () => app.revise() };
    here.b = { run: () => app.focusBecause() };
    here.o = { run: () => app.focusFollow() };
    here.w = { run: () => app.rewrite(true) };
  }
  return here[letter] || null;
}

function digitAction(app, stage, digit) {
  const form = app.desk.form();
  if (digit in CONFIDENCE) return { decides: true, run: () => app.setConfidence(CONFIDENCE[digit]) };
  if (digit > 5) return null;
  if (stage === "blind" || form.revising) return { decides: true, run: () => app.setVerdict(VERDICTS[digit - 1]) };
  if (digit <= 4 && app.desk.reveals.get(app.desk.current)?.is_disputed) return { decides: true, run: () => app.setRight(RIGHT[digit - 1]) };
  return null;
}
