"""What left the house: exports with their manifests, and the webhooks that tell others what happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class Export(Base):
    """One finished export. The file lies in HOME/exports/ID; `manifest` is the very content of its manifest.json."""

    __tablename__ = "exports"

    id: Mapped[pk] = mapped_column(init=False)
    kind: Mapped[short]
    format: Mapped[short]
    num_rows: Mapped[int]
    sha256: Mapped[short]
    path: Mapped[str]
    manifest: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class Webhook(Base):
    """Where to tell what. The audit chain is the outbox: `last_entry_id` is the newest entry that was delivered or did not concern it."""

    __tablename__ = "webhooks"

    id: Mapped[pk] = mapped_column(init=False)
    url: Mapped[str]
    #: key of the HMAC-SHA256 signature; shown once, when the webhook is made
    secret: Mapped[str]
    #: names of `core.webhooks.EVENTS`
    events: Mapped[list[Any]]
    last_entry_id: Mapped[int] = mapped_column(default=0)
    is_active: Mapped[bool] = mapped_column(default=True)
    #: failed deliveries of the same entry in a row, when the next try is due, and the last error in words
    num_failures: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime | None] = mapped_column(default=None)
    last_error: Mapped[str] = mapped_column(default="")
    last_delivered_at: Mapped[datetime | None] = mapped_column(default=None)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
