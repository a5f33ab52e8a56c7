"""The review plan: weekly draws with their frames, the cases drawn, and who is to read which case."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, large, pk, short, utc_now


class Draw(Base):
    """One draw. Config, seed and frame are the whole record: they give the same items again, bit for bit."""

    __tablename__ = "draws"

    id: Mapped[pk] = mapped_column(init=False)
    #: the week it is for, 2026-W47
    name: Mapped[short] = mapped_column(unique=True)
    seed: Mapped[large]
    #: wanted numbers, filters, overlap, way of assigning
    config: Mapped[dict[str, Any]]
    #: what could have been drawn: {conflict: {stratum: [conflict ids]}, control: [completion ids], repeat: [conflict ids]}
    frame: Mapped[dict[str, Any]]
    frame_sha256: Mapped[short]
    #: over the drawn items in order
    items_sha256: Mapped[short]
    num_items: Mapped[int]
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class DrawItem(Base):
    """A case that was drawn, why, and how likely that was."""

    __tablename__ = "draw_items"
    __table_args__ = (
        UniqueConstraint("draw_id", "conflict_id"),
        CheckConstraint("purpose IN ('conflict','control','repeat_same','repeat_other')", name="purpose"),
        CheckConstraint("inclusion_probability > 0 AND inclusion_probability <= 1", name="probability"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    draw_id: Mapped[int] = mapped_column(ForeignKey("draws.id"))
    conflict_id: Mapped[int] = mapped_column(ForeignKey("conflicts.id"), index=True)
    purpose: Mapped[short]
    stratum: Mapped[short]
    inclusion_probability: Mapped[float]
    #: the id by which the frame knows it
    unit_id: Mapped[int]
    place: Mapped[int]
    #: the decided case that this one repeats
    repeat_of_id: Mapped[int | None] = mapped_column(ForeignKey("conflicts.id"), default=None)


class Assignment(Base):
    """One seat at a case: for a named person, for a speciality, or open. Filled by the signature that took it.

    A case without seats may be read by anybody, once.
    """

    __tablename__ = "assignments"
    __table_args__ = (UniqueConstraint("conflict_id", "seat"),)

    id: Mapped[pk] = mapped_column(init=False)
    conflict_id: Mapped[int] = mapped_column(ForeignKey("conflicts.id"))
    #: 1, 2, 3 ...
    seat: Mapped[int]
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True, default=None)
    speciality: Mapped[short | None] = mapped_column(default=None)
    draw_id: Mapped[int | None] = mapped_column(ForeignKey("draws.id"), default=None)
    #: the signed decision that filled the seat
    adjudication_id: Mapped[int | None] = mapped_column(ForeignKey("adjudications.id"), default=None)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
