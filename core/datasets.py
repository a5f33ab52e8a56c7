"""Datasets in the database: storing samples and completions, and reading them back as records.

Called by the importer, the demo loader and every training script. Content hashes make every write idempotent: a job that
is started twice stores nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.records import Completion, Language, Message, Prompt, Risk, Split
from db import tables as t
from db.base import utc_now


@dataclass(frozen=True, slots=True)
class NewSample:
    """A sample to store. `meta` may hold key_points and forbidden (lists of str) and anything else that is known."""

    messages: tuple[Message, ...]
    language: Language
    split: Split
    category: str = "general"
    risk: Risk = Risk.LOW
    source: str = ""
    external_id: str | None = None
    reference: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def content_hash(self) -> str:
        """SHA-256 over roles and NFKC-normalised, white-space-collapsed contents."""
        return content_hash([[m.role, m.content] for m in self.messages])


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value` after NFKC and collapsing white space in every string."""

    def normal(x: Any) -> Any:
        if isinstance(x, str):
            return " ".join(unicodedata.normalize("NFKC", x).split())
        return [normal(i) for i in x] if isinstance(x, list) else x

    return hashlib.sha256(json.dumps(normal(value), ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def get_dataset(session: Session, name: str) -> t.Dataset:
    """The dataset, or NotFound("data.no_such_dataset")."""
    row = session.scalar(select(t.Dataset).where(t.Dataset.name == name))
    if row is None:
        raise NotFound("data.no_such_dataset", name=name)
    return row


def store_samples(session: Session, dataset: t.Dataset, samples: Sequence[NewSample]) -> int:
    """Add what is not yet there (by content hash); returns how many were new and refreshes the dataset's count and hash."""
    known = set(session.scalars(select(t.Sample.content_hash).where(t.Sample.dataset_id == dataset.id)))
    rows = []
    for sample in samples:
        digest = sample.content_hash
        if digest in known:
            continue
        known.add(digest)
        rows.append(
            {
                "dataset_id": dataset.id,
                "text": sample.text,
                "messages": [{"role": m.role, "content": m.content} for m in sample.messages],
                "language": sample.language.value,
                "split": sample.split.value,
                "content_hash": digest,
                "category": sample.category,
                "risk": sample.risk.value,
                "source": sample.source,
                "external_id": sample.external_id,
                "reference": sample.reference,
                "meta": sample.meta,
                "created_at": utc_now(),
            }
        )
    for start in range(0, len(rows), 2000):
        session.execute(insert(t.Sample), rows[start : start + 2000])
    dataset.num_samples = len(known)
    dataset.content_hash = hashlib.sha256("".join(sorted(known)).encode()).hexdigest()
    return len(rows)


def to_prompt(row: t.Sample) -> Prompt:
    """The record for a stored sample."""
    return Prompt(
        messages=tuple(Message(m["role"], m["content"]) for m in row.messages),
        language=Language(row.language),
        category=row.category,
        risk=Risk(row.risk),
        reference=row.reference,
        key_points=tuple(row.meta.get("key_points", ())),
        forbidden=tuple(row.meta.get("forbidden", ())),
        sample_id=row.id,
        cleared=frozenset(row.meta.get("cleared", ())),
    )


def to_completion(row: t.Completion) -> Completion:
    """The record for a stored completion."""
    return Completion(row.text, row.thinking, row.answer, row.finish_reason, row.id)


def load_prompts(session: Session, dataset: str, split: str, *, limit: int = 0, seed: int = 0) -> list[Prompt]:
    """Prompts of a split in id order; with `limit`, a seeded random choice of that many (still in id order).

    Raises NotFound("data.no_such_dataset") and NotFound("data.no_prompts") when the split is empty.
    """
    row = get_dataset(session, dataset)
    query = select(t.Sample.id).where(t.Sample.dataset_id == row.id, t.Sample.split == split).order_by(t.Sample.id)
    ids = list(session.scalars(query))
    if not ids:
        raise NotFound("data.no_prompts", name=dataset, split=split)
    if limit and limit < len(ids):
        ids = sorted(random.Random(seed).sample(ids, limit))
    found: list[Prompt] = []
    for start in range(0, len(ids), 500):
        chunk = session.scalars(select(t.Sample).where(t.Sample.id.in_(ids[start : start + 500])).order_by(t.Sample.id))
        found += [to_prompt(s) for s in chunk]
    return found


def store_completions(
    session: Session,
    pairs: Iterable[tuple[Prompt, Completion]],
    *,
    model_version_id: int | None,
    source: str,
    decoding: dict[str, Any],
    job_id: int | None,
) -> list[int]:
    """Store completions of stored prompts; returns the id of each (an existing one when the same text is already there)."""
    ids = []
    for prompt, completion in pairs:
        digest = content_hash([completion.text])
        query = select(t.Completion.id).where(
            t.Completion.sample_id == prompt.sample_id,
            t.Completion.model_version_id.is_(None) if model_version_id is None else t.Completion.model_version_id == model_version_id,
            t.Completion.content_hash == digest,
        )
        existing = session.scalar(query)
        if existing is None:
            if prompt.sample_id is None:
                raise ValueError("a completion needs a stored prompt")
            row = t.Completion(
                sample_id=prompt.sample_id,
                text=completion.text,
                thinking=completion.thinking,
                answer=completion.answer,
                content_hash=digest,
                model_version_id=model_version_id,
                source=source,
                finish_reason=completion.finish_reason,
                decoding=decoding,
                job_id=job_id,
            )
            session.add(row)
            session.flush()
            existing = row.id
        ids.append(existing)
    return ids


def count_by_split(session: Session, dataset_id: int) -> dict[str, int]:
    """How many samples each split holds."""
    query = select(t.Sample.split, func.count()).where(t.Sample.dataset_id == dataset_id).group_by(t.Sample.split)
    return dict(session.execute(query).all())
