"""Search indexes (versioned folders) and what people asked."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
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
    #: searchable texts: chunks and their pseudo-questions
    num_entries: Mapped[int] = mapped_column(default=0)
    #: the version that an update was made from; NULL for one built anew
    based_on: Mapped[int | None] = mapped_column(default=None)
    #: why it was kept aside or made active
    note: Mapped[str] = mapped_column(default="")
    activated_at: Mapped[datetime | None] = mapped_column(default=None)
    activated_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)


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
    #: where it was asked: page, api, chat, mcp, cli
    channel: Mapped[short] = mapped_column(default="", server_default="")
    #: what was searched for beside the question, the plan, the kind of answer, its support
    details: Mapped[dict[str, Any]] = mapped_column(default_factory=dict, server_default="{}")
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class RetrievalModel(Base):
    """An embedding model, a reranker, a question writer or an expander of queries. `form` says how it is opened (static, local, api ...).

    A candidate becomes accepted or refused by the gate, with the reason; weights never change under a name.
    """

    __tablename__ = "retrieval_models"
    __table_args__ = (
        CheckConstraint("kind IN ('embedding','reranker','doc2query','expander')", name="kind"),
        CheckConstraint("status IN ('candidate','accepted','refused','retired')", name="status"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    kind: Mapped[short]
    name: Mapped[short] = mapped_column(unique=True)
    form: Mapped[short]
    #: relative to the home; empty for an endpoint
    path: Mapped[str] = mapped_column(default="")
    content_hash: Mapped[short] = mapped_column(default="")
    #: what it was trained from: another model's name, or "scratch"
    base: Mapped[short] = mapped_column(default="")
    status: Mapped[short] = mapped_column(default="candidate")
    reason: Mapped[str] = mapped_column(default="")
    #: measured on the held-out part, with the set's name
    metrics: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    #: dimension, languages, training settings; an endpoint's address and the NAME of the variable with its key
    manifest: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
