"""What the worker does to job rows, each step one conditional UPDATE: claim, beat, finish, run again, take over.

Every change of a running row names its fencing token, so a worker that was believed dead cannot touch a job that another
one drives by now: its update finds no row. All functions run in the caller's (short) write transaction unless they say
"reads". Called by `core.jobs.worker_loop` only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from core.jobs import api
from core.records import JobStatus
from db import tables as t
from db.base import utc_now

#: longest wait before a crashed job runs again; a `run_after` beyond it on a retry means that the clock was set back
MAX_BACKOFF_S = 60.0

QUEUED, RUNNING, SUCCEEDED = JobStatus.QUEUED.value, JobStatus.RUNNING.value, JobStatus.SUCCEEDED.value
ENDED_BADLY = (JobStatus.FAILED.value, JobStatus.CANCELLED.value, JobStatus.LOST.value)


@dataclass(frozen=True, slots=True)
class Heart:
    """A running row as the reaper sees it."""

    job_id: int
    heartbeat: int
    token: str | None
    worker: str | None


#: made once: an alias compiled at every tick would be most of an idle worker's work
_UPSTREAM, _FOLLOWER = aliased(t.Job), aliased(t.Job)


def _is_ready(now: datetime) -> ColumnElement[bool]:
    return and_(
        t.Job.status == QUEUED,
        or_(t.Job.run_after.is_(None), t.Job.run_after <= now, t.Job.cancel_mode.is_not(None)),
        or_(t.Job.after_id.is_(None), exists().where(_UPSTREAM.id == t.Job.after_id, _UPSTREAM.status == SUCCEEDED)),
    )


def open_slots(session: Session, slots: dict[str, list[str]], now: datetime) -> list[tuple[str, str]]:
    """Reads: (queue, slot) pairs that are free while a job of that queue is ready."""
    taken = set(session.scalars(select(t.Job.slot).where(t.Job.status == RUNNING)))
    free = {queue: [slot for slot in names if slot not in taken] for queue, names in slots.items()}
    wanted = [queue for queue, names in free.items() if names]
    if not wanted:
        return []
    ready = set(session.scalars(select(t.Job.queue).where(_is_ready(now), t.Job.queue.in_(wanted)).distinct()))
    return [(queue, slot) for queue in ready for slot in free[queue]]


def claim(session: Session, queue: str, slot: str, worker: str, token: str, now: datetime) -> t.Job | None:
    """The best ready job of `queue`, now running in `slot`, or None. IntegrityError means that somebody else has the slot.

    A row that still names a worker was running when that one died: it goes first, because its process may hold the device.
    """
    best = (
        select(t.Job.id)
        .where(_is_ready(now), t.Job.queue == queue)
        .order_by(t.Job.worker.is_(None), t.Job.priority.desc(), t.Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return session.scalars(
        update(t.Job)
        .where(t.Job.id == best, t.Job.status == QUEUED)
        .values(
            status=RUNNING,
            slot=slot,
            worker=worker,
            lease_token=token,
            heartbeat=t.Job.heartbeat + 1,
            heartbeat_at=now,
            started_at=case((t.Job.worker.is_(None), now), else_=func.coalesce(t.Job.started_at, now)),
            run_after=None,
        )
        .returning(t.Job),
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).one_or_none()


def change(session: Session, job_id: int, token: str, **values: Any) -> t.Job | None:
    """Change a running row that we drive and return it; None when it is no longer ours."""
    return session.scalars(
        update(t.Job).where(t.Job.id == job_id, t.Job.lease_token == token, t.Job.status == RUNNING).values(**values).returning(t.Job),
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).one_or_none()


def beat(session: Session, job_id: int, token: str, progress: dict[str, Any] | None) -> t.Job | None:
    """A sign of life, with the newest progress if there is any. The row says whether a person wants it to stop."""
    values: dict[str, Any] = {"heartbeat": t.Job.heartbeat + 1, "heartbeat_at": utc_now()}
    return change(session, job_id, token, **values, **({} if progress is None else {"progress": progress}))


def finish(session: Session, job_id: int, token: str, status: JobStatus, **values: Any) -> bool:
    """The end of a job; what waits behind one that did not succeed fails with it. False when it is no longer ours."""
    ended = change(session, job_id, token, status=status.value, finished_at=utc_now(), lease_token=None, **values)
    if ended is not None and status != JobStatus.SUCCEEDED:
        api.fail_followers(session, job_id)
    return ended is not None


def again(session: Session, job: t.Job, token: str, *, wait_s: float, **values: Any) -> bool:
    """Back into the queue as its next attempt after `wait_s`. Only when this attempt has an exit file. False as in `finish`."""
    run_after = utc_now() + timedelta(seconds=min(wait_s, MAX_BACKOFF_S))
    fresh: dict[str, Any] = {"slot": None, "worker": None, "lease_token": None}
    return change(session, job.id, token, status=QUEUED, attempt=job.attempt + 1, run_after=run_after, **fresh, **values) is not None


def hearts(session: Session, except_ids: Iterable[int]) -> list[Heart]:
    """Reads: the running rows that others drive."""
    rows = session.execute(
        select(t.Job.id, t.Job.heartbeat, t.Job.lease_token, t.Job.worker).where(t.Job.status == RUNNING, t.Job.id.not_in(list(except_ids)))
    )
    return [Heart(*row) for row in rows]


def take_over(session: Session, heart: Heart, worker: str, token: str) -> t.Job | None:
    """Drive a job whose worker is dead, if its heart has not beaten meanwhile. Slot and attempt stay: its process may live."""
    return session.scalars(
        _unbeaten(heart).values(worker=worker, lease_token=token, heartbeat=t.Job.heartbeat + 1, heartbeat_at=utc_now()).returning(t.Job),
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).one_or_none()


def put_back(session: Session, heart: Heart) -> bool:
    """Same, for a job of another machine: queued again in the same attempt, its old worker's name kept (see `claim`)."""
    done = session.scalar(_unbeaten(heart).values(status=QUEUED, slot=None, lease_token=None).returning(t.Job.id))
    return done is not None


def _unbeaten(heart: Heart) -> Any:
    return update(t.Job).where(
        t.Job.id == heart.job_id,
        t.Job.status == RUNNING,
        t.Job.heartbeat == heart.heartbeat,
        t.Job.lease_token == heart.token if heart.token is not None else t.Job.lease_token.is_(None),
    )


def stuck(session: Session, now: datetime) -> tuple[list[int], list[int]]:
    """Reads: jobs that ended badly with followers still queued, and retries held back by a clock that was set back."""
    ended = select(t.Job.id).where(
        t.Job.status.in_(ENDED_BADLY), exists().where(_FOLLOWER.after_id == t.Job.id, _FOLLOWER.status == QUEUED)
    )
    late = select(t.Job.id).where(t.Job.status == QUEUED, t.Job.attempt > 1, t.Job.run_after > now + timedelta(seconds=2 * MAX_BACKOFF_S))
    return list(session.scalars(ended)), list(session.scalars(late))


def release_late(session: Session, job_ids: list[int]) -> None:
    """Let retries run that `stuck` found."""
    session.execute(update(t.Job).where(t.Job.id.in_(job_ids), t.Job.status == QUEUED).values(run_after=None))
