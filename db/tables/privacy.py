"""Rows that wait because they seem to identify a person, and what is done when one is found. Policies only ever grow."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class QuarantineItem(Base):
    """One row of an import (`place` import), or one stored sample that the teacher's door refused (`place` teacher).

    `payload` is the row as it came and never leaves the database but into its dataset; it is emptied with the decision.
    `preview` is masked.
    """

    __tablename__ = "quarantine_items"
    __table_args__ = (
        CheckConstraint("status IN ('held','released','surrogate','dropped')", name="status"),
        CheckConstraint("place IN ('import','teacher')", name="place"),
        CheckConstraint("status = 'held' OR (decided_by IS NOT NULL AND decided_at IS NOT NULL AND reason <> '')", name="decided"),
        Index("ix_quarantine_items_waiting", "status", "dataset_id"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    #: number of the record in the imported file, from 1; None for a stored sample
    row: Mapped[int | None]
    #: how many of each kind (core.deidentify.KINDS)
    kinds: Mapped[dict[str, Any]]
    preview: Mapped[str]
    place: Mapped[short] = mapped_column(default="import")
    sample_id: Mapped[int | None] = mapped_column(ForeignKey("samples.id"), index=True, default=None)
    payload: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    status: Mapped[short] = mapped_column(default="held")
    reason: Mapped[str] = mapped_column(default="")
    decided_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    decided_at: Mapped[datetime | None] = mapped_column(default=None)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class PrivacyPolicy(Base):
    """What is done with a hit from now on: the newest row is in force; without any, quarantine."""

    __tablename__ = "privacy_policies"
    __table_args__ = (CheckConstraint("action IN ('quarantine','surrogate','off')", name="action"),)

    id: Mapped[pk] = mapped_column(init=False)
    action: Mapped[short]
    reason: Mapped[str]
    created_by: Mapped[int] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
