"""The reward watch on the Reward page: what each trained version's run was asked, the flags with their answers, what to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app.i18n import t
from app.reward_widgets import interval, percent, table
from app.session import current_user, require
from app.widgets import ai_notice, guarded, link_to_job
from core import hack_reports
from core.hack_reports import FlagShown, Watched


def show_watch() -> None:
    """The newest RL versions: a line each, and one of them in full."""
    runs = hack_reports.newest()
    if not runs:
        st.caption(t("reward.watch_empty"))
        return
    lines = [(one.version, state(one), *summary(one.report)) for one in runs]
    table(("version", "watch", "completions", "reward_rise", "anchor", "anchor_rise"), lines)
    names = [one.version for one in runs]
    chosen = names.index(st.selectbox(t("reward.watch_choose"), names, key="reward_watch_version"))
    show_run(runs[chosen])


def state(one: Watched) -> str:
    """In a word: flagged (open or answered), nothing seen, too short to see, or no report."""
    if one.report is None:
        return t("reward.watch_none")
    if one.flags:
        return t("reward.watch_flagged", num=len(one.flags), open=sum(flag.is_open for flag in one.flags))
    return t("reward.watch_clear" if one.report.get("is_enough", True) else "reward.watch_short")


def summary(report: Mapping[str, Any] | None) -> tuple[object, ...]:
    if report is None:
        return "–", "–", "–", "–"
    rises = [
        interval(dict(zip(("value", "low", "high"), report[k], strict=True)) if report[k] else None) for k in ("reward_rise", "anchor_rise")
    ]
    return report["n"], rises[0], t(f"reward.anchor_{report['anchor']}"), rises[1]


def show_run(one: Watched) -> None:
    """Flags first, each a question with numbers; then the measures and the completions to read."""
    for flag in one.flags:
        show_flag(one.version, flag)
    if one.job_id is not None:
        link_to_job(one.job_id, t("reward.job", id=one.job_id))
    if one.report is None:
        return
    with st.expander(t("reward.measures")):
        st.caption(t("reward.measures_help"))
        rows = [
            (t(f"reward.feature_{m['name']}"), interval({"value": m["correlation"], "low": m["low"], "high": m["high"]}),
             number(m["anchor_correlation"]), number(m["early"]), number(m["late"]))
            for m in one.report["measures"]
        ]  # fmt: skip
        table(("feature", "correlation", "anchor_correlation", "early", "late"), rows)
    with st.expander(t("reward.top", num=len(one.report["top"]))):
        ai_notice()
        for reading in one.report["top"]:
            show_reading(reading)
    if one.report["pairs"]:
        with st.expander(t("reward.pairs", num=len(one.report["pairs"]))):
            ai_notice()
            for better, worse in one.report["pairs"]:
                for place, reading in zip(st.columns(2), (better, worse), strict=True):
                    with place:
                        show_reading(reading)


def show_flag(version: str, flag: FlagShown) -> None:
    """The sentence, the answer if there is one, and the form for a person who may answer."""
    numbers = {name: f"{value:.3g}" for name, value in flag.numbers.items()}
    values = {"value": f"{flag.value:.3g}", "threshold": f"{flag.threshold:g}", "feature": feature_name(flag), **numbers}
    text = t(f"reward.flag_{flag.code}", **values)
    if flag.answer:
        text += f"\n\n{t(f'reward.answer_{flag.answer}')} · {flag.answered_by} · {flag.reason}"
    (st.warning if flag.is_open else st.info)(text, icon=":material/flag:")
    if current_user().role in ("engineer", "admin"):
        with st.popover(t("reward.answer"), width="content"), st.form(f"reward_flag_{version}_{flag.key}", border=False), guarded():
            said = st.radio(t("reward.answer_question"), hack_reports.ANSWERS, format_func=lambda a: t(f"reward.answer_{a}"))
            reason = st.text_area(t("reward.reason"), max_chars=1000)
            if st.form_submit_button(t("reward.answer")):
                hack_reports.answer(require("engineer").id, version, flag.key, answer=said, reason=reason)
                st.session_state["reward_done"] = t("reward.answered")
                st.rerun()


def feature_name(flag: FlagShown) -> str:
    return t(f"reward.anchor_{flag.feature}" if flag.code == "anchor_flat" else f"reward.feature_{flag.feature}")


def show_reading(reading: Mapping[str, Any]) -> None:
    """One completion with its reward; without a kept text, where to find it."""
    expert = "" if reading["expert"] is None else f" · {t('reward.expert')} {percent(reading['expert'])}"
    where = t("reward.reading", rollout=reading["rollout"], sample=reading["sample_id"], tokens=reading["num_tokens"])
    st.caption(f"{where} · **{reading['reward']:+.3f}**{expert}")
    if reading["text"]:
        st.text(f"{reading['prompt']}\n\n{reading['text']}")


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
