"""What was measured of retrieval, what people said about single failures, and changes on trial. Reports are never changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class RetrievalEvaluation(Base):
    """One ladder on one set. `report` is core.retrieval.ladder.Report; rankings of every query lie beside it in `report_path`."""

    __tablename__ = "retrieval_evaluations"

    id: Mapped[pk] = mapped_column(init=False)
    name: Mapped[short]
    #: name of the index measured; empty for an index that was built for this evaluation only
    index_name: Mapped[short] = mapped_column(default="", index=True)
    index_id: Mapped[int | None] = mapped_column(ForeignKey("search_indexes.id"), default=None)
    report: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    #: folder relative to the home
    report_path: Mapped[str] = mapped_column(default="")
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class RetrievalCorrection(Base):
    """A person's category for a failed question, beside the automatic one. The newest per question counts."""

    __tablename__ = "retrieval_corrections"

    id: Mapped[pk] = mapped_column(init=False)
    evaluation_id: Mapped[int] = mapped_column(ForeignKey("retrieval_evaluations.id"), index=True)
    query_id: Mapped[short]
    category: Mapped[short]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    note: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class RetrievalTrial(Base):
    """A changed index, plan, encoder or reranker: what the gate said, and how much of the traffic sees it. One runs per index name."""

    __tablename__ = "retrieval_trials"
    __table_args__ = (
        CheckConstraint("status IN ('kept_aside','accepted','running','promoted','stopped','rolled_back')", name="status"),
        CheckConstraint("share >= 0 AND share <= 1", name="share"),
        Index(
            "uq_retrieval_trials_running",
            "index_name",
            unique=True,
            sqlite_where=text("status = 'running'"),
            postgresql_where=text("status = 'running'"),
        ),
    )

    id: Mapped[pk] = mapped_column(init=False)
    index_name: Mapped[short] = mapped_column(index=True)
    #: what was changed: questions, reranker, embedding, plan, index
    change: Mapped[short]
    #: the version active when it was made, and the one on trial (None: the same index under another plan)
    control_index_id: Mapped[int | None] = mapped_column(ForeignKey("search_indexes.id"), default=None)
    candidate_index_id: Mapped[int | None] = mapped_column(ForeignKey("search_indexes.id"), default=None)
    #: core.retrieval.plans.Plan.to_json
    control_plan: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    candidate_plan: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    #: core.retrieval.trial.Verdict on the frozen set, with the set's name
    verdict: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    status: Mapped[short] = mapped_column(default="kept_aside")
    share: Mapped[float] = mapped_column(default=0.0)
    num_looks: Mapped[int] = mapped_column(default=0)
    #: words of the person, or of the job that made it
    reason: Mapped[str] = mapped_column(default="")
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    ended_at: Mapped[datetime | None] = mapped_column(default=None)


class RetrievalExposure(Base):
    """Which arm of a trial answered an ask."""

    __tablename__ = "retrieval_exposures"

    id: Mapped[pk] = mapped_column(init=False)
    trial_id: Mapped[int] = mapped_column(ForeignKey("retrieval_trials.id"), index=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("ask_events.id"), unique=True)
    arm: Mapped[short]
