"""Jobs that start again by the calendar (`cron`, five fields, in a time zone).

Two workers fire a due time once: `next_at` is advanced by compare-and-set in the transaction that queues the job. Missed
times are not made up: after a stop, a suspend or a clock set forward it fires once. A clock set back by more than one period
moves `next_at` back with it; by less, the time that had fired stays fired.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core import audit
from core.errors import NotFound, Unavailable, UserError
from core.jobs import api
from core.jobs.forms import validated
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

log = logging.getLogger("consilium.schedules")


def following(cron: str, timezone: str, after: datetime) -> datetime:
    """The first time after `after` (aware) that `cron` names in `timezone`, in UTC. Raises UserError for a bad expression."""
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise UserError("jobs.bad_timezone", timezone=timezone) from error
    if len(cron.split()) != 5 or not croniter.is_valid(cron):
        raise UserError("jobs.bad_cron", cron=cron)
    found: datetime = croniter(cron, after.astimezone(zone)).get_next(datetime)
    return found.astimezone(UTC)


def put(
    session: Session,
    name: str,
    kind: str,
    config: dict[str, Any],
    cron: str,
    *,
    timezone: str = "UTC",
    is_active: bool = True,
    by: int | None = None,
) -> t.Schedule:
    """Create the schedule `name` or replace it. Raises UserError for a bad name, config, expression or zone."""
    if not name.strip():
        raise UserError("jobs.bad_missing", field="name", limit="", reason="")
    values: dict[str, Any] = {
        "kind": kind,
        "config": validated(kind, config).model_dump(mode="json"),
        "cron": cron,
        "timezone": timezone,
        "is_active": is_active,
        "next_at": following(cron, timezone, utc_now()),
    }
    row = session.scalar(select(t.Schedule).where(t.Schedule.name == name.strip()))
    if row is None:
        row = t.Schedule(name=name.strip(), created_by=by, **values)
        session.add(row)
    for field, value in values.items():
        setattr(row, field, value)
    session.flush()
    audit.record(session, "schedule_job", "schedule", row.id, actor_id=by, detail={"name": row.name, "kind": kind, "cron": cron})
    return row


def listed(session: Session) -> list[t.Schedule]:
    """All schedules by name."""
    return list(session.scalars(select(t.Schedule).order_by(t.Schedule.name)))


def switch(session: Session, schedule_id: int, *, is_active: bool, by: int | None) -> None:
    """Pause or resume; a resumed one waits for its next time. Raises NotFound("jobs.no_such_schedule")."""
    row = session.get(t.Schedule, schedule_id)
    if row is None:
        raise NotFound("jobs.no_such_schedule", id=schedule_id)
    row.is_active = is_active
    row.next_at = following(row.cron, row.timezone, utc_now())
    audit.record(session, "resume_schedule" if is_active else "pause_schedule", "schedule", row.id, actor_id=by, detail={"name": row.name})


def fire_due(now: datetime) -> list[tuple[str, int]]:
    """Queue what is due at `now`; returns (schedule, job id). One whose last job still waits or runs is not queued twice."""
    with read_session() as session:
        rows = listed(session)
    fired = []
    for row in rows:
        if not row.is_active:
            continue
        upcoming = following(row.cron, row.timezone, now)
        is_due = row.next_at is not None and row.next_at <= now
        was_set_back = row.next_at is not None and row.next_at > following(row.cron, row.timezone, upcoming)
        if not is_due and not was_set_back and row.next_at is not None:
            continue
        try:
            job_id = _fire(row, upcoming, is_due=is_due)
        except Unavailable:
            raise
        except UserError as error:  # its kind or a config field went away with an update of the program
            log.warning("schedule %s is paused: %s", row.name, error)
            with write_session() as session:
                switch(session, row.id, is_active=False, by=None)
            continue
        if job_id is not None:
            fired.append((row.name, job_id))
    return fired


def _fire(row: t.Schedule, upcoming: datetime, *, is_due: bool) -> int | None:
    with write_session() as session:
        advanced = session.scalar(
            update(t.Schedule)
            .where(t.Schedule.id == row.id, t.Schedule.next_at == row.next_at, t.Schedule.is_active)
            .values(next_at=upcoming)
            .returning(t.Schedule.id)
        )
        if advanced is None or not is_due:
            return None
        job_id = api.enqueue(session, row.kind, row.config, created_by=row.created_by, dedup_key=f"schedule:{row.name}", title=row.name)
        session.execute(update(t.Schedule).where(t.Schedule.id == row.id).values(last_job_id=job_id))
        return job_id
