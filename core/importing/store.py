"""Validated items into the tables, inside the importer's one transaction. Bulk inserts: 50,000 rows in seconds."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from core import audit
from core.datasets import content_hash
from core.importing.rows import Item
from core.records import TRAINING_SPLITS
from db import tables as t
from db.base import utc_now

if TYPE_CHECKING:
    from core.importing.importer import Report

BATCH = 2000


def store_items(
    session: Session, dataset: t.Dataset, items: list[Item], report: Report, job_id: int | None, created_by: int | None
) -> None:
    """A new dataset's rows, with the entry in the audit chain. Fills the counts of `report`."""
    add_items(session, dataset, items, report, job_id)
    audit.record(
        session,
        "import",
        "dataset",
        dataset.id,
        actor_id=created_by,
        detail={
            "name": dataset.name,
            "content_hash": dataset.content_hash,
            "file_sha256": report.file_sha256,
            "num_samples": dataset.num_samples,
            "num_quarantined": report.num_quarantined,
            "privacy_action": report.privacy_action,
        },
    )


def add_items(session: Session, dataset: t.Dataset, items: list[Item], report: Report, job_id: int | None) -> None:
    """Samples that the dataset does not have yet, then everything that hangs on them. Fills the counts of `report` and the
    dataset's hash."""
    now = utc_now()
    query = select(t.Sample.content_hash, t.Sample.id).where(t.Sample.dataset_id == dataset.id)
    known = dict(session.execute(query).all())
    samples: dict[str, dict[str, Any]] = {}
    for item in items:
        if item.digest not in samples and item.digest not in known:
            samples[item.digest] = _sample(item, dataset.id, now)
    _bulk(session, t.Sample, list(samples.values()))
    ids = dict(session.execute(query).all())

    completions: dict[tuple[int, str], dict[str, Any]] = {}
    pairs: list[dict[str, Any]] = []
    for item in items:
        sample_id = ids[item.digest]
        for completion in item.completions:
            digest = content_hash([completion.text])
            if item.digest in known and _has_completion(session, sample_id, digest):
                continue
            row: dict[str, Any] = {
                "text": completion.text,
                "thinking": completion.thinking,
                "answer": completion.answer,
                "finish_reason": "stop",
            }
            row |= {
                "sample_id": sample_id,
                "content_hash": digest,
                "source": "imported",
                "decoding": {},
                "job_id": job_id,
                "created_at": now,
            }
            completions.setdefault((sample_id, digest), row)
        if item.pair:
            pair: dict[str, Any] = {"sample_id": sample_id, "chosen": item.pair[0], "rejected": item.pair[1], "source": "imported"}
            pairs.append(pair | {"dataset_id": dataset.id, "meta": {}, "created_at": now})
    _bulk(session, t.Completion, list(completions.values()))
    _bulk(session, t.PreferencePair, pairs)
    num_judgements, num_conflicts = _store_judgements(session, dataset, items, ids, job_id)
    dataset.num_samples = len(ids)
    dataset.content_hash = hashlib.sha256("".join(sorted(ids)).encode()).hexdigest()
    report.num_completions, report.num_pairs = len(completions), len(pairs)
    report.num_judgements, report.num_conflicts = num_judgements, num_conflicts


def held_out(session: Session) -> dict[str, str]:
    """Content hashes of prompts that stand in an evaluation split of some dataset, with the dataset's name."""
    query = select(t.Sample.content_hash, t.Dataset.name).join(t.Dataset, t.Dataset.id == t.Sample.dataset_id)
    return dict(session.execute(query.where(t.Sample.split.not_in([s.value for s in TRAINING_SPLITS]))).all())


def _has_completion(session: Session, sample_id: int, digest: str) -> bool:
    query = select(t.Completion.id).where(t.Completion.sample_id == sample_id, t.Completion.content_hash == digest)
    return session.scalar(query.where(t.Completion.model_version_id.is_(None)).limit(1)) is not None


def _sample(item: Item, dataset_id: int, now: Any) -> dict[str, Any]:
    return {
        "dataset_id": dataset_id,
        "text": item.text,
        "messages": [{"role": m.role, "content": m.content} for m in item.messages],
        "language": str(item.language),
        "split": str(item.split),
        "content_hash": item.digest,
        "category": item.category,
        "risk": str(item.risk),
        "source": item.source,
        "external_id": item.external_id,
        "reference": item.reference,
        "meta": item.meta,
        "created_at": now,
    }


def _store_judgements(session: Session, dataset: t.Dataset, items: list[Item], ids: dict[str, int], job_id: int | None) -> tuple[int, int]:
    num_judgements = num_conflicts = 0
    seen: set[int] = set()
    for item in items:
        if item.judgement is None and not item.is_conflict:
            continue
        completion_id = session.scalar(
            select(t.Completion.id).where(
                t.Completion.sample_id == ids[item.digest],
                t.Completion.content_hash == content_hash([item.completions[0].text]),
                t.Completion.model_version_id.is_(None),
            )
        )
        if completion_id is None:
            continue
        judgement_id = None
        if item.judgement is not None:
            row = t.Judgement(
                completion_id=completion_id,
                teacher=item.judgement.teacher,
                rubric_version=item.judgement.rubric_version,
                teacher_score=item.judgement.teacher_score,
                safety_flag=item.judgement.safety_flag,
                critique=item.judgement.critique,
                suggested_answer=item.judgement.suggested_answer,
                job_id=job_id,
            )
            session.add(row)
            session.flush()
            judgement_id = row.id
            num_judgements += 1
        if item.is_conflict and completion_id not in seen:
            seen.add(completion_id)
            teacher = item.judgement.teacher_score if item.judgement else None
            session.add(
                t.Conflict(
                    completion_id=completion_id,
                    sample_id=ids[item.digest],
                    kind="imported",
                    teacher_value=teacher,
                    judgement_id=judgement_id,
                    advice=item.judgement.critique if item.judgement else "",
                    priority=1.0 if item.judgement and item.judgement.safety_flag else 0.5,
                    job_id=job_id,
                )
            )
            num_conflicts += 1
    return num_judgements, num_conflicts


def _bulk(session: Session, table: type[Any], rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), BATCH):
        session.execute(insert(table), rows[start : start + BATCH])
