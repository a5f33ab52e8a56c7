"""A training run answers for itself: what it optimised, how far it drifted, what the teacher cost, what got worse. /run?job=6."""

from __future__ import annotations

import streamlit as st

from app import run_widgets as draw
from app.i18n import t
from app.jobs_widgets import clock, kind_name, local, phase_name, seconds_taken, sentence, share_done
from app.session import require
from app.widgets import ai_notice, guarded, link_to, page_title, status_badge, toy_notice
from core import training_runs
from core.training_runs import RunLine, RunReport

ROLES = ("product", "engineer")
REFRESH_S = 4


def choose(lines: list[RunLine], asked: str) -> int:
    """Which run is looked at, also by ?job=."""
    names = {line.job.id: f"#{line.job.id} {kind_name(line.job.kind)} · {line.version or '–'}" for line in lines}
    if asked.isdecimal() and int(asked) not in names:
        names = {int(asked): f"#{asked}", **names}
    ids = list(names)
    index = ids.index(int(asked)) if asked.isdecimal() else 0
    chosen: int = st.selectbox(t("run.choose"), ids, index=index, format_func=lambda i: names[i], key="run_chosen", on_change=on_choose)
    return chosen


def on_choose() -> None:
    """The address follows the choice, so that it can be sent to somebody."""
    st.query_params["job"] = str(st.session_state["run_chosen"])


def show_state(report: RunReport) -> None:
    """Status, times and links; progress and the newest numbers while it runs."""
    job = report.job
    taken = seconds_taken(job)
    with st.container(horizontal=True, vertical_alignment="center"):
        status_badge(job.status)
        said = [local(job.created_at)]
        if taken is not None:
            said.append(t("jobs.elapsed" if job.status == "running" else "jobs.took", time=clock(taken)))
        st.caption(" · ".join(said))
        link_to(
            "jobs", t("run.to_job_alive" if report.is_alive else "run.to_job", id=job.id), icon=":material/play_circle:", job=str(job.id)
        )
        if job.status == "succeeded" and report.version:
            link_to("models", t("run.to_model", name=report.version), icon=":material/deployed_code:", version=report.version)
    if job.status == "queued":
        st.info(t("run.queued"), icon=":material/hourglass_empty:")
    if job.status == "running":
        share, progress = share_done(job), job.progress
        if share is None:
            st.caption(t("jobs.starting"))
        else:
            text = t("jobs.progress", phase=phase_name(progress.get("phase", "")), done=progress["done"], total=progress["total"])
            eta = progress.get("eta_s")
            st.progress(share, f"{text} · {t('jobs.eta', time=clock(eta))}" if eta else text)
        newest = {k: v for k, v in (progress.get("metrics") or {}).items() if k in draw.OPTIMISED or k == "objective/kl"}
        if newest:
            st.caption(" · ".join(f"{name} {value:.4g}" for name, value in newest.items()))
    if job.error.get("code"):
        (st.error if job.status in ("failed", "lost") else st.warning)(sentence(job))


def show(job_id: int, drawn: str) -> None:
    """The whole report; drawn anew while the run is alive, and once more in full when its state changes."""
    with guarded():
        require(*ROLES)
        report = training_runs.open_run(job_id)
        if drawn and report.job.status != drawn:
            st.rerun()
        show_state(report)
        if report.job.started_at is None:
            return
        draw.show_optimised(report)
        draw.show_drift(report)
        draw.show_teacher(report)
        draw.show_worse(report)
        ai_notice()
        if report.is_toy:
            toy_notice()


def main() -> None:
    require(*ROLES)
    page_title("run.title")
    st.caption(t("run.intro"))
    lines = training_runs.listing()
    if not lines:
        st.info(t("run.empty"), icon=":material/query_stats:")
        link_to("jobs", t("run.go_jobs"), icon=":material/play_circle:")
        return
    job_id = choose(lines, st.query_params.get("job", ""))
    now = next((line.job for line in lines if line.job.id == job_id), None)
    is_alive = now is not None and now.status in ("queued", "running")
    st.fragment(show, run_every=REFRESH_S if is_alive else None)(job_id, now.status if now else "")


with guarded():
    main()
