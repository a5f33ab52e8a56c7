"""The job queue as everyone but the worker sees it: put in, look, cancel, run again.

Every function works inside the caller's transaction, so that a job and the thing it belongs to are stored together or not
at all. The row is the truth; a job's log and metrics are files in its run folder (`core.jobs.files`). A chain is a row whose
`after_id` names the job before it: it starts when that one has succeeded and fails with a sentence when it ends otherwise.

Called by pages and routers (through `core.jobs.views`), the launcher's first start (`core.demo`) and the worker's schedules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from core import audit
from core.errors import Conflicting, NotFound
from core.jobs.configs import JobConfig
from core.jobs.forms import validated
from core.jobs.kinds import job_kind
from core.records import FINAL_JOB_STATUSES, CancelMode, JobStatus
from db import tables as t
from db.base import utc_now
from db.tables.jobs import ACTIVE

UPSTREAM_FAILED = "jobs.upstream_failed"
ACTIVE_STATUSES = (JobStatus.QUEUED.value, JobStatus.RUNNING.value)


def enqueue(
    session: Session,
    kind: str,
    config: JobConfig | dict[str, Any],
    *,
    created_by: int | None = None,
    priority: int = 0,
    after_id: int | None = None,
    dedup_key: str | None = None,
    run_after: datetime | None = None,
    title: str = "",
) -> int:
    """Put a job in the queue and return its id; with a `dedup_key` that is queued or running already, that job's id.

    Raises NotFound for an unknown kind or `after_id`, UserError("jobs.bad_...") for a config its kind refuses.
    """
    job = job_kind(kind)
    checked = validated(kind, config.model_dump(mode="json") if isinstance(config, JobConfig) else config)
    if after_id is not None:
        get(session, after_id)
    values: dict[str, Any] = {
        "kind": kind,
        "config": checked.model_dump(mode="json"),
        "queue": job.queue,
        "title": title,
        "status": JobStatus.QUEUED.value,
        "priority": priority,
        "dedup_key": dedup_key,
        "after_id": after_id,
        "run_after": run_after,
        "attempt": 1,
        "max_attempts": job.max_attempts,
        "restarts": 0,
        "heartbeat": 0,
        "progress": {},
        "result": {},
        "command": [],
        "launcher": "local",
        "error": {},
        "created_by": created_by,
        "created_at": utc_now(),
    }
    insert = postgresql_insert if session.get_bind().dialect.name == "postgresql" else sqlite_insert
    statement = insert(t.Job).values(**values).on_conflict_do_nothing(index_elements=["dedup_key"], index_where=ACTIVE)
    for _ in range(10):  # the job that holds the key may end between the two statements (PostgreSQL)
        new_id: int | None = session.scalar(statement.returning(t.Job.id))
        if new_id is not None:
            audit.record(session, "start_job", "job", new_id, actor_id=created_by, detail={"kind": kind, "config": values["config"]})
            return new_id
        holder = active_with_key(session, str(dedup_key))
        if holder is not None:
            return holder
    raise RuntimeError(f"dedup key {dedup_key!r} is neither free nor held")


def active_with_key(session: Session, dedup_key: str) -> int | None:
    """The id of the queued or running job that holds `dedup_key`."""
    return session.scalar(select(t.Job.id).where(t.Job.dedup_key == dedup_key, t.Job.status.in_(ACTIVE_STATUSES)))


def get(session: Session, job_id: int) -> t.Job:
    """The row as it is now. Raises NotFound("jobs.no_such_job")."""
    row = session.get(t.Job, job_id, populate_existing=True)
    if row is None:
        raise NotFound("jobs.no_such_job", id=job_id)
    return row


def page(
    session: Session,
    *,
    status: str | Sequence[str] | None = None,
    kind: str | None = None,
    before_id: int | None = None,
    limit: int = 50,
) -> list[t.Job]:
    """Newest first; the next page is asked for with `before_id` = the last id of this one (keyset, no offset)."""
    query = select(t.Job).order_by(t.Job.id.desc()).limit(limit)
    if status:
        query = query.where(t.Job.status.in_([status] if isinstance(status, str) else list(status)))
    if kind:
        query = query.where(t.Job.kind == kind)
    if before_id is not None:
        query = query.where(t.Job.id < before_id)
    return list(session.scalars(query))


def counts(session: Session) -> dict[str, int]:
    """Number of jobs by status; every status has an entry."""
    found = {row[0]: row[1] for row in session.execute(select(t.Job.status, func.count()).group_by(t.Job.status))}
    return {status.value: int(found.get(status.value, 0)) for status in JobStatus}


def chain(session: Session, job_id: int) -> list[t.Job]:
    """The job with everything before it and everything after those, by id."""
    root = get(session, job_id)
    while root.after_id is not None:
        root = get(session, root.after_id)
    members, level = [root], [root.id]
    while level:
        found = list(session.scalars(select(t.Job).where(t.Job.after_id.in_(level)).order_by(t.Job.id)))
        members += found
        level = [row.id for row in found]
    return sorted(members, key=lambda row: row.id)


def cancel(session: Session, job_id: int, mode: CancelMode, by: int | None) -> t.Job:
    """A queued job is cancelled at once; a running one is asked to stop, and its worker sees to it within a second.

    "Stop now" may follow "stop and save", never the other way round. Raises Conflicting("jobs.already_ended").
    """
    job = get(session, job_id)
    now = utc_now()
    # A queued row that still names a worker was taken from a dead one: its process may be alive, so a worker must look first.
    direct = session.scalar(
        update(t.Job)
        .where(t.Job.id == job_id, t.Job.status == JobStatus.QUEUED.value, t.Job.worker.is_(None))
        .values(status=JobStatus.CANCELLED.value, cancel_mode=mode.value, cancelled_by=by, finished_at=now)
        .returning(t.Job.id)
    )
    if direct is None:
        asked = session.scalar(
            update(t.Job)
            .where(t.Job.id == job_id, t.Job.status.in_(ACTIVE_STATUSES))
            .values(cancel_mode=CancelMode.STOP_NOW.value if job.cancel_mode == CancelMode.STOP_NOW.value else mode.value, cancelled_by=by)
            .returning(t.Job.id)
        )
        if asked is None:
            raise Conflicting("jobs.already_ended", id=job_id)
    else:
        fail_followers(session, job_id)
    audit.record(session, "cancel_job", "job", job_id, actor_id=by, detail={"mode": mode.value})
    return get(session, job_id)


def retry(session: Session, job_id: int, by: int | None) -> t.Job:
    """Run an ended job again: same row and run folder, next attempt, from its last checkpoint; waiting followers wait again.

    Raises Conflicting("jobs.cannot_retry" / "jobs.upstream_first" / "jobs.already_active").
    """
    job = get(session, job_id)
    if job.status not in FINAL_JOB_STATUSES or job.status == JobStatus.SUCCEEDED:
        raise Conflicting("jobs.cannot_retry", id=job_id)
    if job.after_id is not None:
        upstream = get(session, job.after_id)
        if upstream.status in FINAL_JOB_STATUSES and upstream.status != JobStatus.SUCCEEDED:
            raise Conflicting("jobs.upstream_first", id=job_id, upstream=upstream.id)
    if not _requeue(session, job):
        raise Conflicting("jobs.already_active", id=active_with_key(session, str(job.dedup_key)))
    _revive_followers(session, [job_id])
    audit.record(session, "retry_job", "job", job_id, actor_id=by, detail={"attempt": job.attempt})
    return get(session, job_id)


def fail_followers(session: Session, job_id: int) -> None:
    """Everything queued behind a job that did not succeed fails with the sentence "the job before this one ..."."""
    level = [job_id]
    while level:
        upstream = level.pop()
        level += session.scalars(
            update(t.Job)
            .where(t.Job.after_id == upstream, t.Job.status == JobStatus.QUEUED.value)
            .values(status=JobStatus.FAILED.value, error={"code": UPSTREAM_FAILED, "params": {"id": upstream}}, finished_at=utc_now())
            .returning(t.Job.id)
        )


def _requeue(session: Session, job: t.Job) -> bool:
    """Back into the queue as its next attempt. False when another active job holds its dedup key, or it has not ended."""
    if job.dedup_key is not None and active_with_key(session, job.dedup_key) is not None:
        return False
    attempt = job.attempt + 1 if job.started_at is not None else job.attempt
    done = session.scalar(
        update(t.Job)
        .where(t.Job.id == job.id, t.Job.status == job.status, t.Job.attempt == job.attempt)
        .values(
            status=JobStatus.QUEUED.value,
            attempt=attempt,
            max_attempts=attempt + job_kind(job.kind).max_attempts - 1,
            restarts=0,
            worker=None,
            lease_token=None,
            slot=None,
            run_after=None,
            cancel_mode=None,
            cancelled_by=None,
            exit_code=None,
            error={},
            finished_at=None,
        )
        .returning(t.Job.id)
    )
    return done is not None


def _revive_followers(session: Session, level: Iterable[int]) -> None:
    pending = list(level)
    while pending:
        rows = session.scalars(select(t.Job).where(t.Job.after_id == pending.pop(), t.Job.status == JobStatus.FAILED.value))
        pending += [row.id for row in rows if row.error.get("code") == UPSTREAM_FAILED and _requeue(session, row)]
