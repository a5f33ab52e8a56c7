"""How jobs look: the table of the list, and on one job's page its state, charts, log and history.

Everything shown comes from the row (`core.jobs.views`) or from files of the run folder read by offset (`core.jobs.files`);
nothing here changes a job. Used by pages/jobs.py, inside fragments that refresh only while a job is alive.
"""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from app.i18n import t
from app.session import language
from app.widgets import STATUS_COLOURS, job_url, status_badge
from core.errors import UserError
from core.home import current_home
from core.i18n import error_text, translate
from core.jobs import files
from core.jobs.kinds import KINDS
from core.jobs.views import JobShown
from core.settings import ROOT

ACTIVE = ("queued", "running")
LOG_LINES = 200
NUM_CHARTS = 6
LINE = "#2a8ba3"
#: shown first when a job logs more series than fit
FIRST = (
    *("objective/rlhf_reward", "objective/scores", "objective/kl", "train/loss"),
    *("loss/policy_avg", "loss/value_avg", "policy/approxkl_avg", "policy/clipfrac_avg"),
)

_STYLE = """<style>
.jobs{width:100%;border-collapse:collapse;font-size:.95rem}
.jobs th{text-align:left;font-weight:600;opacity:.65;padding:.3rem .6rem}
.jobs td{padding:.35rem .6rem;border-top:1px solid color-mix(in srgb,currentColor 15%,transparent);vertical-align:middle}
.jobs a{color:inherit;text-decoration:none;font-weight:600}.jobs a:hover,.jobs a:focus{text-decoration:underline}
.jobs small{opacity:.65}.jobs .n{white-space:nowrap;font-variant-numeric:tabular-nums}
.jobs .s{border-radius:.4rem;padding:.1rem .5rem;white-space:nowrap;background:color-mix(in srgb,var(--c) 18%,transparent)}
.jobs .s::before{content:"●";color:var(--c);margin-right:.35rem}
.jobs .b{display:inline-block;width:9rem;height:.4rem;border-radius:.2rem;background:color-mix(in srgb,currentColor 15%,transparent)}
.jobs .b i{display:block;height:100%;border-radius:.2rem;background:#1b6b7f}
</style>"""
_COLOURS = {"gray": "#7a868b", "blue": "#2f7fd0", "green": "#2e9e5b", "red": "#d0453f", "orange": "#d98a1f"}


def clock(seconds: float) -> str:
    """A time as h:mm:ss or m:ss, the same in both languages."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def local(at: datetime, form: str = "%Y-%m-%d %H:%M") -> str:
    """A stored time on the viewer's own clock; in UTC, and saying so, when the browser does not tell its zone."""
    try:
        zone = ZoneInfo(st.context.timezone or "")
    except (ValueError, ZoneInfoNotFoundError):
        return f"{at:{form}} UTC"
    return f"{at.astimezone(zone):{form}}"


def kind_name(kind: str) -> str:
    """The kind's title in the person's language; its bare name when the program no longer knows it."""
    known = KINDS.get(kind)
    return kind if known is None else known.zh if language() == "zh" else known.en


def subject(job: Any) -> str:
    """What the job is about: the version, report or index it makes or uses."""
    config = job.config
    return str(config.get("name") or config.get("model") or config.get("dataset") or "")


def seconds_taken(job: Any) -> float | None:
    """How long the newest attempt ran or has been running."""
    if job.started_at is None or job.status == "queued":
        return None
    end: datetime = job.finished_at or datetime.now(job.started_at.tzinfo)
    return float((end - job.started_at).total_seconds())


def sentence(job: Any) -> str:
    """Why it failed, in the person's language; empty when it did not."""
    code = job.error.get("code")
    return error_text(UserError(str(code), **(job.error.get("params") or {})), language()) if code else ""


def phase_name(phase: str) -> str:
    """A training's own word for what it does, translated where we know it."""
    key = f"jobs.phase_{phase}"
    shown = translate(key, language())
    return phase if shown == key else shown


def share_done(job: Any) -> float | None:
    """0 to 1, or None before the first progress."""
    total = job.progress.get("total") or 0
    return min(1.0, job.progress.get("done", 0) / total) if total else None


def table(jobs: list[Any]) -> None:
    """The list as one element with real links, so that fifty rows cost one message per refresh."""
    heads = "".join(f"<th>{escape(t(f'jobs.col_{name}'))}</th>" for name in ("job", "status", "progress", "started", "took"))
    st.html(f'{_STYLE}<table class="jobs"><thead><tr>{heads}</tr></thead><tbody>{"".join(map(_row, jobs))}</tbody></table>')


def _row(job: Any) -> str:
    share, taken = share_done(job), seconds_taken(job)
    note = sentence(job) if job.status in ("failed", "lost") else t("jobs.scheduled_as", name=job.title) if job.title else ""
    note = note if len(note) <= 160 else f"{note[:159]}…"
    bar = f'<span class="b"><i style="width:{share:.0%}"></i></span> {share:.0%}' if share is not None and job.status == "running" else ""
    eta = job.progress.get("eta_s")
    left = f"<small>{escape(t('jobs.eta', time=clock(eta)))}</small>" if bar and eta else ""
    colour = _COLOURS[STATUS_COLOURS.get(job.status, "gray")]
    return (
        f'<tr><td><a href="{job_url(job.id)}">#{job.id} {escape(kind_name(job.kind))}</a> <small>{escape(subject(job))}</small>'
        f"{f'<br><small>{escape(note)}</small>' if note else ''}</td>"
        f'<td><span class="s" style="--c:{colour}">{escape(t(f"common.status_{job.status}"))}</span></td>'
        f'<td class="n">{bar} {left}</td><td class="n">{local(job.created_at)}</td>'
        f'<td class="n">{"" if taken is None else clock(taken)}</td></tr>'
    )


def state(job: Any) -> None:
    """Badge, times, progress bar with ETA, and the sentence when something went wrong."""
    taken = seconds_taken(job)
    with st.container(horizontal=True, vertical_alignment="center"):
        status_badge(job.status)
        said = [t("jobs.attempt", attempt=job.attempt, max=job.max_attempts)]
        if taken is not None:
            said.append(t("jobs.elapsed" if job.status == "running" else "jobs.took", time=clock(taken)))
        if job.restarts:
            said.append(t("jobs.restarts", num=job.restarts))
        st.caption(" · ".join(said))
    if job.status == "queued":
        st.caption(_why_waiting(job))
    if job.status == "running":
        share, progress = share_done(job), job.progress
        if job.cancel_mode:
            st.caption(t("jobs.saving" if job.cancel_mode == "stop_and_save" else "jobs.stopping"))
        if share is None:
            st.caption(t("jobs.starting"))
        else:
            text = t("jobs.progress", phase=phase_name(progress.get("phase", "")), done=progress["done"], total=progress["total"])
            eta = progress.get("eta_s")
            st.progress(share, f"{text} · {t('jobs.eta', time=clock(eta))}" if eta else text)
    if job.error.get("code"):
        (st.error if job.status in ("failed", "lost") else st.warning)(sentence(job))
        if job.error.get("log"):
            with st.expander(t("jobs.error_log")):
                st.code(job.error["log"], language=None)


def _why_waiting(job: Any) -> str:
    if job.attempt > 1 and job.error:
        return t("jobs.waiting_retry", attempt=job.attempt, max=job.max_attempts)
    return t("jobs.waiting_after", id=job.after_id) if job.after_id else t("jobs.waiting_slot")


def charts(job: Any) -> None:
    """One small line chart per metric; which ones can be chosen when there are many."""
    key = f"jobs_metrics_{job.id}"
    metrics: files.Metrics = st.session_state.setdefault(key, files.Metrics(current_home().run_dir(job.id) / "metrics.jsonl"))
    metrics.read()
    names = sorted(metrics.series, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    if not names:
        st.caption(t("jobs.no_metrics"))
        return
    shown = names
    if len(names) > NUM_CHARTS:
        shown = st.multiselect(t("jobs.choose_metrics"), names, default=names[:NUM_CHARTS], key=f"jobs_charts_{job.id}")
    columns = st.columns(3)
    for n, name in enumerate(shown):
        with columns[n % 3]:
            _chart(name, metrics.series[name])


def _chart(name: str, points: list[tuple[float, float]]) -> None:
    spec = {
        "mark": {"type": "line", "point": {"color": LINE} if len(points) < 20 else False, "color": LINE},
        "height": 150,
        "encoding": {
            "x": {"field": "x", "type": "quantitative", "title": None, "axis": {"tickMinStep": 1}},
            "y": {"field": "y", "type": "quantitative", "title": None, "scale": {"zero": False}},
            "tooltip": [{"field": "x", "title": t("jobs.step")}, {"field": "y", "title": name, "format": ".4g"}],
        },
        "data": {"values": [{"x": x, "y": y} for x, y in files.downsampled(points)]},
    }
    st.caption(f"{name} **{points[-1][1]:.4g}**")
    st.vega_lite_chart(spec, width="stretch", alt=name)


def log(job: Any) -> None:
    """The end of log.txt, following it while it grows."""
    path = current_home().run_dir(job.id) / "log.txt"
    tail = files.tail(path, LOG_LINES)
    if not tail.text:
        st.caption(t("jobs.no_log"))
        return
    with st.container(height=420, autoscroll=True):
        st.code(tail.text, language=None)
    size = f"{tail.size / 1024:.0f} kB" if tail.size >= 1024 else f"{tail.size} B"
    st.caption(t("jobs.log_note", num=min(LOG_LINES, tail.text.count("\n") + 1), size=size, path=current_home().relative(path)))


def details(shown: JobShown) -> None:
    """The exact command and config, to be copied."""
    home, job = current_home(), shown.job
    st.markdown(f"**{t('jobs.command')}**")
    st.code(" ".join(shown.command), language=None, wrap_lines=True)
    st.caption(t("jobs.command_note", folder=ROOT, home=home.root, id=job.id))
    st.markdown(f"**{t('jobs.config')}**")
    st.json(job.config)


def history(shown: JobShown) -> None:
    """Who did what, and how it ended."""
    job = shown.job
    lines = []
    for event in shown.events:
        detail = {**event.detail, "mode": t(f"jobs.{event.detail['mode']}")} if "mode" in event.detail else event.detail
        lines.append((event.at, event.who or t("jobs.system"), t(f"jobs.event_{event.action}", **detail)))
    if job.started_at:
        lines.append((job.started_at, t("jobs.system"), t("jobs.started_at", attempt=job.attempt)))
    if job.finished_at:
        code = "–" if job.exit_code is None else job.exit_code
        lines.append((job.finished_at, t("jobs.system"), t("jobs.ended_as", status=t(f"common.status_{job.status}"), code=code)))
    for at, who, what in sorted(lines, key=lambda line: line[0]):
        st.markdown(f"`{local(at, '%Y-%m-%d %H:%M:%S')}` {who}: {what}")


def chain(jobs: list[Any]) -> None:
    """What comes before and after, each with a link."""
    if len(jobs) > 1:
        st.markdown(f"**{t('jobs.chain')}**")
        table(jobs)
