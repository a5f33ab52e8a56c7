"""Evaluations: the list of reports and one report, harm first: what the candidate lost, then means with intervals, parts, slices."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.session import require
from app.widgets import ai_notice, guarded, link_to_job, page_title, toy_notice
from core import evaluation, model_list
from core.evaluation import MIN_SLICE, Comparison, EvaluationReport

ROLES = ("product", "engineer", "admin")
#: readable on the light and on the dark ground
COLOUR = "#2f8fa6"
PARTS = ("chain", "emergency", "risk_penalty", "teacher")


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Rows under translated headings."""
    heads = [t(f"evaluations.col_{c}") for c in columns]
    st.dataframe([dict(zip(heads, row, strict=True)) for row in rows], hide_index=True, width="stretch")


def interval(mean: float | None, low: float | None, high: float | None) -> str:
    """A mean with its 95 % interval, or a dash when nothing was scored."""
    return "–" if mean is None else f"{mean:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")


def choose() -> int | None:
    """The list; which report is open is in the address (?evaluation=), so that it can be sent to somebody."""
    rows = evaluation.list_evaluations()
    if not rows:
        st.info(t("evaluations.empty"), icon=":material/monitoring:")
        return None
    lines = [(r.id, r.name, " / ".join(r.versions), r.num_regressions, f"{r.created_at:%Y-%m-%d %H:%M}") for r in rows]
    with st.expander(t("evaluations.all", num=len(rows)), expanded=len(rows) > 1):
        table(("id", "name", "versions", "regressions", "made"), list(lines))
    asked = st.query_params.get("evaluation", "")
    ids = [r.id for r in rows]
    index = ids.index(int(asked)) if asked.isdecimal() and int(asked) in ids else 0
    names = {r.id: f"{r.id} · {r.name} · {r.created_at:%Y-%m-%d %H:%M}" for r in rows}
    chosen = st.selectbox(t("evaluations.choose"), ids, index=index, format_func=names.__getitem__, key="evaluations_chosen")
    if job := next(r.job_id for r in rows if r.id == chosen):
        link_to_job(job, t("evaluations.job", id=job))
    return chosen


def show_harm(report: EvaluationReport, comparison: Comparison) -> None:
    """The emergency advice that the candidate lost, with the answers themselves."""
    lost = comparison["emergency_regressions"]
    names = {"candidate": comparison["candidate"], "baseline": report["baseline"]}
    if not lost:
        st.success(t("evaluations.no_regressions", **names), icon=":material/verified_user:")
        return
    st.error(t("evaluations.regressions", num=len(lost), **names), icon=":material/emergency_home:")
    for one in evaluation.answers_of(report, comparison):
        with st.expander(f"#{one.sample_id} · {one.question[:110]}"):
            st.markdown(f"**{t('evaluations.question')}**")
            st.text(one.question)
            for column, name, text in zip(
                st.columns(2), (report["baseline"], comparison["candidate"]), (one.baseline, one.candidate), strict=True
            ):
                column.markdown(f"**{name}**")
                column.text(text if text is not None else t("evaluations.answer_not_kept"))


def show_means(report: EvaluationReport) -> None:
    """Mean reward of every version with its interval, as a chart and in numbers."""
    rows = [
        {"version": name, "mean": v["mean"], "low": v["ci_low"], "high": v["ci_high"], "n": v["n"]}
        for name, v in report["versions"].items()
        if v["mean"] is not None
    ]
    y = {"field": "version", "type": "nominal", "sort": None, "axis": {"title": None, "labelLimit": 220}}
    x = {"type": "quantitative", "scale": {"zero": False}, "axis": {"title": t("evaluations.mean_reward"), "tickCount": 8}}
    st.vega_lite_chart(
        {
            "data": {"values": rows},
            "height": {"step": 36},
            "layer": [
                {
                    "mark": {"type": "rule", "strokeWidth": 2, "color": COLOUR},
                    "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 90, "color": COLOUR, "opacity": 1, "tooltip": True},
                    "encoding": {"y": y, "x": {**x, "field": "mean"}},
                },
            ],
        },
        width="stretch",
    )
    for comparison in report["comparisons"]:
        difference = interval(comparison["difference"], comparison["ci_low"], comparison["ci_high"])
        names = {"candidate": comparison["candidate"], "baseline": report["baseline"], "n": comparison["n"]}
        st.markdown(t("evaluations.difference", difference=difference, **names))
    lines: list[tuple[object, ...]] = []
    for name, v in report["versions"].items():
        parts = [v["parts"].get(p) for p in PARTS]
        cells = ["–" if p is None or p["mean"] is None else f"{p['mean']:.3f} (n {p['n']})" for p in parts]
        lines.append((name, v["n"], v["num_unscored"], interval(v["mean"], v["ci_low"], v["ci_high"]), *cells))
    table(("version", "n", "unscored", "mean", *PARTS), lines)


def show_slices(report: EvaluationReport) -> None:
    """Means of groups of prompts; small groups say so instead of giving a number that means nothing."""
    lines: list[tuple[object, ...]] = []
    for name, v in report["versions"].items():
        for s in v["slices"]:
            mean = interval(s["mean"], s["ci_low"], s["ci_high"]) if s["n"] >= MIN_SLICE else t("evaluations.too_few")
            lines.append((t(f"evaluations.by_{s['by']}"), s["value"], name, s["n"], mean))
    if lines:
        st.subheader(t("evaluations.slices"), anchor=False)
        table(("by", "value", "version", "n", "mean"), sorted(lines, key=lambda line: (str(line[0]), str(line[1]), str(line[2]))))


def main() -> None:
    require(*ROLES)
    page_title("evaluations.title")
    chosen = choose()
    if chosen is None:
        return
    report = evaluation.open_report(chosen)
    ai_notice()
    if any(v.is_toy for v in model_list.list_versions() if v.name in report["versions"]):
        toy_notice()
    for comparison in report["comparisons"]:
        show_harm(report, comparison)
    show_means(report)
    show_slices(report)
    teacher = report["teacher"] or t("evaluations.no_teacher")
    if report["teacher_is_offline"]:
        teacher += f" ({t('evaluations.offline')})"
    st.caption(
        t("evaluations.made_with", dataset=report["dataset"], split=report["split"], hash=report["dataset_hash"][:12] or "–")
        + " · "
        + t("evaluations.scored_with", config=report["reward_config"] or "–", teacher=teacher)
        + " · "
        + t("evaluations.decoded_with", decoding=", ".join(f"{k} {v}" for k, v in report["decoding"].items()) or "–")
    )


with guarded():
    main()
