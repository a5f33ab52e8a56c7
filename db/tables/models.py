"""Model versions, who serves, evaluations, and the bench's pairs and votes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class ModelVersion(Base):
    """Immutable weights (or a remote endpoint) under a name. At most one row is serving, by partial unique index."""

    __tablename__ = "model_versions"
    __table_args__ = (
        CheckConstraint("kind IN ('base','sft','rl','external')", name="kind"),
        CheckConstraint("status IN ('candidate','serving','retired')", name="status"),
        CheckConstraint("task IN ('answer','expansion')", name="task"),
        Index(
            "uq_model_versions_serving",
            "status",
            unique=True,
            sqlite_where=text("status = 'serving'"),
            postgresql_where=text("status = 'serving'"),
        ),
    )

    id: Mapped[pk] = mapped_column(init=False)
    name: Mapped[short] = mapped_column(unique=True)
    kind: Mapped[short]
    #: folder of the weights: a full model for base, a PEFT adapter for sft and rl; empty for external
    path: Mapped[str] = mapped_column(default="")
    #: for an adapter: the base it belongs to
    base_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), default=None)
    #: what it was trained from (rl -> sft -> base)
    parent_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), default=None)
    endpoint_url: Mapped[str] = mapped_column(default="")
    endpoint_model: Mapped[str] = mapped_column(default="")
    #: True for the demo policy: every screen that shows its answers says so
    is_toy: Mapped[bool] = mapped_column(default=False)
    #: SHA-256 of the weights file(s)
    content_hash: Mapped[short] = mapped_column(default="")
    #: config, dataset ids and hash, reward config, parent hashes, metrics
    manifest: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    status: Mapped[short] = mapped_column(default="candidate")
    note: Mapped[str] = mapped_column(default="")
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    #: what it is for: "answer" people, or "expansion" of search queries; only the first kind is ever promoted to serve
    task: Mapped[short] = mapped_column(default="answer", server_default="answer")


class ServingEvent(Base):
    """Every promotion and roll-back, append-only."""

    __tablename__ = "serving_events"
    __table_args__ = (CheckConstraint("action IN ('promote','roll_back')", name="action"),)

    id: Mapped[pk] = mapped_column(init=False)
    action: Mapped[short]
    to_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    from_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), default=None)
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    second_actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    reason: Mapped[str] = mapped_column(default="")
    #: gate results as shown when the person signed
    checks: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    signed_name: Mapped[short] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class Evaluation(Base):
    __tablename__ = "evaluations"

    id: Mapped[pk] = mapped_column(init=False)
    name: Mapped[short]
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    config_version: Mapped[short] = mapped_column(default="")
    #: per version: n, mean reward with interval, parts, slices, emergency regressions, decoding used
    report: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    report_path: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class BenchPair(Base):
    """Two answers to one prompt as shown to one person. `left` and `right` are what stood left and right."""

    __tablename__ = "bench_pairs"

    id: Mapped[pk] = mapped_column(init=False)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"), index=True)
    left_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    right_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    #: blind, open
    mode: Mapped[short]
    left_completion_id: Mapped[int | None] = mapped_column(ForeignKey("completions.id"), default=None)
    right_completion_id: Mapped[int | None] = mapped_column(ForeignKey("completions.id"), default=None)
    #: streaming, ready, void (a side failed: never a win)
    status: Mapped[short] = mapped_column(default="streaming")
    void_reason: Mapped[str] = mapped_column(default="")
    decoding: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    #: was this side given the passages of `evidence` before the question?
    left_with_evidence: Mapped[bool] = mapped_column(default=False, server_default=false())
    right_with_evidence: Mapped[bool] = mapped_column(default=False, server_default=false())
    #: the passages as they were found, best first; empty when no side had them, or when nothing was found
    evidence: Mapped[list[Any]] = mapped_column(default_factory=list, server_default="[]")
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class BenchVote(Base):
    """A vote; append-only. The first ballot of a pair counts, because the names are told after it; later ones add unsafe flags only."""

    __tablename__ = "bench_votes"
    __table_args__ = (
        UniqueConstraint("user_id", "client_id"),
        CheckConstraint("vote IS NULL OR vote IN ('left','right','tie','both_bad')", name="vote"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    pair_id: Mapped[int] = mapped_column(ForeignKey("bench_pairs.id"), index=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    client_id: Mapped[short]
    vote: Mapped[short | None] = mapped_column(default=None)
    unsafe_left: Mapped[bool] = mapped_column(default=False)
    unsafe_right: Mapped[bool] = mapped_column(default=False)
    reasons: Mapped[list[Any]] = mapped_column(default_factory=list)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
