// Drawing the head, the list of cases, and the case itself: question, answer and thinking in numbered sentences.

function drawHead(app) {
  const { desk } = app;
  const t = (k, p) => desk.t(k, p);
  fill(
    app.slot("head"),
    el("h2", { class: "cd-title" }, desk.current ? t("case", { id: desk.current }) : t("queue")),
    el("span", { class: "cd-lease", "data-lease": "" }, app.leaseText()),
    el("span", { class: "cd-grow" }),
    el("span", { class: "cd-stamp", role: "status", "data-stamp": "" }, app.stamp),
    el("span", { class: "cd-today" }, t("today", { n: app.numToday })),
    el("span", { class: "cd-nav" },
      el("button", { class: "cd-icon", "data-k": "prev", "aria-label": t("previous_case"), title: `${t("previous_case")} ←`, onclick: () => app.browse(-1) }, "←"),
      el("button", { class: "cd-icon", "data-k": "next", "aria-label": t("next_case"), title: `${t("next_case")} →`, onclick: () => app.browse(1) }, "→"),
      el("button", { class: "cd-icon", "data-k": "help", onclick: () => app.openHelp() }, key("H"), " ", t("help"))),
  );
}

/** One row of the list as a text, to see whether it has changed; and the row itself. */
function queueRow(app, item) {
  const { desk } = app;
  const t = (k, p) => desk.t(k, p);
  const stage = desk.signed.has(item.id) ? "signed" : desk.passed.has(item.id) ? "skipped" : item.stage || (item.has_draft ? "draft" : null);
  const note = item.holder && !desk.leases.has(item.id) ? t("held_by", { name: item.holder }) : stage && stage !== "stop_cord" ? t(`stage_${stage}`) : null;
  const make = () =>
    el("li", {},
      el("button", { class: "cd-item", "data-k": `item-${item.id}`, "data-case": item.id, lang: item.language, onclick: () => app.show(item.id, { claim: true }) },
        el("span", { class: "cd-item-id" }, t("case", { id: item.id }), note ? el("span", { class: `cd-chip ${item.holder ? "is-held" : `is-${stage}`}` }, note) : null),
        el("span", { class: "cd-item-text" }, item.excerpt)));
  return { drawn: JSON.stringify([item.id, item.excerpt, item.language, note, item.holder, stage, app.stringsVersion]), make };
}

/** Rows that have not changed stay: drawing forty of them anew takes longer than all the rest of the next case. */
function drawRows(app, list) {
  const { desk } = app;
  const before = new Map([...list.children].map((node) => [node.dataset.drawn, node]));
  const rows = desk.queue.map((item) => {
    const { drawn, make } = queueRow(app, item);
    const node = before.get(drawn) || make();
    node.dataset.drawn = drawn;
    const button = node.firstChild;
    const isCurrent = item.id === desk.current;
    if (isCurrent !== button.hasAttribute("aria-current")) isCurrent ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current");
    return node;
  });
  if (rows.length !== list.children.length || rows.some((node, i) => node !== list.children[i])) fill(list, rows);
}

function drawQueue(app) {
  const { desk } = app;
  const slot = app.slot("queue");
  const drawn = JSON.stringify([desk.queue.length, desk.counts, desk.view, app.stringsVersion, app.page]);
  if (drawn !== app.drawnQueue) {
    app.drawnQueue = drawn;
    drawQueueFrame(app, slot, slot.querySelector(".cd-list") || el("ol", { class: "cd-list" }));
  }
  const list = slot.querySelector(".cd-list");
  if (list) drawRows(app, list);
}

function drawQueueFrame(app, slot, list) {
  const { desk } = app;
  const t = (k, p) => desk.t(k, p);
  const tab = (status) =>
    el("button", { class: "cd-tab", role: "tab", "aria-selected": String(desk.view.status === status), "data-k": `tab-${status}`, onclick: () => app.setView({ status }) },
      t(`filter_${status}`), " ", el("span", { class: "cd-count" }, desk.counts[status] ?? ""));
  const choose = (name, values, current, label) =>
    el("select", { "aria-label": t(name), "data-k": name, onchange: (event) => app.setView({ [name]: event.target.value || null }) },
      values.map((value) => el("option", { value: value || "", selected: value === current }, desk.words[label(value)] || (name === "topic" && value) || t(label(value)))));
  const isCut = desk.queue.length >= app.page;
  fill(
    slot,
    el("div", { class: "cd-tabs", role: "tablist", "aria-label": t("filters") }, ["open", "mine", "deferred", "adjudicated"].map(tab)),
    el("input", { type: "search", class: "cd-search", "data-k": "search", "aria-label": t("search"), placeholder: t("search"), value: desk.view.text || "", onchange: (event) => app.setView({ text: event.target.value }) }),
    el("div", { class: "cd-filters" },
      choose("language", [null, "en", "zh"], desk.view.language, (v) => `language_${v || "all"}`),
      desk.view.status === "open" ? choose("order", ["mixed", "disagreement", "risk", "oldest", "newest"], desk.view.order, (v) => `order_${v}`) : null),
    el("div", { class: "cd-filters" },
      choose("topic", [null, ...(app.topics || [])], desk.view.topic, (v) => (v ? `topic_${v}` : "topic_all")),
      choose("risk", [null, "high", "medium", "low"], desk.view.risk, (v) => `risk_${v || "all"}`)),
    desk.queue.length ? list : el("p", { class: "cd-muted" }, desk.view.status === "open" ? t("empty_open") : t("empty_filter")),
    isCut ? el("p", { class: "cd-muted" }, t("more", { n: app.page })) : null,
  );
}

function drawCase(app) {
  const { desk } = app;
  const t = (k, p) => desk.t(k, p);
  const id = desk.current;
  const slot = app.slot("case");
  if (id === null) {
    fill(slot, el("div", { class: "cd-empty" }, el("h3", {}, t(desk.view.status === "open" ? "empty_open" : `filter_${desk.view.status}`)),
      el("p", {}, t(desk.view.status === "open" ? "empty_open_next" : "empty_filter"))));
    return;
  }
  const shown = desk.cases.get(id);
  if (!shown) {
    fill(slot, el("p", { class: "cd-muted", role: "status" }, t("loading")));
    return;
  }
  const reveal = desk.reveals.get(id);
  const asked = shown.turns.findLastIndex((turn) => turn.role === "user"); // the turn that the rules read
  const turns = shown.turns.map((turn, i) => {
    const body = i === asked && reveal ? segments(app, reveal.question) : turn.text;
    return el("div", { class: `cd-turn is-${turn.role}` }, shown.turns.length > 1 ? el("span", { class: "cd-role" }, t(`role_${turn.role}`)) : null, el("p", {}, body));
  });
  const part = (name, texts, emptyKey) => {
    const letter = name === "answer" ? "a" : "t";
    const list = texts.map((text, i) => sentenceRow(app, `${letter}${i + 1}`, text, reveal?.[name]?.[i], name === "thinking" && reveal?.dropped.includes(i)));
    return texts.length
      ? el("div", { class: "cd-sentences", role: "listbox", "aria-label": t(name), "aria-activedescendant": desk.cursor?.startsWith(letter) ? `cd-${desk.cursor}` : null, tabindex: 0, "data-k": name }, list)
      : el("p", { class: "cd-muted" }, t(emptyKey));
  };
  fill(
    slot,
    el("section", { class: "cd-card cd-question", lang: shown.language, "aria-label": t("question") }, el("h3", {}, t("question")), turns,
      (shown.context || []).map((text) => el("div", { class: "cd-turn is-context" }, el("span", { class: "cd-role" }, t("added_context")), el("p", {}, text)))),
    el("div", { class: "cd-notes" }, el("span", {}, t("ai_notice")), shown.is_toy ? el("span", { class: "cd-toy" }, t("toy_notice")) : null),
    el("div", { class: `cd-pair ${desk.showThinking ? "" : "is-folded"}`, lang: shown.language },
      el("section", { class: "cd-card", "data-part": "answer" },
        el("h3", {}, t("answer")),
        part("answer", shown.answer, "no_answer"),
        shown.is_cut ? el("p", { class: "cd-muted" }, t("cut")) : null),
      el("section", { class: "cd-card", "data-part": "thinking" },
        el("h3", {}, t("thinking"),
          el("button", { class: "cd-link", "data-k": "fold", "aria-expanded": String(desk.showThinking), onclick: () => app.toggleThinking() }, key("T"), " ", t(desk.showThinking ? "hide_thinking" : "show_thinking"))),
        desk.showThinking
          ? part("thinking", shown.thinking, "no_thinking")
          : el("p", { class: "cd-folded" }, shown.thinking.join(" ") || t("no_thinking")))),
    reveal && desk.stage(id) === "done" ? historyView(app, reveal.history) : null,
  );
}

function sentenceRow(app, id, text, parts, isDropped) {
  const { desk } = app;
  const mark = desk.form().marks[id] || null;
  const isCurrent = desk.cursor === id;
  return el("div",
    { class: `cd-sentence ${isCurrent ? "is-current" : ""} ${mark ? `is-${mark}` : ""} ${isDropped ? "is-dropped" : ""}`, id: `cd-${id}`, role: "option", "aria-selected": String(isCurrent), "data-sentence": id, onclick: () => app.clickSentence(id) },
    el("span", { class: "cd-no" }, id),
    el("span", { class: "cd-text" }, parts ? segments(app, parts) : text),
    mark ? el("span", { class: `cd-mark is-${mark}` }, desk.t(`mark_${mark}`)) : null,
    isDropped ? el("span", { class: "cd-dropped" }, desk.t("dropped")) : null);
}

/** Text with evidence laid over it. A span of the rule being shown is strong, the others are faint. */
function segments(app, parts) {
  return parts.map((part) => {
    if (!part.rules) return part.text;
    const isStrong = app.shownRule && part.rules.includes(app.shownRule);
    const names = part.rules.map((rule) => app.ruleName(rule)).join(", ");
    return el("mark", { class: `cd-span is-rule-${part.rules[0]} ${part.kinds.includes("miss") ? "is-miss" : ""} ${isStrong ? "is-strong" : ""}`, "data-rules": part.rules.join(" "), title: `${names}: ${part.terms.map((term) => app.ruleName(term)).join(", ")}` }, part.text);
  });
}

function historyView(app, rows) {
  const t = (k, p) => app.desk.t(k, p);
  const fact = (label, value) => (value ? el("span", { class: "cd-fact" }, el("b", {}, label), " ", value) : null);
  return el("section", { class: "cd-card cd-history" }, el("h3", {}, t("history")), el("ol", {}, rows.map((row) =>
    el("li", { class: row.is_superseded ? "is-superseded" : "" },
      el("div", { class: "cd-history-head" },
        el("b", {}, row.by), " · ", t(`history_${row.stage}`), row.verdict ? [" · ", t(`verdict_${row.verdict}`)] : null,
        row.is_superseded ? el("span", { class: "cd-chip" }, t("superseded")) : null,
        el("span", { class: "cd-muted" }, `${utcMinute(row.at)} UTC · ${t("entry", { entry: row.entry ?? "–" })}`)),
      row.note ? el("p", {}, row.note) : null,
      row.revision_reason ? el("p", {}, fact(t("revision_reason"), row.revision_reason)) : null,
      el("p", { class: "cd-facts" },
        fact(t("who_was_right"), row.who_was_right ? t(`right_${row.who_was_right}`) : null),
        fact(t("confidence"), row.confidence ? t(`confidence_${row.confidence}`) : null),
        Object.entries(row.criteria).map(([name, value]) => fact(t(`criterion_${name}`), t(`value_${value}`))),
        Object.entries(row.marks).map(([name, value]) => fact(name, t(`mark_${value}`))),
        row.stage === "skipped" ? row.because.map((tag) => fact(t("skip"), t(`skip_${tag}`))) : row.because.map((tag) => fact("", t(`because_${tag}`)))),
      row.evidence?.length ? citedView(app, row.evidence) : null,
      row.rewritten_answer ? el("blockquote", {}, row.rewritten_answer) : null,
      row.signed_meaning ? el("p", { class: "cd-signed" }, row.signed_meaning) : null))));
}
