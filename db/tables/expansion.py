"""Sets of query expansions: rows as they stand, and every change a person made to one, with the reason. Edits only ever grow."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class ExpansionSet(Base):
    """A named set. `card` says where the rows come from and how they were split."""

    __tablename__ = "expansion_sets"

    id: Mapped[pk] = mapped_column(init=False)
    name: Mapped[short] = mapped_column(unique=True)
    source: Mapped[str] = mapped_column(default="")
    card: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class ExpansionRow(Base):
    """One row of a set. `number` is its line in the file it came from; `lines` is [[kind, text], ...]."""

    __tablename__ = "expansion_rows"
    __table_args__ = (
        UniqueConstraint("set_id", "number"),
        CheckConstraint("split IS NULL OR split IN ('train','val','test')", name="split"),
        CheckConstraint("status IN ('kept','rejected')", name="status"),
        CheckConstraint("rubric IS NULL OR (rubric >= 0 AND rubric <= 1)", name="rubric"),
        Index("ix_expansion_rows_order", "set_id", "status", "rubric"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    set_id: Mapped[int] = mapped_column(ForeignKey("expansion_sets.id"))
    number: Mapped[int]
    query: Mapped[str]
    lines: Mapped[list[Any]]
    language: Mapped[short]
    #: rows of one family are wordings of one question and share a split
    family: Mapped[str] = mapped_column(default="")
    source: Mapped[str] = mapped_column(default="")
    extra: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    split: Mapped[short | None] = mapped_column(default=None)
    status: Mapped[short] = mapped_column(default="kept")
    #: the reward without its retrieval term; NULL until scored
    rubric: Mapped[float | None] = mapped_column(default=None)
    num_edits: Mapped[int] = mapped_column(default=0)


class ExpansionEdit(Base):
    """A person fixed, rejected or restored a row: who, when, why, and what it was before and after."""

    __tablename__ = "expansion_edits"
    __table_args__ = (CheckConstraint("kind IN ('fix','reject','restore')", name="kind"),)

    id: Mapped[pk] = mapped_column(init=False)
    row_id: Mapped[int] = mapped_column(ForeignKey("expansion_rows.id"), index=True)
    kind: Mapped[short]
    reason: Mapped[str]
    before: Mapped[dict[str, Any]]
    after: Mapped[dict[str, Any]]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
