"""Rule scores, teacher judgements, reward configurations and rewards. Unscored is NULL with a reason, by constraint."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class RuleScore(Base):
    __tablename__ = "rule_scores"
    __table_args__ = (
        UniqueConstraint("completion_id", "rule_id", "lexicon_version"),
        CheckConstraint("(score IS NULL) <> (unscored_reason IS NULL)", name="scored_or_reason"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"), index=True)
    rule_id: Mapped[short]
    lexicon_version: Mapped[short]
    score: Mapped[float | None] = mapped_column(default=None)
    unscored_reason: Mapped[str | None] = mapped_column(default=None)
    #: list of {part, start, end, rule_id, term, kind}
    spans: Mapped[list[Any]] = mapped_column(default_factory=list)
    detail: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class Judgement(Base):
    """A teacher's opinion; the newest row per (completion, teacher, rubric_version) is current."""

    __tablename__ = "judgements"
    __table_args__ = (CheckConstraint("(teacher_score IS NULL) <> (unscored_reason IS NULL)", name="scored_or_reason"),)

    id: Mapped[pk] = mapped_column(init=False)
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"), index=True)
    teacher: Mapped[short]
    rubric_version: Mapped[short]
    teacher_score: Mapped[float | None] = mapped_column(default=None)
    safety_flag: Mapped[bool | None] = mapped_column(default=None)
    critique: Mapped[str] = mapped_column(default="")
    suggested_answer: Mapped[str | None] = mapped_column(default=None)
    unscored_reason: Mapped[str | None] = mapped_column(default=None)
    is_offline: Mapped[bool] = mapped_column(default=False)
    latency_s: Mapped[float | None] = mapped_column(default=None)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class RewardConfig(Base):
    """Weights of the reward. A change is a new row: proposed, then approved or rejected by a person; the newest approved is in force."""

    __tablename__ = "reward_configs"
    __table_args__ = (CheckConstraint("status IN ('proposed','approved','rejected')", name="status"),)

    id: Mapped[pk] = mapped_column(init=False)
    version: Mapped[short] = mapped_column(unique=True)
    chain: Mapped[float]
    emergency: Mapped[float]
    risk_penalty: Mapped[float]
    teacher: Mapped[float]
    conflict_threshold: Mapped[float]
    #: proposed, approved, rejected
    status: Mapped[short] = mapped_column(default="proposed")
    reason: Mapped[str] = mapped_column(default="")
    #: who proposed it; NULL for the shipped one
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    #: who decided (approved or rejected)
    approved_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    #: the version in force when this one was proposed
    parent_version: Mapped[short | None] = mapped_column(default=None)
    #: what speaks for it: the calibration's report, or what the person attached
    evidence: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    #: rewards from which on a verdict is more likely than not at least minor, ... as fitted; NULL when never fitted
    verdict_thresholds: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    decided_at: Mapped[datetime | None] = mapped_column(default=None)
    decision_reason: Mapped[str] = mapped_column(default="", server_default="")
    signed_name: Mapped[short | None] = mapped_column(default=None)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)


class Reward(Base):
    __tablename__ = "rewards"
    __table_args__ = (CheckConstraint("(value IS NULL) <> (unscored_reason IS NULL)", name="scored_or_reason"),)

    id: Mapped[pk] = mapped_column(init=False)
    completion_id: Mapped[int] = mapped_column(ForeignKey("completions.id"), index=True)
    config_version: Mapped[short]
    value: Mapped[float | None] = mapped_column(default=None)
    unscored_reason: Mapped[str | None] = mapped_column(default=None)
    parts: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    judgement_id: Mapped[int | None] = mapped_column(ForeignKey("judgements.id"), default=None)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
