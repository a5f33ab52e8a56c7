"""The four answers of the training-run page: optimised, drifted, cost, worse. Each section says "not recorded" where a run wrote nothing.

Drawing only; what is shown comes from `core.training_runs`. Used by pages/training_run.py.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.i18n import t
from app.jobs_widgets import LINE, clock, seconds_taken
from app.session import language
from app.widgets import link_to
from core.i18n import translate
from core.jobs.files import downsampled
from core.training_runs import Points, RunReport, Sample, Worse

#: series of the first section in this order; whatever else a run logs is on its job's page
OPTIMISED = (
    *("objective/scores", "objective/rlhf_reward", "reward", "rewards/mean", "train/loss", "loss", "eval/loss"),
    *("parts/chain", "parts/emergency", "parts/teacher", "parts/risk_penalty"),
)
RULE = "#d0453f"


def not_recorded(what: str) -> None:
    """One grey line: this run wrote nothing about `what` (a key of run.toml)."""
    st.caption(f":material/block: {t('run.not_recorded', what=t(f'run.{what}'))}")


def chart(title: str, points: Points, *, rule: float | None = None, rule_name: str = "") -> None:
    """A line over steps; `rule` draws a dashed level such as a budget."""
    values = [{"x": x, "y": y} for x, y in downsampled(points)]
    x = {"field": "x", "type": "quantitative", "title": None, "axis": {"tickMinStep": 1}}
    y = {"field": "y", "type": "quantitative", "title": None, "scale": {"zero": False}}
    tooltip = [{"field": "x", "title": t("jobs.step")}, {"field": "y", "title": title, "format": ".4g"}]
    layers: list[dict[str, Any]] = [
        {
            "data": {"values": values},
            "mark": {"type": "line", "color": LINE, "point": {"color": LINE} if len(values) < 20 else False},
            "encoding": {"x": x, "y": y, "tooltip": tooltip},
        }
    ]
    if rule is not None:
        level = {"mark": {"type": "rule", "color": RULE, "strokeDash": [5, 4]}, "data": {"values": [{"y": rule}]}}
        layers.append({**level, "encoding": {"y": {"field": "y", "type": "quantitative"}, "tooltip": {"value": f"{rule_name} {rule:g}"}}})
    st.caption(f"{title} **{points[-1][1]:.4g}**")
    st.vega_lite_chart({"height": 150, "layer": layers}, width="stretch", alt=title)


def charts(report: RunReport, names: tuple[str, ...]) -> int:
    """Small charts of the series that the run has; returns how many there were."""
    found = [name for name in names if report.metrics.get(name)]
    for start in range(0, len(found), 3):
        for column, name in zip(st.columns(3), found[start : start + 3], strict=False):
            with column:
                chart(_series_name(name), report.metrics[name])
    return len(found)


def show_optimised(report: RunReport) -> None:
    """What did it optimise?"""
    st.subheader(t("run.optimised"), anchor=False)
    w = report.weights
    if report.has_reward and w is not None:
        formula = f"R = {w.chain:g}·{t('run.chain')} + {w.emergency:g}·{t('run.emergency')} + {w.teacher:g}·{t('run.teacher')}"
        st.markdown(f"**{formula} − {w.risk_penalty:g}·{t('run.risk_penalty')}**")
        link_to("reward", t("run.reward_version", version=w.version), icon=":material/balance:")
    elif report.has_reward:
        st.caption(t("run.reward_version", version=report.reward_version)) if report.reward_version else not_recorded("reward_config")
    else:
        st.markdown(t("run.preference_loss" if report.job.kind == "preferences" else "run.likelihood"))
    if not charts(report, OPTIMISED):
        not_recorded("curves")


def show_drift(report: RunReport) -> None:
    """How far did it drift?"""
    st.subheader(t("run.drifted"), anchor=False)
    drift = report.drift
    if drift is None:
        st.caption(t("run.no_reference")) if not report.has_reward else not_recorded("kl")
        return
    columns = st.columns(4)
    budget = f" / {drift.target:g}" if drift.target else ""
    columns[0].metric(t("run.kl_last"), "–" if drift.last is None else f"{drift.last:.2f}{budget}", help=t("run.kl_help"))
    columns[1].metric(t("run.kl_highest"), "–" if drift.highest is None else f"{drift.highest:.2f}")
    columns[2].metric(t("run.kl_coef"), f"{drift.coefficient[-1][1]:.4f}" if drift.coefficient else "–")
    stopped = "–" if drift.num_stopped_early is None else f"{drift.num_stopped_early} / {drift.num_rollouts}"
    columns[3].metric(t("run.stopped_early"), stopped, help=t("run.stopped_help"))
    if drift.target and drift.highest is not None and drift.highest > drift.target:
        st.warning(t("run.over_budget", highest=f"{drift.highest:.2f}", target=f"{drift.target:g}"), icon=":material/warning:")
    left, right = st.columns(2)
    with left:
        chart(t("run.kl_chart"), drift.kl, rule=drift.target, rule_name=t("run.budget"))
    if drift.coefficient:
        with right:
            chart(t("run.kl_coef"), drift.coefficient)
    if not drift.first_samples:
        not_recorded("samples")
        return
    with st.expander(t("run.samples_title"), icon=":material/compare:"):
        if not drift.last_samples:
            st.caption(t("run.one_table"))
        before, after = st.columns(2)
        with before:
            show_samples(t("run.before", rollout=drift.first_samples[0].rollout), drift.first_samples)
        if drift.last_samples:
            with after:
                show_samples(t("run.after", rollout=drift.last_samples[0].rollout), drift.last_samples)


def show_samples(title: str, samples: tuple[Sample, ...]) -> None:
    """Completions to read, each with its score."""
    st.markdown(f"**{title}**")
    for sample in samples:
        with st.container(border=True):
            score = "–" if sample.score is None else f"{sample.score:.3f}"
            kl = "" if sample.kl is None else f" · KL {sample.kl:.1f}"
            st.caption(t("run.score", score=score) + kl)
            st.text(sample.prompt)
            st.text(sample.completion)


def show_teacher(report: RunReport) -> None:
    """What did the teacher cost, and what did the whole run cost against its estimate?"""
    st.subheader(t("run.cost"), anchor=False)
    use = report.teacher
    if use is None and report.has_reward:
        not_recorded("usage")
    elif use is None:
        st.caption(t("run.no_teacher"))
    else:
        columns = st.columns(4)
        columns[0].metric(t("run.asked"), f"{use.num_asked:,}", help=t("run.tokens", num=f"{use.prompt_tokens + use.completion_tokens:,}"))
        columns[1].metric(t("run.cached"), f"{use.num_cached:,}")
        columns[2].metric(t("run.unscored"), f"{use.num_unscored:,}")
        columns[3].metric(t("run.usd"), t("run.unknown_price") if use.usd is None else f"${use.usd:,.4f}")
        for stretch in use.rules_only:
            reason = _reason(stretch.reason)
            st.warning(t("run.rules_only", first=stretch.first, last=stretch.last, reason=reason), icon=":material/cloud_off:")
    if report.unscored:
        st.caption(t("run.unscored_reasons") + " " + " · ".join(f"{_reason(k)} {n}" for k, n in report.unscored.items()))
    show_estimate(report)


def show_estimate(report: RunReport) -> None:
    """Estimate and actual, side by side."""
    estimate, actual = report.estimate, report.actuals
    if estimate is None and actual is None:
        not_recorded("estimate")
        return
    e, a = estimate or {}, actual or {}
    took = a.get("seconds") or (seconds_taken(report.job) if not report.is_alive else None)
    rows: list[tuple[str, Any, Any]] = [
        ("time", clock(e["seconds"]) if e.get("seconds") else None, clock(took) if took else None),
        ("samples", _count(e.get("num_samples")), _count(a.get("num_samples"))),
        ("generated", _count((e.get("tokens") or {}).get("generated")), _count((a.get("tokens") or {}).get("generated"))),
        ("trained", _count((e.get("tokens") or {}).get("trained")), _count((a.get("tokens") or {}).get("trained"))),
        ("calls", _count((e.get("teacher") or {}).get("num_calls")), _count((a.get("teacher") or {}).get("num_calls"))),
        ("usd", _usd((e.get("teacher") or {}).get("usd")), _usd((a.get("teacher") or {}).get("usd"))),
        ("memory", memory_text((e.get("memory") or {}).get("peak")), memory_text((a.get("memory") or {}).get("peak"))),
    ]
    heads = (t("run.col_what"), t("run.col_estimate"), t("run.col_actual"))
    st.dataframe(
        [dict(zip(heads, (t(f"run.row_{what}"), x or "–", y or "–"), strict=True)) for what, x, y in rows], hide_index=True, width="stretch"
    )
    if e.get("calibration", {}).get("num_runs"):
        st.caption(t("run.calibrated", num=e["calibration"]["num_runs"]))


def show_worse(report: RunReport) -> None:
    """What got worse?"""
    st.subheader(t("run.worse"), anchor=False)
    if report.worse is None:
        st.info(t("run.not_evaluated"), icon=":material/monitoring:")
    else:
        show_regressions(report.worse)
    if report.has_reward:
        show_hack(report.hack)


def show_regressions(worse: Worse) -> None:
    """Lost answers with both texts, then slices that went down."""
    link_to("evaluations", t("run.evaluation", id=worse.evaluation_id, baseline=worse.baseline), evaluation=str(worse.evaluation_id))
    lost = len(worse.comparison["emergency_regressions"])
    unsafe = len(worse.comparison["safety_regressions"])
    (st.error if lost or unsafe else st.success)(t("run.lost", emergency=lost, safety=unsafe, all=worse.num_regressions))
    for change, answer in worse.regressions:
        marks = ", ".join(t(f"run.outcome_{name}") for name in change["outcomes"])
        with st.expander(f"{answer.question[:120]} — {marks}"):
            left, right = st.columns(2)
            for column, name, text in ((left, worse.baseline, answer.baseline), (right, worse.comparison["candidate"], answer.candidate)):
                column.markdown(f"**{name}**")
                column.text(text or t("run.answer_gone"))
    if worse.slices_down:
        heads = (t("run.col_slice"), "n", t("run.col_difference"), "95 %", "p (Holm)")
        rows = [
            (f"{s['by']} = {s['value']}", s["n"], f"{s['difference']:+.3f}", _interval(s["ci_low"], s["ci_high"]), _p(s["p_holm"]))
            for s in worse.slices_down[:12]
        ]
        st.caption(t("run.slices_down"))
        st.dataframe([dict(zip(heads, row, strict=True)) for row in rows], hide_index=True, width="stretch")


def show_hack(hack: dict[str, Any] | None) -> None:
    """Flags of the watch over the reward, and the best-paid hundredth to read."""
    if hack is None:
        not_recorded("hack")
        return
    flags = hack.get("flags") or []
    for flag in flags:
        numbers = {**(flag.get("numbers") or {}), "value": flag.get("value", 0.0), "threshold": flag.get("threshold", 0.0)}
        key = f"reward.flag_{flag.get('code')}"
        text = translate(key, language(), feature=flag.get("feature", ""), **{k: f"{v:.3g}" for k, v in numbers.items()})
        name = f"{flag.get('code')} ({flag.get('feature')}): {flag.get('value', 0.0):.3g} > {flag.get('threshold', 0.0):.3g}"
        st.warning(name if text == key else text, icon=":material/psychology_alt:")
    if not flags:
        st.caption(t("run.no_flags" if hack.get("is_enough", True) else "run.too_short"))
    top = [reading for reading in hack.get("top") or [] if reading.get("text")]
    if top:
        with st.expander(t("run.top", num=len(top)), icon=":material/menu_book:"):
            for one in top:
                with st.container(border=True):
                    st.caption(t("run.score", score=f"{one.get('reward', 0.0):.3f}") + f" · {t('run.rollout', num=one.get('rollout'))}")
                    st.text(one.get("prompt", ""))
                    st.text(one["text"])


def memory_text(value: float | None) -> str | None:
    """Bytes as people read them."""
    if value is None:
        return None
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def _series_name(name: str) -> str:
    key = f"run.series_{name.replace('/', '_')}"
    shown = translate(key, language())
    return name if shown == key else shown


def _reason(code: str) -> str:
    for area in ("run.reason", "teacher.reason", "scoring.reason"):
        key = f"{area}_{code}"
        if (shown := translate(key, language())) != key:
            return shown
    return code or "–"


def _count(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"


def _usd(value: float | None) -> str | None:
    return None if value is None else f"${value:,.4f}"


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:+.3f} – {high:+.3f}"


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
