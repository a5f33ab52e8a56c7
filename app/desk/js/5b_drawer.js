// The drawer stands where the decision column is, so that passages and answer are read side by side and nothing is decided unseen.
// Two tabs: passages for the question or the sentence under the cursor, and the guideline with its flags.

const EVIDENCE_AFTER_MS = 250; // while the cursor runs through sentences nothing is asked

function drawDrawer(app) {
  const { desk } = app;
  const slot = app.slot("drawer");
  const open = desk.drawer;
  app.root.classList.toggle("has-drawer", !!open);
  slot.hidden = !open;
  if (!open) return fill(slot);
  if (slot.contains(document.activeElement) && isTyping(document.activeElement)) return; // drawn when the box is left
  const t = (k, p) => desk.t(k, p);
  const tab = (name, cap) =>
    el("button", { class: "cd-tab", role: "tab", "aria-selected": String(open.tab === name), "data-k": `drawer-${name}`, onclick: () => app.openDrawer(name) }, el("span", {}, key(cap), " ", t(`drawer_${name}`)));
  slot.setAttribute("aria-label", t(`drawer_${open.tab}`));
  fill(
    slot,
    el("div", { class: "cd-drawer-head" },
      el("div", { class: "cd-tabs", role: "tablist", "aria-label": t("drawer") }, tab("evidence", "I"), tab("guideline", "G")),
      el("button", { class: "cd-icon", "data-k": "drawer-close", "aria-label": t("close"), title: `${t("close")} Esc`, onclick: () => app.closeDrawer() }, "×")),
    open.tab === "evidence" ? evidenceTab(app) : guidelineTab(app),
  );
}

function evidenceTab(app) {
  const { desk } = app;
  const t = (k, p) => desk.t(k, p);
  const about = desk.drawer.about;
  const found = desk.evidence.get(`${desk.current}:${about}`);
  const places = ["question", ...(desk.cursor ? [desk.cursor] : about !== "question" ? [about] : [])];
  const choice = el("div", { class: "cd-row", role: "radiogroup", "aria-label": t("evidence_for") }, places.map((place) =>
    el("button", { class: "cd-choice", role: "radio", "aria-checked": String(place === about), "data-k": `about-${place === "question" ? "q" : "s"}`, onclick: () => app.lookUp(place) },
      place === "question" ? t("evidence_question") : t("evidence_sentence", { id: place }))));
  const hint = desk.cursor ? null : el("p", { class: "cd-muted" }, t("evidence_hint"));
  if (!found) return [choice, hint, el("p", { class: "cd-muted", role: "status" }, t("evidence_searching"))];
  if (found.problem) return [choice, el("p", { class: "cd-banner", role: "status" }, found.problem)];
  if (!found.passages.length) return [choice, hint, el("p", { class: "cd-banner", role: "status" }, t("evidence_none"))];
  return [choice, hint, el("ol", { class: "cd-passages" }, found.passages.map((passage) => passageCard(app, passage, about)))];
}

const passageName = (passage) => [passage.title, passage.section].filter(Boolean).join(" · ");

/** A text line by line, empty lines left out. */
const lines = (text) => text.split(/\n+/).filter((line) => line.trim()).map((line) => el("p", {}, line));

/** Markdown as plain lines: wrapped lines joined (without a blank between Chinese ones), points as points. */
const unwrapped = (text) =>
  text.replaceAll("**", "").replace(/([⺀-鿿，。；：、！？）])\n(?![\s*-])/g, "$1").replace(/(\S)\n(?![\s*-])/g, "$1 ").replace(/^[-*] /gm, "• ");

/** Where a passage stands: source, date, page, index version. */
function passagePlace(app, passage) {
  const t = (k, p) => app.desk.t(k, p);
  const page = passage.page === null || passage.page === undefined ? null : t("evidence_page", { n: passage.page });
  return [passage.source || passage.file, passage.date || t("evidence_undated"), page, `${passage.index_name} v${passage.index_version}`].filter(Boolean).join(" · ");
}

function passageCard(app, passage, about) {
  const { desk } = app;
  const isCited = desk.form().evidence.some((one) => one.sha256 === passage.sha256);
  const button = desk.isEditable()
    ? el("button", { class: "cd-small", "data-stop": "", "data-k": `cite-${passage.sha256.slice(0, 12)}`, "aria-pressed": String(isCited), "aria-label": `${desk.t(isCited ? "evidence_detach" : "evidence_attach")}: ${passageName(passage)}`, onclick: () => app.cite(passage, about) },
        desk.t(isCited ? "evidence_detach" : "evidence_attach"))
    : null;
  return el("li", { class: `cd-passage ${isCited ? "is-cited" : ""}` },
    el("h4", {}, passageName(passage)),
    lines(passage.text),
    el("p", { class: "cd-muted" }, passagePlace(app, passage)),
    button);
}

function guidelineTab(app) {
  const { desk } = app;
  const t = (k, p) => desk.t(k, p);
  const guideline = desk.guideline;
  if (!guideline) return el("p", { class: "cd-muted", role: "status" }, t("loading"));
  return [
    el("p", { class: "cd-muted" }, t("guideline_version", { version: guideline.version })),
    el("div", { class: "cd-paragraphs" }, guideline.paragraphs.map((part, i) =>
      el("section", { class: "cd-paragraph" },
        el("h4", {}, part.heading),
        lines(unwrapped(part.text)),
        desk.drawer.flagging === i
          ? el("div", { class: "cd-group" }, el("label", { class: "cd-group" }, el("span", { class: "cd-muted" }, t("flag_what")), app.boxes.flag),
              el("div", { class: "cd-row" },
                el("button", { class: "cd-small", "data-k": "flag-send", onclick: () => app.sendFlag(part.heading) }, t("flag_send")),
                el("button", { class: "cd-link", "data-k": "flag-leave", onclick: () => app.flagParagraph(null) }, t("flag_leave"))))
          : el("button", { class: "cd-link", "data-stop": "", "data-k": `flag-${i}`, "aria-label": `${t("flag")}: ${part.heading}`, onclick: () => app.flagParagraph(i) }, t("flag"))))),
  ];
}

/** What a verdict cites, as it stands in the decision column and in the history. `onremove` makes it a list that can be changed. */
function citedView(app, cited, onremove) {
  return el("ul", { class: "cd-cited" }, cited.map((one) =>
    el("li", {},
      el("details", {},
        el("summary", { "data-k": onremove ? `cited-${one.sha256.slice(0, 12)}` : null }, el("b", {}, one.about === "question" ? app.desk.t("evidence_question") : one.about), " ", passageName(one)),
        one.text ? lines(one.text) : null,
        el("p", { class: "cd-muted" }, passagePlace(app, one))),
      onremove ? el("button", { class: "cd-link", "data-k": `uncite-${one.sha256.slice(0, 12)}`, "aria-label": `${app.desk.t("evidence_detach")}: ${passageName(one)}`, onclick: () => onremove(one) }, "×") : null)));
}

/** Keys while the drawer is open. No key decides there; true when the key has been dealt with. */
function drawerKey(app, event) {
  const { desk } = app;
  if (event.ctrlKey || event.metaKey || event.altKey) return event.key === "Enter";
  const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (["h", "?", "t", "ArrowLeft", "ArrowRight"].includes(letter)) return false;
  const run = {
    Escape: () => (desk.drawer.flagging !== null ? app.flagParagraph(null) : app.closeDrawer()),
    g: () => (desk.drawer.tab === "guideline" ? app.closeDrawer() : app.openDrawer("guideline")),
    i: () => (desk.drawer.tab === "evidence" ? app.closeDrawer() : app.openDrawer("evidence")),
    j: () => app.moveCursor(1),
    k: () => app.moveCursor(-1),
    q: () => app.lookUp("question"),
    ArrowDown: () => app.stepInDrawer(1),
    ArrowUp: () => app.stepInDrawer(-1),
  }[letter];
  if (letter === "Tab") return false;
  event.preventDefault();
  event.stopPropagation();
  if (run && (!event.repeat || ["j", "k", "ArrowDown", "ArrowUp"].includes(letter))) run();
  return true;
}
