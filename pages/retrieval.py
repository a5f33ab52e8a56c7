"""Retrieval: the ladder with intervals, questions side by side, failures, whether to fine-tune, and changes on trial."""

from __future__ import annotations

import streamlit as st

from app import retrieval_trial_widgets as trial_widgets
from app import retrieval_widgets as widgets
from app.i18n import t
from app.session import current_user, require
from app.widgets import choose_in_address, guarded, link_to, link_to_job, page_title
from core import retrieval_reports as reports

ROLES = ("clinician", "product", "engineer")


def choose() -> int | None:
    """Which ladder is open is in the address (?ladder=), so that it can be sent to somebody."""
    rows = reports.listing()
    if not rows:
        st.info(t("retrieval.empty"), icon=":material/stairs:")
        if current_user().role in ("engineer", "admin"):
            link_to("jobs", t("retrieval.start_one"), icon=":material/play_circle:")
        return None
    names = {r.id: f"{r.id} · {r.name} · {r.source} ({r.num_queries}) · {r.created_at:%Y-%m-%d %H:%M}" for r in rows}
    chosen = choose_in_address("ladder", t("retrieval.choose"), names, key="retrieval_chosen")
    row = next(r for r in rows if r.id == chosen)
    if row.job_id and current_user().role in ("engineer", "admin"):
        link_to_job(row.job_id, t("retrieval.job", id=row.job_id))
    return chosen


def show_schedule(chosen: int) -> None:
    """Monthly re-validation and weekly learning of the index, one press."""
    row = next(r for r in reports.listing() if r.id == chosen)
    if not row.index_name or current_user().role not in ("engineer", "admin"):
        return
    times = reports.scheduled(row.index_name)
    for name, at in times:
        st.caption(f":material/schedule: {name} · {at:%Y-%m-%d %H:%M} UTC" if at else name)
    if not times and st.button(t("retrieval.revalidate"), icon=":material/event_repeat:"):
        reports.revalidate_monthly(require("engineer").id, row.index_name, {"name": row.name, "index": row.index_name})
        st.rerun()


def main() -> None:
    require(*ROLES)
    page_title("retrieval.title")
    with guarded():
        chosen = choose()
    names = (["ladder", "questions", "failures", "decision"] if chosen is not None else []) + ["trials"]
    tabs = dict(zip(names, st.tabs([t(f"retrieval.tab_{name}") for name in names]), strict=True))
    if chosen is not None:
        report = reports.open_report(chosen)
        with tabs["ladder"], guarded():
            widgets.show_ladder(report)
            widgets.show_slices(report)
            show_schedule(chosen)
        with tabs["questions"], guarded():
            widgets.show_questions(chosen, report)
        with tabs["failures"], guarded():
            widgets.show_failures(chosen)
        with tabs["decision"], guarded():
            trial_widgets.show_decision(chosen)
    with tabs["trials"], guarded():
        trial_widgets.show_trials()


with guarded():
    main()
