"""Evaluations of query expansion: what was measured on which queries; every output with its score lies in the report file."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class ExpansionEvaluation(Base):
    """One evaluation of one or more expanders on the same queries. `path` is relative to the home."""

    __tablename__ = "expansion_evaluations"

    id: Mapped[pk] = mapped_column(init=False)
    name: Mapped[short]
    #: where the queries come from
    source: Mapped[str]
    num_queries: Mapped[int]
    #: evaluations with the same one can be compared query by query
    queries_hash: Mapped[short]
    path: Mapped[str]
    #: per expander: mean reward with its interval, share of valid lines, recall gain
    summary: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
