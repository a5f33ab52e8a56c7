"""Instructions that ask a model for expansions, on the Query expansion page: the versions, what they scored, and which is in use.

A search proposes, a person decides with a reason (`core.expansion.prompts`, audit chain). Drawing only. Used by pages/expansion.py.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.i18n import t
from app.jobs_widgets import kind_name
from app.session import current_user, require
from app.widgets import guarded, link_to, link_to_job
from core.expansion import prompts
from core.expansion.prompts import PromptShown


def show_prompts() -> None:
    """Every version, newest first, the shipped one last."""
    st.caption(t("expansion_training.prompts_intro"))
    may = current_user().role in ("engineer", "admin")
    if may:
        with st.container(horizontal=True):
            link_to("jobs", kind_name("expansion_prompt"), icon=":material/play_circle:", kind="expansion_prompt")
    if said := st.session_state.pop("xp_said", ""):
        st.success(said, icon=":material/check_circle:")
    found = prompts.listing()
    if len(found) == 1:
        st.info(t("expansion_training.prompts_none"), icon=":material/psychology_alt:")
    for one in found:
        show_one(one, may=may, in_use=[p.model for p in found if p.id and p.is_in_force])


def show_one(one: PromptShown, *, may: bool, in_use: list[str]) -> None:
    """One version: its text, its figures, and the button that puts it in force."""
    with st.container(border=True):
        head, badge = st.columns([5, 1.4], vertical_alignment="center")
        made = f" · {one.created_at:%Y-%m-%d %H:%M}" if one.created_at else ""
        name = t("expansion_training.prompt_named", id=one.id, model=one.model) if one.id else t("expansion_training.prompt_shipped")
        head.markdown(f"**{name}**{made}")
        if one.id and one.is_in_force:
            badge.badge(t("expansion_training.prompt_in_use"), icon=":material/check:", color="green")
        if one.scores:
            show_scores(one.scores)
        if one.job_id and may:
            link_to_job(one.job_id, t("expansion_training.job", id=one.job_id))
        with st.expander(t("expansion_training.prompt_text")):
            st.code(one.text, language=None, wrap_lines=True)
        if not one.id:
            st.caption(t("expansion_training.prompt_shipped_use"))
        if may and (not one.id or not one.is_in_force):
            show_choice(one, in_use)


def show_scores(scores: dict[str, Any]) -> None:
    """What it was measured to do on queries that took no part in the search, beside the instruction it would replace."""
    cells = st.columns(4)
    cells[0].metric(t("expansion_training.prompt_before"), f"{scores['before']:.3f}")
    cells[1].metric(t("expansion_training.prompt_after"), f"{scores['after']:.3f}", f"{scores['difference']:+.3f}")
    cells[2].metric(t("expansion_training.prompt_queries"), scores["num_heldout"])
    cells[3].metric(t("expansion_training.prompt_requests"), scores.get("requests", "–"))
    if scores.get("low") is not None:
        low, high = (f"{scores[bound]:+.3f}" for bound in ("low", "high"))
        facts = {"low": low, "high": high, "data": scores.get("data", "–")}
        st.caption(t("expansion_training.prompt_interval", **facts))


def show_choice(one: PromptShown, in_use: list[str]) -> None:
    """Put it in force, with a reason; the shipped one goes back to a model that has another now."""
    names = list(dict.fromkeys(in_use)) if not one.id else []
    if not one.id and not names:
        return
    word = t("expansion_training.prompt_use" if one.id else "expansion_training.prompt_back")
    with st.popover(word, icon=":material/task_alt:" if one.id else ":material/undo:"):
        model = st.selectbox(t("expansion_training.prompt_model"), names, key=f"xp_model_{one.id}") if names else one.model
        reason = st.text_input(t("expansion_training.prompt_reason"), key=f"xp_reason_{one.id}")
        if st.button(word, type="primary", key=f"xp_use_{one.id}", disabled=not reason.strip()):
            with guarded():
                prompts.apply(one.id, by=require("engineer").id, reason=reason, model=model or "")
                st.session_state["xp_said"] = t("expansion_training.prompt_applied", model=model or one.model)
                st.rerun()
