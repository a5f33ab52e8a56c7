"""Query expansion: the trainings and what came of them, one evaluation in figures, two expanders side by side, and the
instructions that were found."""

from __future__ import annotations

import streamlit as st

from app import expansion_run_widgets as widgets
from app.expansion_prompt_widgets import show_prompts
from app.i18n import t
from app.session import require
from app.widgets import ai_notice, guarded, page_title
from core.expansion import runs

ROLES = ("product", "engineer")
TABS = ("runs", "evaluation", "compare", "prompts")


def main() -> None:
    require(*ROLES)
    page_title("expansion_training.title")
    st.caption(t("expansion_training.intro"))
    tabs = dict(zip(TABS, st.tabs([t(f"expansion_training.tab_{name}") for name in TABS]), strict=True))
    with tabs["runs"], guarded():
        widgets.show_runs()
    with tabs["evaluation"], guarded():
        chosen = widgets.choose()
        report = runs.open_report(chosen) if chosen is not None else None
        if report is not None:
            widgets.show_report(report)
    with tabs["compare"], guarded():
        if report is None:
            st.info(t("expansion_training.no_evaluations"), icon=":material/compare:")
        else:
            st.caption(f"{report['name']} · {report['source']}")
            widgets.show_comparison(report)
            ai_notice()
    with tabs["prompts"], guarded():
        show_prompts()


with guarded():
    main()
