"""Home: what needs me now, by role. It refreshes itself only while something is going on."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.release_widgets import proposal_notice
from app.session import language, require
from app.teacher_widgets import alarm_notice
from app.widgets import ago, duration, guarded, link_to, link_to_job, page_title, status_badge
from core import health
from core.accounts import Person
from core.jobs import views
from core.jobs.kinds import KINDS
from core.overview import DemoState, JobLine, Overview, overview

ENGINEERS = ("engineer", "admin")
PRODUCT = ("product", "engineer", "admin")


def job_name(job: JobLine) -> str:
    kind = KINDS.get(job.kind)
    name = (kind.zh if language() == "zh" else kind.en) if kind else job.kind
    return f"{name} · {job.title}" if job.title else name


def show_demo(person: Person, demo: DemoState) -> None:
    with st.container(border=True):
        st.subheader(t("home.demo_title"), anchor=False)
        if demo.failed_id is not None:
            is_engineer = person.role in ENGINEERS
            st.warning(t("home.demo_failed", id=demo.failed_id) if is_engineer else t("home.demo_failed_other"))
            if is_engineer:
                link_to_job(demo.failed_id, t("home.go_jobs"))
            return
        st.progress(demo.num_done / demo.num_jobs, t("home.demo_progress", done=demo.num_done, total=demo.num_jobs))
        if demo.first_cases_s is None:
            st.caption(t("home.demo_rest", rest=duration(demo.rest_s)))
        else:
            st.caption(t("home.demo_first_cases", time=duration(demo.first_cases_s), rest=duration(demo.rest_s)))


def show_numbers(person: Person, seen: Overview) -> None:
    numbers: list[tuple[str, str | int, str, str]] = []
    if person.role in ("clinician", "admin"):
        numbers.append(("home.open_cases", seen.num_open_cases, "case_desk", "home.go_desk"))
        numbers.append(("home.signed_today", seen.num_signed_today, "", ""))
    if person.role in PRODUCT:
        numbers.append(("home.serving", seen.serving or t("home.none_serving"), "models", "home.go_models"))
        numbers.append(("home.safety_cases", seen.num_open_safety_cases, "bench", "home.go_bench"))
    if person.role in ENGINEERS:
        numbers.append(("home.running_jobs", len(seen.running), "jobs", "home.go_jobs"))
    for column, (label, value, page, link) in zip(st.columns(len(numbers)), numbers, strict=True):
        with column, st.container(border=True, height="stretch"):
            st.metric(t(label), value)
            if page:
                link_to(page, t(link))


def show_jobs(seen: Overview) -> None:
    st.subheader(t("home.jobs_title"), anchor=False)
    for job in seen.running:
        left = f" · {t('home.left', time=duration(job.eta_s))}" if job.eta_s is not None else ""
        link_to_job(job.id, f"{job_name(job)} · {t('common.job_number', id=job.id)}")
        st.progress(job.share or 0.0, f"{job.phase}{left}")
    if seen.num_queued:
        st.caption(f"{t('home.queued_jobs')}: {seen.num_queued}")
    for job in seen.failed:
        with st.container(horizontal=True, vertical_alignment="center"):
            status_badge(job.status)
            link_to_job(job.id, f"{job_name(job)} · {t('common.job_number', id=job.id)}")
            st.caption(ago(job.at))
    if not (seen.running or seen.num_queued or seen.failed):
        st.caption(t("home.all_quiet"))


def show_evaluation(seen: Overview) -> None:
    st.subheader(t("home.latest_evaluation"), anchor=False)
    found = seen.comparison
    if seen.evaluation is None or seen.evaluation_at is None:
        st.caption(t("home.no_evaluation"))
        return
    link_to("evaluations", f"{seen.evaluation} · {ago(seen.evaluation_at)}")
    if found is None or found["difference"] is None:
        st.caption(t("home.not_scored"))
        return
    label = t("home.difference", candidate=found["candidate"], baseline=seen.baseline)
    st.metric(label, f"{found['difference']:+.3f}")
    low, high = (f"{v:+.3f}" if v is not None else "-" for v in (found["ci_low"], found["ci_high"]))
    st.caption(t("home.mean_reward", low=low, high=high, n=found["n"]))
    if found["emergency_regressions"]:
        st.error(t("home.regressions", num=len(found["emergency_regressions"])))


def on_demo() -> None:
    with guarded():
        views.start_demo(require("engineer").id)


def show(person: Person) -> None:
    seen = overview(person)
    if seen.is_empty:
        is_engineer = person.role in ENGINEERS
        st.info(f"**{t('home.empty_title')}**\n\n{t('home.empty_engineer' if is_engineer else 'home.empty_other')}")
        if is_engineer:
            with st.container(horizontal=True):
                st.button(t("home.start_demo"), on_click=on_demo, type="primary", key="home_start_demo")
                link_to("data", t("home.go_data"), icon=":material/upload_file:")
        return
    if person.role in ENGINEERS and (seen.running or seen.num_queued) and not health.worker_runs():
        st.error(t("home.worker_down"))
    if person.role in PRODUCT:
        proposal_notice()
        alarm_notice()
    if seen.demo is not None:
        show_demo(person, seen.demo)
    if seen.my_claims:
        st.warning(t("home.my_claims", num=len(seen.my_claims)))
    show_numbers(person, seen)
    left, right = st.columns(2, gap="large")
    if person.role in ENGINEERS:
        with left:
            show_jobs(seen)
    if person.role in PRODUCT:
        with right if person.role in ENGINEERS else left:
            show_evaluation(seen)


with guarded():
    me = require("clinician", "product", "engineer")
    page_title("common.page_home")
    st.caption(t("home.greeting", name=me.display_name))
    is_busy = overview(me).is_busy

    @st.fragment(run_every=3.0 if is_busy else None)
    def live() -> None:
        with guarded():
            show(require("clinician", "product", "engineer"))

    live()
