"""The bench's questions: held-out prompts of a dataset, or one that a person types. Called by the bench only.

Training prompts are never offered: an answer to a question that a version was trained on proves nothing. A typed question is
stored in its own dataset in an evaluation split, so that it can never end up in training either.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import aliased

from core.bench_sides import Contestant
from core.datasets import NewSample, store_samples
from core.errors import NotFound, UserError
from core.models import get_version
from core.permit import permit
from core.preference import voter
from core.records import TRAINING_SPLITS, Language, Message, Risk, Split
from db import tables as t
from db.engine import read_session, write_session

OWN_DATASET = "bench-questions"
MAX_LENGTH = 4000
CJK = re.compile(r"[\u3400-\u9fff]")
TRAINED_ON = tuple(split.value for split in TRAINING_SPLITS)


@dataclass(frozen=True, slots=True)
class Question:
    id: int
    text: str
    language: str
    category: str
    risk: str


def datasets() -> list[str]:
    """Names of the datasets that have a held-out prompt, newest first; typed questions come last."""
    query = (
        select(t.Dataset.name)
        .where(select(t.Sample.id).where(t.Sample.dataset_id == t.Dataset.id, t.Sample.split.not_in(TRAINED_ON)).exists())
        .order_by(t.Dataset.name == OWN_DATASET, t.Dataset.id.desc())
    )
    with read_session() as session:
        return list(session.scalars(query))


def count_questions(dataset: str, language: str = "", risk: str = "") -> int:
    """How many held-out prompts pass the filter; an empty filter lets everything pass."""
    with read_session() as session:
        return session.scalar(select(func.count()).select_from(_held_out(dataset, language, risk).subquery())) or 0


def splits_of(dataset: str) -> dict[str, int]:
    """Held-out split -> how many prompts of the dataset it has, largest first."""
    query = select(t.Sample.split, func.count()).join(t.Dataset, t.Dataset.id == t.Sample.dataset_id)
    query = query.where(t.Dataset.name == dataset, t.Sample.split.not_in(TRAINED_ON)).group_by(t.Sample.split)
    with read_session() as session:
        return dict(session.execute(query.order_by(func.count().desc())).all())


def next_question(
    user_id: int,
    first: str,
    second: str,
    *,
    evidence: tuple[bool, bool] = (False, False),
    dataset: str,
    language: str = "",
    risk: str = "",
    after: int = 0,
) -> Question:
    """A held-out prompt on which this person has not yet compared these two contestants, in a fixed but mixed order of their own.

    When all have been compared the order starts again. `after` is the question on screen, which is not offered twice in a row.
    Raises NotFound("bench.no_questions") when the filter leaves nothing.
    """
    pair = aliased(t.BenchPair)
    with read_session() as session:
        voter(session, user_id)
        one, two = (Contestant(get_version(session, name).id, has) for name, has in zip((first, second), evidence, strict=True))

        def placed(left: Contestant, right: Contestant) -> ColumnElement[bool]:
            return and_(
                pair.left_version_id == left.version_id,
                pair.left_with_evidence == left.with_evidence,
                pair.right_version_id == right.version_id,
                pair.right_with_evidence == right.with_evidence,
            )

        query = select(pair.sample_id).where(pair.user_id == user_id, pair.status == "ready", or_(placed(one, two), placed(two, one)))
        done = set(session.scalars(query))
        found = list(session.scalars(_held_out(dataset, language, risk)))
        if not found:
            raise NotFound("bench.no_questions")
        fresh = [i for i in found if i not in done and i != after] or [i for i in found if i != after] or found
        best = min(fresh, key=lambda i: hashlib.sha256(f"{user_id}|{i}".encode()).digest())
        row = session.get_one(t.Sample, best)
        return Question(row.id, row.text, row.language, row.category, row.risk)


def own_question(user_id: int, text: str) -> Question:
    """Store a typed question (once) and return it. Raises Forbidden, UserError("bench.question_empty" / "bench.question_too_long")."""
    permit("bench_questions.own_question", user_id)
    text = text.strip()
    if not text:
        raise UserError("bench.question_empty")
    if len(text) > MAX_LENGTH:
        raise UserError("bench.question_too_long", maximum=MAX_LENGTH)
    language = Language.ZH if len(CJK.findall(text)) * 4 >= len(re.sub(r"\s", "", text)) else Language.EN
    sample = NewSample((Message("user", text),), language, Split.DEV, risk=Risk.MEDIUM, source="bench")
    with write_session() as session:
        voter(session, user_id)
        dataset = session.scalar(select(t.Dataset).where(t.Dataset.name == OWN_DATASET))
        if dataset is None:
            dataset = t.Dataset(name=OWN_DATASET, kind="prompts", source="bench")
            session.add(dataset)
            session.flush()
        store_samples(session, dataset, [sample])
        row = session.scalars(select(t.Sample).where(t.Sample.dataset_id == dataset.id, t.Sample.content_hash == sample.content_hash)).one()
        return Question(row.id, row.text, row.language, row.category, row.risk)


def _held_out(dataset: str, language: str, risk: str) -> Select[int]:
    query = (
        select(t.Sample.id)
        .join(t.Dataset, t.Dataset.id == t.Sample.dataset_id)
        .where(t.Dataset.name == dataset, t.Sample.split.not_in(TRAINED_ON))
        .order_by(t.Sample.id)
    )
    if language:
        query = query.where(t.Sample.language == language)
    return query.where(t.Sample.risk == risk) if risk else query
