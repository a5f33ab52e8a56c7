// What a decision does next: before the signature as a choice, on a signed case as what has come of it.

const FOLLOW = ["gold", "red_team", "teacher_test"];
const SETS = new Set(["gold", "red_team"]);

/** Choices under the signature. A question that is held out already cannot join a set again. */
function followChoices(app, form, reveal) {
  const { desk } = app;
  const offered = FOLLOW.filter((kind) => !SETS.has(kind) || reveal.may_hold_out);
  const isHeldBack = form.rewriting && form.follow.some((kind) => SETS.has(kind));
  return el("div", { class: "cd-group", role: "group", "aria-label": desk.t("follow") },
    el("h4", {}, key("O"), desk.t("follow")),
    el("div", { class: "cd-tags" }, offered.map((kind) =>
      el("button", { class: "cd-tag", "aria-pressed": String(form.follow.includes(kind)), "data-k": `o-${kind}`, title: desk.t(`follow_${kind}_help`), onclick: () => app.toggleFollow(kind) }, desk.t(`follow_${kind}`)))),
    isHeldBack ? el("p", { class: "cd-muted" }, desk.t("follow_no_pair")) : null);
}

function nextView(app, id, next) {
  const { desk } = app;
  const t = (k, p) => desk.t(k, p);
  const line = (text, chip) => el("li", {}, el("span", { class: "cd-grow" }, text), chip ? el("span", { class: "cd-chip" }, chip) : null);
  const items = next.items.map((item) => [line(t(`follow_${item.kind}`), t(`follow_${item.status}`)), item.answer ? el("li", { class: "cd-muted" }, item.answer) : null]);
  const known = new Set(next.items.map((item) => item.kind));
  const offered = FOLLOW.filter((kind) => !known.has(kind) && (!SETS.has(kind) || next.may_hold_out));
  const trained = next.may_train ? "" : t("next_held_out");
  return el("section", { class: "cd-group cd-next", "aria-label": t("next") },
    el("h4", {}, t("next")),
    el("ul", {},
      next.pair ? line(t(next.pair === "made" ? "next_pair" : "next_pair_out")) : null,
      next.label ? line(t(`next_label_${next.label}`), trained) : null,
      next.num_steps ? line(t("next_steps", { n: next.num_steps }), trained) : null,
      next.proposal ? line(t(next.proposal.changes_side ? (next.proposal.agrees_now ? "next_reward_right" : "next_reward_wrong") : "next_reward", { version: next.proposal.version })) : null,
      items),
    offered.length
      ? el("div", { class: "cd-tags" }, offered.map((kind) => el("button", { class: "cd-tag", "data-k": `follow-${kind}`, title: t(`follow_${kind}_help`), onclick: () => app.follow(id, kind) }, "+ ", t(`follow_${kind}`))))
      : null,
    el("a", { class: "cd-link", href: "followups", "data-k": "followups" }, t("next_all")));
}
