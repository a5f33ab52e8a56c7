"""What a teacher has said and cost: verdicts paid for, second opinions, usage, prices, alarms, and what it proposes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, large, pk, short, utc_now


class TeacherVerdict(Base):
    """A verdict of a teacher on a text, kept for ever: `key` is the SHA-256 of everything that decides it. Never unscored."""

    __tablename__ = "teacher_verdicts"
    __table_args__ = (Index("ix_teacher_verdicts_teacher", "teacher", "rubric_version", "id"),)

    id: Mapped[pk] = mapped_column(init=False)
    key: Mapped[short] = mapped_column(unique=True)
    teacher: Mapped[short]
    rubric_version: Mapped[short]
    teacher_score: Mapped[float]
    safety_flag: Mapped[bool | None] = mapped_column(default=None)
    critique: Mapped[str] = mapped_column(default="")
    suggested_answer: Mapped[str | None] = mapped_column(default=None)
    prompt_hash: Mapped[short] = mapped_column(default="")
    completion_hash: Mapped[short] = mapped_column(default="")
    sample_id: Mapped[int | None] = mapped_column(ForeignKey("samples.id"), index=True, default=None)
    #: the model and fingerprint that the endpoint named in its reply
    reported_model: Mapped[short] = mapped_column(default="")
    fingerprint: Mapped[short] = mapped_column(default="")
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    cost_usd: Mapped[float | None] = mapped_column(default=None)
    latency_s: Mapped[float | None] = mapped_column(default=None)
    #: asked, imported
    source: Mapped[short] = mapped_column(default="asked")
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class TeacherAudit(Base):
    """A second opinion on a stored verdict: never the current judgement of anything."""

    __tablename__ = "teacher_audits"

    id: Mapped[pk] = mapped_column(init=False)
    verdict_id: Mapped[int] = mapped_column(ForeignKey("teacher_verdicts.id"), index=True)
    teacher: Mapped[short]
    rubric_version: Mapped[short]
    first_score: Mapped[float]
    second_score: Mapped[float]
    first_flag: Mapped[bool | None] = mapped_column(default=None)
    second_flag: Mapped[bool | None] = mapped_column(default=None)
    critique: Mapped[str] = mapped_column(default="")
    reported_model: Mapped[short] = mapped_column(default="")
    fingerprint: Mapped[short] = mapped_column(default="")
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class TeacherUsage(Base):
    """What one process asked of a teacher on one day (UTC). Costs in USD.

    `reserved_usd` is held for requests that are under way; in the row of a process that died it stays and counts as spent,
    because such a request may have been billed. `unclear_usd` is the same for requests that broke off or told no tokens.
    """

    __tablename__ = "teacher_usage"
    __table_args__ = (UniqueConstraint("run_token", "day"),)

    id: Mapped[pk] = mapped_column(init=False)
    run_token: Mapped[short]
    #: YYYY-MM-DD
    day: Mapped[short] = mapped_column(index=True)
    teacher: Mapped[short]
    rubric_version: Mapped[short] = mapped_column(default="")
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), index=True, default=None)
    num_asked: Mapped[int] = mapped_column(default=0)
    num_cached: Mapped[int] = mapped_column(default=0)
    num_scored: Mapped[int] = mapped_column(default=0)
    num_unscored: Mapped[int] = mapped_column(default=0)
    num_audits: Mapped[int] = mapped_column(default=0)
    num_requests: Mapped[int] = mapped_column(default=0)
    prompt_tokens: Mapped[large] = mapped_column(default=0)
    cached_tokens: Mapped[large] = mapped_column(default=0)
    completion_tokens: Mapped[large] = mapped_column(default=0)
    cost_usd: Mapped[float] = mapped_column(default=0.0)
    #: replies whose cost nobody knows: no price, or no tokens told
    num_cost_unknown: Mapped[int] = mapped_column(default=0)
    reserved_usd: Mapped[float] = mapped_column(default=0.0)
    unclear_usd: Mapped[float] = mapped_column(default=0.0)
    #: unscored judgements by reason
    reasons: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    #: failed requests by reason, those that a retry made good included
    faults: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class TeacherState(Base):
    """What is remembered of an endpoint: how it likes to be asked, and the model and fingerprint it named last."""

    __tablename__ = "teacher_states"

    id: Mapped[pk] = mapped_column(init=False)
    endpoint: Mapped[short] = mapped_column(unique=True)
    detail: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    updated_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class TeacherPrice(Base):
    """A price somebody entered, in USD per million tokens. Append-only; the newest row of a model is in force."""

    __tablename__ = "teacher_prices"

    id: Mapped[pk] = mapped_column(init=False)
    model: Mapped[short] = mapped_column(index=True)
    input_usd: Mapped[float]
    output_usd: Mapped[float]
    #: day on which the price was read, YYYY-MM-DD
    as_of: Mapped[short]
    cached_input_usd: Mapped[float | None] = mapped_column(default=None)
    source: Mapped[str] = mapped_column(default="")
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class TeacherAlarm(Base):
    """The teacher seems to have changed. Stays open until a person closes it with a reason."""

    __tablename__ = "teacher_alarms"
    __table_args__ = (CheckConstraint("kind IN ('version','distribution','consistency')", name="kind"),)

    id: Mapped[pk] = mapped_column(init=False)
    kind: Mapped[short]
    teacher: Mapped[short]
    rubric_version: Mapped[short] = mapped_column(default="")
    detail: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    closed_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    closed_reason: Mapped[str] = mapped_column(default="")
    closed_at: Mapped[datetime | None] = mapped_column(default=None)


class TeacherProposal(Base):
    """Something the teacher's inspection of the data suggests; a person accepts or rejects it, with a reason."""

    __tablename__ = "teacher_proposals"
    __table_args__ = (
        CheckConstraint("kind IN ('red_team','weight','best_answer')", name="kind"),
        CheckConstraint("status IN ('proposed','accepted','rejected')", name="status"),
        UniqueConstraint("inspection", "kind", "subject"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    #: name of the inspection that made it
    inspection: Mapped[short]
    kind: Mapped[short]
    #: what it is about: a sample's id, or category/risk of a group of prompts
    subject: Mapped[short]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), index=True)
    sample_id: Mapped[int | None] = mapped_column(ForeignKey("samples.id"), default=None)
    #: larger is more urgent
    urgency: Mapped[float] = mapped_column(default=0.0)
    detail: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    status: Mapped[short] = mapped_column(default="proposed")
    decided_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    decided_reason: Mapped[str] = mapped_column(default="")
    decided_at: Mapped[datetime | None] = mapped_column(default=None)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
