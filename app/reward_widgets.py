"""Pieces of the Reward page: the formula, tables of numbers with intervals, changed cases, the decision dialog, the propose form.

What is pressed here is checked again by core.reward_configs; the forms only show what it would say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from app.i18n import t
from app.session import current_user, require
from app.signing_widgets import ask_proof
from app.widgets import guarded, link_to_job
from core import reward_configs, reward_preview
from core.calibration import MIN_CASES
from core.jobs import views as jobs
from core.records import RewardConfig
from core.reward_configs import ConfigShown
from core.reward_limits import WEIGHTS, weights_of

#: (action, version, version in force as shown) of the open dialog
DIALOG = "reward_dialog"
MAX_SHOWN = 100


def formula(config: RewardConfig) -> str:
    """The reward as one line with its own weights and the parts' names in the person's language."""
    terms = [
        f"**{weight:g}** · {t(f'reward.part_{name}')}"
        for name, weight in (("chain", config.chain), ("emergency", config.emergency), ("teacher", config.teacher))
    ]
    return f"R = {' + '.join(terms)} − **{config.risk_penalty:g}** · {t('reward.part_risk_penalty')}"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under translated headings."""
    heads = [t(f"reward.col_{c}") for c in columns]
    st.dataframe([dict(zip(heads, row, strict=True)) for row in rows], hide_index=True, width="stretch")


def interval(one: Mapping[str, float | None] | None) -> str:
    """A stored estimate as `0.412 [0.380, 0.441]`; a dash when it was not measured."""
    if not one or (value := one.get("value")) is None:
        return "–"
    low, high = one.get("low"), one.get("high")
    return f"{value:.3f}" + ("" if low is None or high is None else f" [{low:.3f}, {high:.3f}]")


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def show_changes(changes: Sequence[Mapping[str, Any]], num: int, questions: Mapping[int, str] | None = None) -> None:
    """Cases on the other side of "fit to send", those that now contradict the expert first."""
    if not num:
        return
    with st.expander(t("reward.changes", num=num, agree=sum(bool(c["agrees_now"]) for c in changes))):
        rows = [
            (
                c["case_id"],
                t(f"desk.ui_verdict_{c['verdict']}"),
                f"{c['before']:.3f} → {c['after']:.3f}",
                t("reward.fit" if c["is_fit_after"] else "reward.unfit"),
                t("reward.agrees" if c["agrees_now"] else "reward.contradicts"),
                (questions or {}).get(c["case_id"], "")[:120],
            )
            for c in changes[:MAX_SHOWN]
        ]
        names = ("case", "verdict", "reward", "side", "expert", "question")
        table(names if questions else names[:-1], rows if questions else [row[:-1] for row in rows])


def propose_form(tried: RewardConfig) -> None:
    """Propose what the sliders show; the reason goes on record."""
    with st.form("reward_propose", border=False), guarded():
        reason = st.text_input(t("reward.reason"), key="reward_propose_reason", max_chars=1000)
        if st.form_submit_button(t("reward.propose"), icon=":material/add_task:"):
            version = reward_configs.propose(require("engineer").id, tried, reason=reason, evidence={"kind": "person"})
            st.session_state["reward_done"] = t("reward.proposed", version=version)
            st.rerun()


def open_decision(action: str, version: str, in_force: str) -> None:
    """Remember which decision is being asked for; `show_decision` draws it until it is made or closed."""
    st.session_state[DIALOG] = (action, version, in_force)


def close_decision() -> None:
    st.session_state.pop(DIALOG, None)


def show_decision() -> None:
    """Draw the open dialog, if there is one."""
    if DIALOG in st.session_state:
        action, version, in_force = st.session_state[DIALOG]
        st.dialog(t(f"reward.{action}_title", version=version), width="medium", on_dismiss=close_decision)(decide)(
            action, version, in_force
        )


def decide(action: str, version: str, in_force: str) -> None:
    """Reason and, for an approval, the signature."""
    with guarded():
        person = require("engineer")
        st.markdown(f"**{in_force} → {version}**" if action == "approve" else f"**{version}**")
        reason = st.text_area(t("reward.reason"), key="reward_reason", max_chars=1000)
        signature, proof = "", None
        if action == "approve":
            st.caption(t("reward.approve_help"))
            signature = st.text_input(t("reward.signature", name=person.display_name), key="reward_signature")
            proof = ask_proof(person, "reward_password")
        if st.button(t(f"reward.{action}"), key="reward_decide", type="primary"):
            if action == "approve":
                reward_configs.approve(person.id, version, reason=reason, signed_name=signature, expected_in_force=in_force, proof=proof)
            else:
                reward_configs.reject(person.id, version, reason=reason)
            close_decision()
            st.session_state["reward_done"] = t(f"reward.done_{action}", version=version)
            st.rerun()


def show_calibration() -> None:
    """How many verdicts there are, how many are missing, and the button."""
    loaded = reward_preview.load()
    missing = loaded.num_missing
    st.markdown(
        t("reward.calibrate_ready" if not missing else "reward.calibrate_missing", num=loaded.num_cases, more=missing, needed=MIN_CASES)
    )
    if current_user().role in ("engineer", "admin"):
        if st.button(t("reward.calibrate"), key="reward_calibrate", disabled=bool(missing), icon=":material/tune:"):
            job_id = jobs.start("calibrate", {}, by=require("engineer").id, dedup_key="calibrate")
            st.session_state["reward_done"] = t("reward.calibrating", id=job_id)
            st.rerun()
        for job in jobs.newest(kind="calibrate", limit=1):
            link_to_job(job.id, t("reward.last_calibration", id=job.id, status=t(f"common.status_{job.status}")))


def show_history(versions: Sequence[ConfigShown]) -> None:
    """Every version with its weights, who proposed and who decided."""
    with st.expander(t("reward.history", num=len(versions))):
        rows = [
            (
                one.config.version,
                t(f"reward.status_{'in_force' if one.is_in_force else one.status}"),
                *(f"{weight:g}" for weight in weights_of(one.config).values()),
                one.proposed_by or t("reward.shipped" if one.job_id is None else "reward.a_job"),
                one.signed_name or one.decided_by or "–",
                one.decision_reason or one.reason,
            )
            for one in versions
        ]
        table(("version", "status", *WEIGHTS, "by", "decided", "reason"), rows)
