"""Search indexes (versioned folders) and what people asked."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class SearchIndex(Base):
    """One built version of a named index. At most one version per name is active."""

    __tablename__ = "search_indexes"
    __table_args__ = (
        UniqueConstraint("name", "version"),
        Index("uq_search_indexes_active", "name", unique=True, sqlite_where=text("is_active = 1"), postgresql_where=text("is_active")),
    )

    id: Mapped[pk] = mapped_column(init=False)
    name: Mapped[short]
    version: Mapped[int]
    path: Mapped[str]
    is_active: Mapped[bool] = mapped_column(default=False)
    num_documents: Mapped[int] = mapped_column(default=0)
    num_chunks: Mapped[int] = mapped_column(default=0)
    #: channels, embedding model and dimension, file checksums, chunking
    manifest: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class AskEvent(Base):
    __tablename__ = "ask_events"

    id: Mapped[pk] = mapped_column(init=False)
    query: Mapped[str]
    answer: Mapped[str] = mapped_column(default="")
    pseudo_doc: Mapped[str] = mapped_column(default="")
    #: passages as shown, with scores
    contexts: Mapped[list[Any]] = mapped_column(default_factory=list)
    timings_ms: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), default=None)
    index_id: Mapped[int | None] = mapped_column(ForeignKey("search_indexes.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
