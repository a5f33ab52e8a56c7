"""Conflicts (cases on the desk), append-only adjudications, drafts, what follows from them, and safety cases filed from anywhere."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class Conflict(Base):
    """A case: a completion that a clinician should look at. Claimed by one atomic UPDATE with a lease."""

    __tablename__ = "conflicts"
    __table_args__ = (
        UniqueConstraint("completion_id", "kind"),
        CheckConstraint("status IN ('open','claimed','adjudicated','deferred')", name="status"),
        Index("ix_conflicts_queue", "status", "priority"),
        Index("ix_conflicts_gap", "status", "order_gap", "gap"),
        Index(
            "ix_conflicts_arbitration",
            "arbitration_at",
            sqlite_where=text("arbitration_at IS NOT NULL"),
            postgresql_where=text("arbitration_at IS NOT NULL"),
        ),
    )

    id: Mapped[pk] = mapped_column(init=False)
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"), index=True)
    sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"), index=True)
    #: score_gap, safety_disagreement, control, bench_safety, imported
    kind: Mapped[short]
    #: |teacher - rules| in [0, 1]; None for kinds that are not about a gap
    gap: Mapped[float | None] = mapped_column(default=None)
    rules_value: Mapped[float | None] = mapped_column(default=None)
    teacher_value: Mapped[float | None] = mapped_column(default=None)
    judgement_id: Mapped[int | None] = mapped_column(ForeignKey("judgements.id"), default=None)
    config_version: Mapped[short | None] = mapped_column(default=None)
    #: the teacher's advice as shown at reveal
    advice: Mapped[str] = mapped_column(default="")
    status: Mapped[short] = mapped_column(default="open")
    #: larger is sooner
    priority: Mapped[float] = mapped_column(default=0.0)
    claimed_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    lease_token: Mapped[short | None] = mapped_column(default=None)
    lease_expires_at: Mapped[datetime | None] = mapped_column(default=None)
    #: grows by one with every change; a save that carries an old one is refused
    version: Mapped[int] = mapped_column(default=0)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    #: how many people read it before it can be closed
    overlap: Mapped[int] = mapped_column(default=1, server_default="1")
    #: since when its readers' verdicts wait for an arbiter; kept after the ruling
    arbitration_at: Mapped[datetime | None] = mapped_column(default=None)
    #: the gap by which queues are ordered: a control's or a repeat's is borrowed, so that the order gives nothing away
    order_gap: Mapped[float | None] = mapped_column(default=None)


class Adjudication(Base):
    """One decision step. Append-only; the current decision of a case is its last row with stage `signed`."""

    __tablename__ = "adjudications"
    __table_args__ = (
        UniqueConstraint("user_id", "client_id"),
        CheckConstraint("stage IN ('blind','signed','skipped','stop_cord')", name="stage"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    conflict_id: Mapped[int] = mapped_column(ForeignKey("conflicts.id"), index=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    stage: Mapped[short]
    #: made by the browser; a resent decision is recognised by it and stored once
    client_id: Mapped[short]
    verdict: Mapped[short | None] = mapped_column(default=None)
    cannot_judge_reason: Mapped[short | None] = mapped_column(default=None)
    #: criterion -> met, not_met, not_applicable
    criteria: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    #: sentence id (a1.., t1..) -> ok, wrong, unsafe
    marks: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    confidence: Mapped[short | None] = mapped_column(default=None)
    note: Mapped[str] = mapped_column(default="")
    #: why the verdict changed after the reveal
    revision_reason: Mapped[str] = mapped_column(default="")
    who_was_right: Mapped[short | None] = mapped_column(default=None)
    because: Mapped[list[Any]] = mapped_column(default_factory=list)
    rewritten_answer: Mapped[str | None] = mapped_column(default=None)
    guideline_version: Mapped[short | None] = mapped_column(default=None)
    #: 21 CFR 11.50: printed name, time and meaning of the signature
    signed_name: Mapped[short | None] = mapped_column(default=None)
    signed_meaning: Mapped[str | None] = mapped_column(default=None)
    signed_at: Mapped[datetime | None] = mapped_column(default=None)
    #: seconds with focus and input, as measured by the page
    active_s: Mapped[float | None] = mapped_column(default=None)
    #: an earlier row of the same case that this one corrects
    supersedes_id: Mapped[int | None] = mapped_column(ForeignKey("adjudications.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    #: reader, or arbiter: a signed ruling over the readers' verdicts
    role: Mapped[short] = mapped_column(default="reader", server_default="reader")
    #: an arbiter's sides: row -> A, B, C (a reader) or M (the arbiter's own)
    taken: Mapped[dict[str, Any]] = mapped_column(default_factory=dict, server_default="{}")
    #: passages attached to the verdict, copied whole: {sha256, about, text, title, section, source, date, index, index_version}
    evidence: Mapped[list[Any]] = mapped_column(default_factory=list, server_default="[]")


class Draft(Base):
    """Unfinished work of one reviewer on one case; the newest payload only."""

    __tablename__ = "drafts"
    __table_args__ = (UniqueConstraint("conflict_id", "user_id"),)

    id: Mapped[pk] = mapped_column(init=False)
    conflict_id: Mapped[int] = mapped_column(ForeignKey("conflicts.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    payload: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    updated_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class SafetyCase(Base):
    """Somebody said "unsafe" (bench, desk stop cord). Blocks promotion of the version until a person closes it."""

    __tablename__ = "safety_cases"

    id: Mapped[pk] = mapped_column(init=False)
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"), index=True)
    reported_by: Mapped[int] = mapped_column(ForeignKey("users.id"))
    #: bench, desk
    origin: Mapped[short]
    note: Mapped[str] = mapped_column(default="")
    conflict_id: Mapped[int | None] = mapped_column(ForeignKey("conflicts.id"), default=None)
    closed_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    closed_reason: Mapped[str] = mapped_column(default="")
    closed_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class ShownPassage(Base):
    """A guideline passage as the desk has shown it to somebody. A verdict may cite only what lies here. Never changed."""

    __tablename__ = "shown_passages"

    id: Mapped[pk] = mapped_column(init=False)
    #: over text, place and index version, so that the same words of a newer index are another passage
    sha256: Mapped[short] = mapped_column(unique=True)
    text: Mapped[str]
    title: Mapped[str]
    section: Mapped[str]
    source: Mapped[str]
    date: Mapped[short]
    file: Mapped[str]
    page: Mapped[int | None]
    index_name: Mapped[short]
    index_version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class FollowUp(Base):
    """Work that a decision gives to somebody else: an evaluation item, a test of the teacher, or a request for missing facts."""

    __tablename__ = "follow_ups"
    __table_args__ = (
        UniqueConstraint("conflict_id", "kind"),
        CheckConstraint("kind IN ('gold','red_team','teacher_test','data_request')", name="kind"),
        CheckConstraint("status IN ('open','done','withdrawn')", name="status"),
        Index("ix_follow_ups_status", "status", "kind"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    kind: Mapped[short]
    conflict_id: Mapped[int] = mapped_column(ForeignKey("conflicts.id"))
    #: the decision that it comes from
    adjudication_id: Mapped[int] = mapped_column(ForeignKey("adjudications.id"))
    created_by: Mapped[int] = mapped_column(ForeignKey("users.id"))
    status: Mapped[short] = mapped_column(default="open")
    #: what the reader wrote: why it belongs there, or what is missing
    note: Mapped[str] = mapped_column(default="")
    #: gold, red_team: {split_before, sample_ids}; teacher_test: {expected, results}
    detail: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    answer: Mapped[str] = mapped_column(default="")
    closed_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    closed_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class TourSeen(Base):
    """Somebody was shown a screen's guided tour, or skipped it."""

    __tablename__ = "tours_seen"
    __table_args__ = (UniqueConstraint("user_id", "screen"),)

    id: Mapped[pk] = mapped_column(init=False)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    screen: Mapped[short]
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
