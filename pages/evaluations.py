"""Evaluations: one report, harm first: what got worse with both answers, then means, outcomes, slices; the ladder; prediction."""

from __future__ import annotations

import streamlit as st

from app import evaluations_widgets as widgets
from app.evaluations_widgets import interval, table
from app.i18n import t
from app.prediction_widgets import show_predictions
from app.session import current_user, require
from app.widgets import ai_notice, guarded, link_to_job, page_title, toy_notice
from core import evaluation, model_list
from core.evaluation import MIN_SLICE, EvaluationReport
from core.outcomes import OUTCOMES
from core.rewards import FAILURE_SCORE

ROLES = ("product", "engineer", "clinician", "admin")
PARTS = ("chain", "emergency", "risk_penalty", "teacher", "facts")


def choose() -> int | None:
    """The list; which report is open is in the address (?evaluation=), so that it can be sent to somebody."""
    rows = evaluation.list_evaluations()
    if not rows:
        st.info(t("evaluations.empty"), icon=":material/monitoring:")
        return None
    lines = [
        (r.id, r.name, r.round or "–", " / ".join(r.versions), ", ".join(r.splits), r.num_regressions, f"{r.created_at:%Y-%m-%d %H:%M}")
        for r in rows
    ]
    with st.expander(t("evaluations.all", num=len(rows))):
        table(("id", "name", "round", "versions", "split", "regressions", "made"), list(lines))
    asked = st.query_params.get("evaluation", "")
    ids = [r.id for r in rows]
    index = ids.index(int(asked)) if asked.isdecimal() and int(asked) in ids else 0
    names = {r.id: f"{r.id} · {r.name} · {r.created_at:%Y-%m-%d %H:%M}" for r in rows}
    chosen = st.selectbox(t("evaluations.choose"), ids, index=index, format_func=names.__getitem__, key="evaluations_chosen")
    if (job := next(r.job_id for r in rows if r.id == chosen)) and current_user().role in ("engineer", "admin"):
        link_to_job(job, t("evaluations.job", id=job))
    return chosen


def show_numbers(report: EvaluationReport) -> None:
    """Means in words and numbers: differences first, then parts and outcomes of every version and split."""
    for c in report["comparisons"]:
        difference = interval(c["difference"], c["ci_low"], c["ci_high"])
        names = {"candidate": c["candidate"], "baseline": report["baseline"], "n": c["n"]}
        p = f" · p {widgets.p_text(c['p_value'])}" if c["p_value"] is not None else ""
        st.markdown(t("evaluations.difference", difference=difference, **names) + p)
    lines: list[tuple[object, ...]] = []
    for name, version in report["versions"].items():
        pieces = widgets.splits_of(report, version)
        for split, v in [("", version), *pieces] if len(pieces) > 1 else pieces:
            parts = [v["parts"].get(p) for p in PARTS]
            cells = ["–" if p is None or p["mean"] is None else f"{p['mean']:.3f} (n {p['n']})" for p in parts]
            shares = [v["outcomes"].get(o) for o in OUTCOMES]
            cells += [f"{s['num']}/{s['n']}" if s else "–" for s in shares]
            mean = interval(v["mean"], v["ci_low"], v["ci_high"])
            silent = v.get("num_silent", "–")
            lines.append((name, widgets.split_name(split), v["n"], silent, v["num_unscored"], mean, *cells))
    outcomes = tuple(f"outcome_{o}" for o in OUTCOMES)
    st.caption(t("evaluations.silent_counts", value=FAILURE_SCORE))
    table(("version", "split", "n", "silent", "unscored", "mean", *PARTS, *outcomes), lines)


def show_slices(report: EvaluationReport) -> None:
    """Means of groups of prompts; small groups say so instead of giving a number that means nothing."""
    lines: list[tuple[object, ...]] = []
    for name, v in report["versions"].items():
        for s in v["slices"]:
            mean = interval(s["mean"], s["ci_low"], s["ci_high"]) if s["n"] >= MIN_SLICE else t("evaluations.too_few")
            lines.append((t(f"evaluations.by_{s['by']}"), s["value"], name, s["n"], mean))
    if lines:
        with st.expander(t("evaluations.slice_means")):
            table(("by", "value", "version", "n", "mean"), sorted(lines, key=lambda line: (str(line[0]), str(line[1]), str(line[2]))))


def show_report() -> None:
    """One report from harm to slices, and how it was made."""
    chosen = choose()
    if chosen is None:
        return
    report = evaluation.open_report(chosen)
    widgets.downloads(chosen, report)
    ai_notice()
    if any(v.is_toy for v in model_list.list_versions() if v.name in report["versions"]):
        toy_notice()
    for comparison in report["comparisons"]:
        widgets.show_harm(report, comparison)
    st.subheader(t("evaluations.means"), anchor=False)
    widgets.show_means(report)
    show_numbers(report)
    widgets.show_curves(report)
    for comparison in report["comparisons"]:
        widgets.show_outcomes(report, comparison)
    st.subheader(t("evaluations.slices"), anchor=False)
    for comparison in report["comparisons"]:
        widgets.show_slice_differences(comparison)
    show_slices(report)
    for c in report["comparisons"]:
        if c["wins"]:
            st.subheader(t("evaluations.better", num=len(c["wins"]), candidate=c["candidate"], baseline=report["baseline"]), anchor=False)
            widgets.show_changes(report, c, c["wins"], "better")
    made_with(report)


def made_with(report: EvaluationReport) -> None:
    """Everything that another person needs to make the same report again."""
    teacher = report["teacher"] or t("evaluations.no_teacher")
    if report["teacher_is_offline"]:
        teacher += f" ({t('evaluations.offline')})"
    splits = ", ".join(report["splits"]) or report["split"]
    pieces = (
        t("evaluations.made_with", dataset=report["dataset"], split=splits, hash=report["dataset_hash"][:12] or "–"),
        t("evaluations.scored_with", config=report["reward_config"] or "–", teacher=teacher),
        t("evaluations.grounded_with", index=report["index"] or t("evaluations.no_index")),
        t("evaluations.decoded_with", decoding=", ".join(f"{k} {v}" for k, v in report["decoding"].items()) or "–"),
    )
    st.caption(" · ".join(pieces))


def main() -> None:
    person = require(*ROLES)
    page_title("evaluations.title")
    names = ["report", "ladder"] + (["predict"] if person.role != "clinician" else [])
    tabs = st.tabs([t(f"evaluations.tab_{name}") for name in names])
    with tabs[0], guarded():
        show_report()
    with tabs[1], guarded():
        widgets.show_ladder()
    if len(tabs) > 2:
        with tabs[2], guarded():
            show_predictions()


with guarded():
    main()
