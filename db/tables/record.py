"""The audit chain: append-only entries, each holding the hash of the one before."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class AuditEntry(Base):
    __tablename__ = "audit_entries"
    __table_args__ = (Index("ix_audit_entries_object", "object_type", "object_id"),)

    id: Mapped[pk] = mapped_column(init=False)
    #: sign_in, adjudicate, promote, roll_back, import, export, cancel_job ...
    action: Mapped[short]
    object_type: Mapped[short]
    object_id: Mapped[short]
    previous_hash: Mapped[short]
    entry_hash: Mapped[short] = mapped_column(unique=True)
    #: None for the system itself
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    detail: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    reason: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    #: SHA-256 of the object's row before and after, where the action changed a row; None: it did not exist, or is no row
    before_hash: Mapped[short | None] = mapped_column(default=None)
    after_hash: Mapped[short | None] = mapped_column(default=None)
    #: what the entry's hash covers: 1 all but id, before and after; 2 everything
    format: Mapped[int] = mapped_column(default=2, server_default="1")
