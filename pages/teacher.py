"""Teacher: does it answer, what did it cost against the budget, can it be trusted, and what does it propose. Product reads only."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.session import require
from app.teacher_widgets import DECIDERS, alarm_notice, show_agreement, show_alarms, show_files, show_price, show_proposals, usd
from app.widgets import guarded, page_title
from core.teacher import report
from core.teacher.report import TeacherView

ROLES = ("product", "engineer", "admin")
#: readable on the light and on the dark ground
COLOURS = {"scored": "#2f8fa6", "cached": "#7fb8a4", "unscored": "#d08a3c"}


def show_state(view: TeacherView, may_decide: bool) -> None:
    """Up or down, money against the budget, volume, cache and latency."""
    first, second, third, fourth, fifth = st.columns(5)
    reason = t(f"scoring.reason_{view.reason}") if view.reason else ""
    with first:
        st.metric(t("teacher.state"), {"up": "✓", "down": "✕"}.get(view.state, "–"), help=t("teacher.state_help"))
        st.caption(t(f"teacher.state_{view.state}", reason=reason))
    with second:
        st.metric(t("teacher.spent_month"), t("teacher.usd", usd=usd(view.month.usd)))
        has_budget = view.month_budget_usd > 0
        st.caption(t("teacher.of_budget", budget=usd(view.month_budget_usd)) if has_budget else t("teacher.no_budget"))
        if has_budget:
            st.progress(min(1.0, (view.month.usd + view.month.possible_usd) / view.month_budget_usd))
    counts = {"scored": view.total.num_scored, "unscored": view.total.num_unscored}
    third.metric(t("teacher.judged"), view.total.num_asked, help=t("teacher.judged_help", **counts))
    share = f"{view.total.num_cached / view.total.num_asked:.0%}" if view.total.num_asked else "–"
    fourth.metric(t("teacher.cache_hits"), share, help=t("teacher.cache_help"))
    latency = f"{view.latency_s[0]:.1f} · {view.latency_s[1]:.1f} s" if view.latency_s else "–"
    fifth.metric(t("teacher.latency"), latency, help=t("teacher.latency_help", num=view.num_latencies))
    if view.month.possible_usd > 0:
        st.caption(f":material/help: {t('teacher.possible', usd=usd(view.month.possible_usd))}")
    if view.price is None and not view.is_offline and view.total.num_cost_unknown:
        st.warning(t("teacher.cost_unknown", num=view.total.num_cost_unknown), icon=":material/sell:")
    budget = t("teacher.usd", usd=usd(view.job_budget_usd)) if view.job_budget_usd else t("teacher.unlimited")
    st.caption(t("teacher.job_budget", budget=budget))
    if may_decide and not view.is_offline and st.button(t("teacher.ask_now"), key="teacher_ask_now", icon=":material/cell_tower:"):
        with guarded():
            health = report.ask_now(require(*DECIDERS).id)
            if health.is_up:
                st.success(t("teacher.answers_now"))
            else:
                st.error(t("teacher.silent_now", reason=t(f"scoring.reason_{health.reason}")))


def show_days(view: TeacherView) -> None:
    """Judgements by day: scored by a request, from the cache, unscored."""
    rows = []
    for day, tally in view.by_day.items():
        cached = min(tally.num_cached, tally.num_scored)
        for name, num in (("scored", tally.num_scored - cached), ("cached", cached), ("unscored", tally.num_unscored)):
            rows.append({"day": day, "what": t(f"teacher.chart_{name}"), "num": num})
    st.subheader(t("teacher.by_day"), anchor=False)
    colours = {"domain": [t(f"teacher.chart_{n}") for n in COLOURS], "range": list(COLOURS.values())}
    st.vega_lite_chart(
        {
            "data": {"values": rows},
            "height": 320,
            "mark": {"type": "bar", "size": 18, "tooltip": True},
            "encoding": {
                "x": {"field": "day", "type": "ordinal", "axis": {"title": t("teacher.chart_day"), "labelAngle": -40}},
                "y": {"field": "num", "type": "quantitative", "axis": {"title": t("teacher.chart_num"), "tickMinStep": 1}},
                "color": {"field": "what", "type": "nominal", "scale": colours, "legend": {"title": None, "orient": "top"}},
            },
        },
        width="stretch",
    )


def show_reasons(view: TeacherView) -> None:
    """What was not scored and what failed, by reason."""
    found = [(title, counts) for title, counts in (("why_unscored", view.reasons), ("why_failed", view.faults)) if counts]
    for column, (title, counts) in zip(st.columns(2), found, strict=False):
        rows = [{t("teacher.col_reason"): t(f"scoring.reason_{r}"), t("teacher.col_num"): n} for r, n in counts.most_common()]
        column.markdown(f"**{t(f'teacher.{title}')}**")
        column.dataframe(rows, hide_index=True, width="stretch")


def show_jobs(view: TeacherView) -> None:
    """What each job asked and cost, newest first."""
    jobs = sorted(view.by_job.items(), key=lambda pair: -(pair[0] or 0))[: report.NUM_JOBS]
    st.subheader(t("teacher.by_job"), anchor=False)
    lines = [
        {
            t("teacher.col_job"): f"#{job}" if job else t("teacher.by_hand"),
            t("teacher.col_asked"): tally.num_asked,
            t("teacher.col_cached"): tally.num_cached,
            t("teacher.col_unscored"): tally.num_unscored,
            t("teacher.col_requests"): tally.num_requests,
            t("teacher.col_tokens"): f"{tally.prompt_tokens:,} / {tally.completion_tokens:,}",
            t("teacher.col_cost"): t("teacher.unknown") if tally.num_cost_unknown and not tally.usd else usd(tally.usd),
        }
        for job, tally in jobs
    ]
    st.dataframe(lines, hide_index=True, width="stretch")


def show_overview(view: TeacherView, may_decide: bool) -> None:
    show_state(view, may_decide)
    if not view.by_day:
        st.info(t("teacher.nothing_yet"), icon=":material/school:")
        return
    show_days(view)
    show_reasons(view)
    show_jobs(view)


def main() -> None:
    may_decide = require(*ROLES).role in DECIDERS
    page_title("teacher.title")
    st.caption(t("teacher.intro"))
    view = report.view()
    if view.is_offline:
        st.info(t("teacher.offline"), icon=":material/cloud_off:")
    else:
        st.caption(t("teacher.about", model=view.model, host=view.host, rubric=view.rubric_version))
    alarm_notice(with_link=False)
    overview, trust, suggested, money = st.tabs([t(f"teacher.tab_{name}") for name in ("overview", "trust", "proposals", "money")])
    with overview, guarded():
        show_overview(view, may_decide)
    with trust, guarded():
        show_agreement(view)
        show_alarms(view.alarms, may_decide)
    with suggested, guarded():
        show_proposals(may_decide)
    with money, guarded():
        show_price(view, may_decide)
        show_files(view, may_decide)


with guarded():
    main()
