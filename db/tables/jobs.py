"""The job queue and its schedules. The row is the truth; logs and metrics are files in the run folder."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now

RUNNING = text("status = 'running'")
ACTIVE = text("status IN ('queued','running') AND dedup_key IS NOT NULL")


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("status IN ('queued','running','succeeded','failed','cancelled','lost')", name="status"),
        Index("uq_jobs_slot_running", "slot", unique=True, sqlite_where=RUNNING, postgresql_where=RUNNING),
        Index("uq_jobs_dedup_active", "dedup_key", unique=True, sqlite_where=ACTIVE, postgresql_where=ACTIVE),
        Index("ix_jobs_claim", "status", "priority", "id"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    kind: Mapped[short]
    #: the validated config of its kind, as JSON
    config: Mapped[dict[str, Any]]
    #: resource family: gpu (one at a time) or cpu
    queue: Mapped[short]
    title: Mapped[str] = mapped_column(default="")
    status: Mapped[short] = mapped_column(default="queued")
    #: larger runs sooner
    priority: Mapped[int] = mapped_column(default=0)
    #: the slot held while running (gpu:0, cpu:0 ...); unique among running rows
    slot: Mapped[short | None] = mapped_column(default=None)
    dedup_key: Mapped[short | None] = mapped_column(default=None)
    #: runs only after this job has succeeded; fails when that one ends otherwise
    after_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), index=True, default=None)
    run_after: Mapped[datetime | None] = mapped_column(default=None)
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=1)
    #: starts of this attempt that ended without an exit file (supervisor or machine killed); capped
    restarts: Mapped[int] = mapped_column(default=0)
    #: fencing token of the worker that drives it
    lease_token: Mapped[short | None] = mapped_column(default=None)
    #: who drives it; on a queued row: who did, so that its process may still be alive and is looked for first
    worker: Mapped[short | None] = mapped_column(default=None)
    #: grows by one with every heartbeat: a reaper compares it on its own monotonic clock
    heartbeat: Mapped[int] = mapped_column(default=0)
    heartbeat_at: Mapped[datetime | None] = mapped_column(default=None)
    #: stop_now or stop_and_save, set by a person
    cancel_mode: Mapped[short | None] = mapped_column(default=None)
    cancelled_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    #: last known {phase, done, total, eta_s, metrics}; a copy of the run folder's progress.json
    progress: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    result: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    #: exact command of the newest attempt, as a list of arguments
    command: Mapped[list[Any]] = mapped_column(default_factory=list)
    launcher: Mapped[short] = mapped_column(default="local")
    external_id: Mapped[str | None] = mapped_column(default=None)
    exit_code: Mapped[int | None] = mapped_column(default=None)
    #: one sentence for people: an error code of assets/i18n/errors.toml with params, or a short text
    error: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)


class Schedule(Base):
    """A job that starts again by the calendar. `next_at` is advanced by compare-and-set, so two workers fire it once."""

    __tablename__ = "schedules"

    id: Mapped[pk] = mapped_column(init=False)
    name: Mapped[short] = mapped_column(unique=True)
    kind: Mapped[short]
    config: Mapped[dict[str, Any]]
    cron: Mapped[short]
    timezone: Mapped[short] = mapped_column(default="UTC")
    is_active: Mapped[bool] = mapped_column(default=True)
    next_at: Mapped[datetime | None] = mapped_column(default=None)
    last_job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
