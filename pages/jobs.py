"""Jobs: start, watch, stop and resume trainings and everything else that runs in the background. /jobs?job=12 is one job."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import jobs_form_widgets as form
from app import jobs_widgets as draw
from app.i18n import t
from app.session import language, require
from app.widgets import guarded, link_to, page_title
from core import health, training_runs
from core.errors import UserError
from core.i18n import error_text
from core.jobs import views
from core.jobs.kinds import KINDS
from core.records import CancelMode, JobStatus

REFRESH_S = 2


def act(what: str, *arguments: Any) -> None:
    """A button's callback: check the role again, do it, and keep what to say for the next run."""
    try:
        by = require("engineer").id
        if what == "demo":
            st.session_state["jobs_done"] = t("jobs.demo_queued", num=len(views.start_demo(by)))
        elif what == "retry":
            views.run_again(arguments[0], by)
            st.session_state["jobs_done"] = t("jobs.retried")
        else:
            views.stop(arguments[0], CancelMode(what), by)
            st.session_state["jobs_done"] = t("jobs.stop_asked")
    except UserError as error:
        st.session_state["jobs_failed"] = error_text(error, language())


def go(**query: str) -> None:
    """Show the list, one job, or the form filled in from a job."""
    st.query_params.from_dict(query)


def show_list() -> None:
    numbers = views.counts()
    if not sum(numbers.values()):
        st.info(t("jobs.empty"), icon=":material/play_circle:")
    if not views.was_demo_run():
        st.button(t("jobs.run_demo"), key="jobs_demo", type="primary", icon=":material/auto_awesome:", on_click=act, args=("demo",))
    template = st.query_params.get("from", "")
    kind = st.query_params.get("kind", "")
    with st.expander(t("jobs.start"), icon=":material/add:", expanded=bool(template or kind)):
        form.start_form(views.get(int(template)) if template.isdecimal() else None, kind)
    if sum(numbers.values()):
        left, right = st.columns([4, 1], vertical_alignment="bottom")
        status = left.pills(
            t("jobs.status"),
            [s.value for s in JobStatus if numbers[s.value]],
            format_func=lambda s: f"{t(f'common.status_{s}')} {numbers[s]}",
            key="jobs_status",
        )
        kind = right.selectbox(
            t("jobs.kind"), ["", *KINDS], format_func=lambda k: draw.kind_name(k) if k else t("jobs.all_kinds"), key="jobs_filter_kind"
        )
        is_alive = bool(numbers["queued"] + numbers["running"])
        st.fragment(rows, run_every=REFRESH_S if is_alive else None)(status, kind or None, numbers)
    with st.expander(t("jobs.schedules"), icon=":material/event_repeat:"):
        form.schedules_panel()


def rows(status: str | None, kind: str | None, numbers: dict[str, int]) -> None:
    """Fifty rows of the list; runs again every two seconds while a job is alive."""
    with guarded():
        require("engineer")
        if views.counts() != numbers:
            st.rerun()
        before = st.query_params.get("before", "")
        jobs = views.newest(status=status, kind=kind, before_id=int(before) if before.isdecimal() else None)
        if not jobs:
            st.caption(t("jobs.empty_filter"))
            return
        draw.table(jobs)
        with st.container(horizontal=True):
            if before:
                st.button(t("jobs.newest"), key="jobs_newest", icon=":material/first_page:", on_click=go)
            if len(jobs) == 50:
                st.button(t("jobs.older"), key="jobs_older", on_click=go, kwargs={"before": str(jobs[-1].id)})


def show_job(job_id: int) -> None:
    shown = views.show(job_id)
    job = shown.job
    st.button(t("jobs.back"), key="jobs_back", icon=":material/arrow_back:", type="tertiary", on_click=go)
    st.subheader(f"#{job.id} {draw.kind_name(job.kind)} {draw.subject(job)}", anchor=False)
    st.caption(t("jobs.by", who=shown.who) if shown.who else t("jobs.by_system"))
    if training_runs.is_training(job.kind):
        link_to("training_run", t("run.to_run"), icon=":material/query_stats:", job=str(job.id))
    buttons(job)
    st.fragment(live, run_every=REFRESH_S if job.status in draw.ACTIVE else None)(job.id, (job.status, job.attempt, job.cancel_mode))
    with st.expander(t("jobs.tab_details"), icon=":material/terminal:"):
        draw.details(shown)
    with st.expander(t("jobs.tab_history"), icon=":material/history:"):
        draw.history(shown)


def buttons(job: Any) -> None:
    """What can be done with the job now, each stop with a question before it."""
    with st.container(horizontal=True):
        modes = {"running": ("stop_and_save", "stop_now"), "queued": ("stop_now",)}.get(job.status, ())
        for mode in modes:
            word = "cancel" if job.status == "queued" else mode
            with st.popover(t(f"jobs.{word}"), icon=":material/save:" if mode == "stop_and_save" else ":material/stop_circle:"):
                st.write(t(f"jobs.confirm_{word}"))
                st.button(t(f"jobs.yes_{word}"), key=f"jobs_{mode}", type="primary", on_click=act, args=(mode, job.id))
        if job.status in ("failed", "cancelled", "lost"):
            word = "resume" if job.status == "cancelled" and job.started_at else "retry"
            st.button(t(f"jobs.{word}"), key="jobs_retry", type="primary", icon=":material/replay:", on_click=act, args=("retry", job.id))
        if job.kind in KINDS and KINDS[job.kind].is_startable:
            st.button(t("jobs.copy"), key="jobs_copy", icon=":material/content_copy:", on_click=go, kwargs={"from": str(job.id)})


def live(job_id: int, drawn: tuple[str, int, str | None]) -> None:
    """What changes while the job runs; when its state changes, the whole page is drawn anew."""
    with guarded():
        require("engineer")
        job = views.get(job_id)
        if (job.status, job.attempt, job.cancel_mode) != drawn:
            st.rerun()
        draw.state(job)
        metrics, log, result = st.tabs([t("jobs.tab_overview"), t("jobs.tab_log"), t("jobs.tab_result")])
        with metrics:
            draw.charts(job)
        with log:
            draw.log(job)
        with result:
            st.json(job.result) if job.result else st.caption(t("jobs.no_result"))
        draw.chain(views.chain(job_id))


with guarded():
    require("engineer")
    page_title("jobs.title")
    for key, tell in (("jobs_done", st.success), ("jobs_failed", st.error)):
        if said := st.session_state.pop(key, None):
            tell(said)
    if not next(p.is_running for p in health.processes() if p.name == "worker"):
        st.warning(t("jobs.worker_down"), icon=":material/pause_circle:")
    asked = st.query_params.get("job", "")
    show_job(int(asked)) if asked.isdecimal() else show_list()
