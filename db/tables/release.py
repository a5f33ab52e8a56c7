"""Release packages, what the watch over the serving version saw, and the roll-backs it proposed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now

OPEN = text("status = 'open'")


class Release(Base):
    """A package on disk: made here (`built`) or brought here (`loaded`)."""

    __tablename__ = "releases"
    __table_args__ = (CheckConstraint("origin IN ('built','loaded')", name="origin"),)

    id: Mapped[pk] = mapped_column(init=False)
    #: v1.0-rl
    name: Mapped[short] = mapped_column(unique=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    #: the package's folder, relative to the home where it lies inside
    path: Mapped[str]
    #: SHA-256 of manifest.json, which holds the hash of every other file
    manifest_hash: Mapped[short]
    origin: Mapped[short]
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class WatchLook(Base):
    """One look of the sequential test at a pair (serving, previous); append-only. The newest row of a pair carries its state."""

    __tablename__ = "watch_looks"
    __table_args__ = (Index("ix_watch_looks_pair", "serving_event_id", "id"),)

    id: Mapped[pk] = mapped_column(init=False)
    #: the switch under watch: its `to_version` serves, its `from_version` is compared with
    serving_event_id: Mapped[int] = mapped_column(ForeignKey("serving_events.id"))
    #: 1, 2, 3 ... of this switch
    number: Mapped[int]
    #: pairs in which both answers could be judged; of these, serving alone failed (worse) or previous alone failed (better); of all looks
    num_pairs: Mapped[int] = mapped_column(default=0)
    num_worse: Mapped[int] = mapped_column(default=0)
    num_better: Mapped[int] = mapped_column(default=0)
    #: log of the e-value after this look
    log_evidence: Mapped[float] = mapped_column(default=0.0)
    #: safety cases and answers of either version so far, p of the exact test, its share of the error rate
    incoming: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    #: the pairs of this look in which the serving version alone failed: sample and completion ids
    evidence: Mapped[list[Any]] = mapped_column(default_factory=list)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class RollbackProposal(Base):
    """The watch says "go back"; a person decides. At most one is open."""

    __tablename__ = "rollback_proposals"
    __table_args__ = (
        CheckConstraint("status IN ('open','accepted','dismissed','overtaken')", name="status"),
        CheckConstraint("finding IN ('red_team','safety_cases')", name="finding"),
        Index("uq_rollback_proposals_open", "status", unique=True, sqlite_where=OPEN, postgresql_where=OPEN),
    )

    id: Mapped[pk] = mapped_column(init=False)
    serving_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    target_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    look_id: Mapped[int] = mapped_column(ForeignKey("watch_looks.id"))
    finding: Mapped[short]
    #: the numbers of the sentence
    detail: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    status: Mapped[short] = mapped_column(default="open")
    #: the roll-back it led to
    event_id: Mapped[int | None] = mapped_column(ForeignKey("serving_events.id"), default=None)
    decided_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    decision_reason: Mapped[str] = mapped_column(default="")
    decided_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
