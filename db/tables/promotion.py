"""Requests to promote over a closed gate: the first of two signatures, and what became of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class PromotionRequest(Base):
    """One person asks, with reason and signature; a second one signs before `expires_at`, or it comes to nothing.

    `gates` are the findings as the first person saw them, `second_gates` as they stood at the second signature. At most one request
    per version is open, by partial unique index.
    """

    __tablename__ = "promotion_requests"
    __table_args__ = (
        CheckConstraint("status IN ('open','promoted','declined','expired')", name="status"),
        CheckConstraint("second_by IS NULL OR second_by <> requested_by", name="two_people"),
        Index(
            "uq_promotion_requests_open",
            "version_id",
            unique=True,
            sqlite_where=text("status = 'open'"),
            postgresql_where=text("status = 'open'"),
        ),
    )

    id: Mapped[pk] = mapped_column(init=False)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    requested_by: Mapped[int] = mapped_column(ForeignKey("users.id"))
    reason: Mapped[str]
    signed_name: Mapped[short]
    gates: Mapped[dict[str, Any]]
    expires_at: Mapped[datetime]
    #: the version in service that the findings are about; None when none served
    serving_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), default=None)
    #: hash of the candidate's weights when it was asked for
    content_hash: Mapped[short] = mapped_column(default="")
    status: Mapped[short] = mapped_column(default="open")
    second_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    second_reason: Mapped[str] = mapped_column(default="")
    second_signed_name: Mapped[short] = mapped_column(default="")
    second_gates: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    event_id: Mapped[int | None] = mapped_column(ForeignKey("serving_events.id"), default=None)
    decided_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
