"""Which model expands the question: a choice of the Ask page for engineers."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.i18n import t
from core.expansion.expander import choices
from core.search_plans import plan_for

#: the choice that leaves it to the search plan; a name can never be this
BY_PLAN = "\0plan"


def expander_box(index: str) -> None:
    """Choose the expander of this question; the search plan's own is the default."""
    by_plan = plan_for(index).expander
    named = {BY_PLAN: t("expansion_export.by_plan", name=by_plan) if by_plan else t("expansion_export.by_plan_none")}
    named[""] = t("expansion_export.by_none")
    st.selectbox(t("expansion_export.by"), [BY_PLAN, "", *choices()], format_func=lambda name: named.get(name, name), key="ask_expander")


def expander_changes() -> dict[str, Any]:
    """What the choice changes in the search plan."""
    chosen = st.session_state.get("ask_expander", BY_PLAN)
    return {} if chosen == BY_PLAN else {"expander": chosen}
