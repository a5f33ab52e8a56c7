"""What people did with an answer, and how an index is searched by default. Both only ever grow."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, large, pk, short, utc_now


class AskFeedback(Base):
    """One act on one answer. A thumb is about the answer (no rank); the others are about the passage shown at `rank`.

    The newest thumb of a person counts, and the newest of helped and not_helped for each passage.
    """

    __tablename__ = "ask_feedback"
    __table_args__ = (CheckConstraint("kind IN ('up','down','helped','not_helped','opened')", name="kind"),)

    id: Mapped[pk] = mapped_column(init=False)
    event_id: Mapped[int] = mapped_column(ForeignKey("ask_events.id"), index=True)
    kind: Mapped[short]
    #: from 1, as shown
    rank: Mapped[int | None] = mapped_column(default=None)
    #: number of the chunk in the index of the event
    parent: Mapped[int | None] = mapped_column(default=None)
    #: milliseconds between the answer being shown and this act; None when it is not known
    after_ms: Mapped[large | None] = mapped_column(default=None)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class SearchPlan(Base):
    """How the indexes of one name are searched unless a request says otherwise. The newest row of a name is in force."""

    __tablename__ = "search_plans"

    id: Mapped[pk] = mapped_column(init=False)
    index_name: Mapped[short] = mapped_column(index=True)
    #: core.retrieval.plans.Plan; what is absent has its default
    plan: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    #: core.retrieval.calibration.Calibration, or {} where nothing was measured
    calibration: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    reason: Mapped[str] = mapped_column(default="")
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
