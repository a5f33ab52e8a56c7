"""Datasets, samples (prompts with what is known about them), completions and preference pairs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class Dataset(Base):
    __tablename__ = "datasets"

    id: Mapped[pk] = mapped_column(init=False)
    name: Mapped[short] = mapped_column(unique=True)
    #: prompts, completions, messages, preferences, gold, red_team, judgements, conflicts
    kind: Mapped[short]
    source: Mapped[str] = mapped_column(default="")
    licence: Mapped[str] = mapped_column(default="")
    num_samples: Mapped[int] = mapped_column(default=0)
    #: SHA-256 over the sorted content hashes of its samples
    content_hash: Mapped[short] = mapped_column(default="")
    card_path: Mapped[str] = mapped_column(default="")
    #: counts, column mapping, rejected rows by reason, duplicates
    report: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class Sample(Base):
    """One prompt. `messages` is the chat so far, a list of {role, content}; `text` is its last user turn."""

    __tablename__ = "samples"
    __table_args__ = (
        UniqueConstraint("dataset_id", "content_hash"),
        CheckConstraint("risk IN ('low','medium','high')", name="risk"),
        CheckConstraint("language IN ('en','zh')", name="language"),
        CheckConstraint("split IN ('train','dev','test','gold','red_team')", name="split"),
        Index("ix_samples_split_language", "split", "language"),
    )

    id: Mapped[pk] = mapped_column(init=False)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), index=True)
    text: Mapped[str]
    messages: Mapped[list[Any]]
    language: Mapped[short]
    split: Mapped[short]
    #: SHA-256 of the normalised messages
    content_hash: Mapped[short] = mapped_column(index=True)
    category: Mapped[short] = mapped_column(default="general")
    risk: Mapped[short] = mapped_column(default="low")
    source: Mapped[str] = mapped_column(default="")
    external_id: Mapped[str | None] = mapped_column(default=None)
    reference: Mapped[str | None] = mapped_column(default=None)
    #: key_points, forbidden, condition and other facts known about the sample
    meta: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class Completion(Base):
    """What a model version (or, when imported, somebody else) wrote for a sample."""

    __tablename__ = "completions"
    __table_args__ = (UniqueConstraint("sample_id", "model_version_id", "content_hash"),)

    id: Mapped[pk] = mapped_column(init=False)
    sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"), index=True)
    text: Mapped[str]
    thinking: Mapped[str]
    answer: Mapped[str]
    content_hash: Mapped[short]
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), index=True, default=None)
    #: sampled, imported, human, bench
    source: Mapped[short] = mapped_column(default="sampled")
    finish_reason: Mapped[short] = mapped_column(default="stop")
    num_tokens: Mapped[int | None] = mapped_column(default=None)
    #: temperature, seed, max_new_tokens ... as used
    decoding: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class PreferencePair(Base):
    __tablename__ = "preference_pairs"

    id: Mapped[pk] = mapped_column(init=False)
    sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"), index=True)
    chosen: Mapped[str]
    rejected: Mapped[str]
    #: adjudication, vote, imported
    source: Mapped[short]
    adjudication_id: Mapped[int | None] = mapped_column(ForeignKey("adjudications.id"), default=None)
    vote_id: Mapped[int | None] = mapped_column(ForeignKey("bench_votes.id"), default=None)
    dataset_id: Mapped[int | None] = mapped_column(ForeignKey("datasets.id"), default=None)
    meta: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
