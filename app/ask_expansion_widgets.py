"""Which model expands the question: a choice of the Ask page for engineers, for one question or, with a reason, for everybody."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.i18n import t
from app.session import require
from app.widgets import guarded
from core.expansion.expander import choices
from core.search_plans import plan_for, set_plan

#: the choice that leaves it to the search plan; a name can never be this
BY_PLAN = "\0plan"


def expander_box(index: str) -> None:
    """Choose the expander of this question; the search plan's own is the default."""
    by_plan = plan_for(index).expander
    named = {BY_PLAN: t("expansion_export.by_plan", name=by_plan) if by_plan else t("expansion_export.by_plan_none")}
    named[""] = t("expansion_export.by_none")
    options = [BY_PLAN, "", *choices()]
    chosen = st.selectbox(t("expansion_export.by"), options, format_func=lambda name: named.get(name, name), key="ask_expander")
    if chosen in (BY_PLAN, by_plan):
        return
    with st.popover(t("expansion_export.keep_for_all"), icon=":material/group:", type="tertiary"):
        reason = st.text_input(t("expansion_export.keep_reason"), key="ask_expander_reason")
        st.button(
            t("expansion_export.keep"), key="ask_expander_keep", disabled=not reason.strip(), on_click=keep, args=(index, chosen, reason)
        )


def keep(index: str, name: str, reason: str) -> None:
    """Put the choice into the index's search plan; the earlier plan stays in its history."""
    person = require("engineer")
    with guarded():
        set_plan(index, plan_for(index).changed({"expander": name}), reason=reason.strip(), by=person.id)
        st.session_state["ask_expander"] = BY_PLAN
        st.toast(t("expansion_export.kept", index=index, name=name or t("expansion_export.by_none")))


def expander_changes() -> dict[str, Any]:
    """What the choice changes in the search plan."""
    chosen = st.session_state.get("ask_expander", BY_PLAN)
    return {} if chosen == BY_PLAN else {"expander": chosen}
