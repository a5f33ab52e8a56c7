"""What screens and routers ask of the queue, each call one short transaction of its own.

Rows come back detached and complete. Whoever starts, stops or schedules is an engineer or an administrator, checked here; None is
the command line.
Called by pages/jobs.py and its widgets, app.api and the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from core import demo
from core.home import current_home
from core.jobs import api, schedules
from core.jobs.kinds import KINDS
from core.jobs.tasks import task_of
from core.models import check_role
from core.records import CancelMode, Role
from db import tables as t
from db.engine import read_session, write_session

RUNNERS = (Role.ENGINEER, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person or the system did to a job. `who` is empty for the system."""

    action: str
    who: str
    at: datetime
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobShown:
    """One job with what its page shows beside files. `who` is empty when the system queued it."""

    job: t.Job
    command: list[str]
    who: str
    events: list[Event]


def newest(*, status: str | None = None, kind: str | None = None, before_id: int | None = None, limit: int = 50) -> list[t.Job]:
    """See `core.jobs.api.page`."""
    with read_session() as session:
        return api.page(session, status=status, kind=kind, before_id=before_id, limit=limit)


def counts() -> dict[str, int]:
    """Number of jobs by status."""
    with read_session() as session:
        return api.counts(session)


def get(job_id: int) -> t.Job:
    """The row alone. Raises NotFound("jobs.no_such_job")."""
    with read_session() as session:
        return api.get(session, job_id)


def chain(job_id: int) -> list[t.Job]:
    """The job with all that comes before and after it, by id."""
    with read_session() as session:
        return api.chain(session, job_id)


def show(job_id: int) -> JobShown:
    """The row, its exact command and who did what to it. Raises NotFound("jobs.no_such_job")."""
    with read_session() as session:
        job = api.get(session, job_id)
        people = {row.id: row.display_name for row in session.scalars(select(t.User))}
        entries = session.scalars(
            select(t.AuditEntry).where(t.AuditEntry.object_type == "job", t.AuditEntry.object_id == str(job_id)).order_by(t.AuditEntry.id)
        )
        events = [Event(e.action, people.get(e.actor_id or 0, ""), e.created_at, e.detail) for e in entries]
    command = list(job.command) or (list(task_of(current_home(), job).argv) if job.kind in KINDS else [])
    return JobShown(job, command, people.get(job.created_by or 0, ""), events)


def start(
    kind: str, config: dict[str, Any], by: int | None, *, after_id: int | None = None, priority: int = 0, dedup_key: str | None = None
) -> int:
    """Queue a job and return its id. Raises as `core.jobs.api.enqueue`."""
    check_role(by, *RUNNERS)
    with write_session() as session:
        return api.enqueue(session, kind, config, created_by=by, after_id=after_id, priority=priority, dedup_key=dedup_key)


def stop(job_id: int, mode: CancelMode, by: int | None) -> t.Job:
    """Cancel a queued job, ask a running one to stop. Raises Conflicting("jobs.already_ended")."""
    check_role(by, *RUNNERS)
    with write_session() as session:
        return api.cancel(session, job_id, mode, by)


def run_again(job_id: int, by: int | None) -> t.Job:
    """Retry from the last checkpoint. Raises as `core.jobs.api.retry`."""
    check_role(by, *RUNNERS)
    with write_session() as session:
        return api.retry(session, job_id, by)


def start_demo(by: int | None) -> list[int]:
    """Queue the demo's chain; its ids, also when it was active already."""
    check_role(by, *RUNNERS)
    with write_session() as session:
        return demo.queue_demo(session, by)


def was_demo_run() -> bool:
    with read_session() as session:
        return demo.was_demo_run(session)


def choices() -> dict[str, list[str]]:
    """Names to choose from in a form, newest first: `versions` (those with weights of our own), those of them that expand queries,
    `datasets`, `expansion_sets`."""
    with read_session() as session:
        ours = select(t.ModelVersion.name).where(t.ModelVersion.kind != "external").order_by(t.ModelVersion.id.desc())
        versions, expanding = (list(session.scalars(query)) for query in (ours, ours.where(t.ModelVersion.task == "expansion")))
        datasets, sets = (list(session.scalars(select(table.name).order_by(table.id.desc()))) for table in (t.Dataset, t.ExpansionSet))
        return {"versions": versions, "expansion_versions": expanding, "datasets": datasets, "expansion_sets": sets}


def list_schedules() -> list[t.Schedule]:
    with read_session() as session:
        return schedules.listed(session)


def put_schedule(name: str, kind: str, config: dict[str, Any], cron: str, timezone: str, by: int | None) -> None:
    """See `core.jobs.schedules.put`."""
    check_role(by, *RUNNERS)
    with write_session() as session:
        schedules.put(session, name, kind, config, cron, timezone=timezone, by=by)


def switch_schedule(schedule_id: int, is_active: bool, by: int | None) -> None:
    """See `core.jobs.schedules.switch`."""
    check_role(by, *RUNNERS)
    with write_session() as session:
        schedules.switch(session, schedule_id, is_active=is_active, by=by)
