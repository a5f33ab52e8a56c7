"""What the team's own use of Ask teaches: which passages answered which question, from verdicts, and from clicks that the place
where a passage was shown does not explain (`core.retrieval.clicks`). Called by training.embedding and training.reranker.

A passage is known by a hash of its text, not by its number in an index, so what was learnt outlives the index it was shown from.
"""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import select

from core.retrieval.clicks import Evidence, Impression, estimate_examination, gather
from db import tables as t
from db.engine import read_session
from db.tables.asking import AskFeedback
from training.retrieval_pairs import Judged


def feedback_of(index_name: str) -> tuple[list[Judged], dict[str, str]]:
    """Questions with passages judged 1 (confident positive) or 0 (confident negative), and every passage ever shown (id -> text).

    Counted are questions asked of any version of the index of that name.
    """
    passages: dict[str, str] = {}
    impressions = read_impressions(index_name, passages)
    evidence = gather(impressions, estimate_examination(impressions))
    judged: dict[str, Judged] = {}
    for known in evidence.values():
        grade = grade_of(known)
        if grade is not None:
            judged.setdefault(known.query, Judged(known.query)).grades[known.passage] = grade
    return sorted(judged.values(), key=lambda one: one.query), passages


def grade_of(known: Evidence) -> float | None:
    """1, 0, or None where nothing is known with confidence: such a passage is neither taught as right nor as wrong."""
    return 1.0 if known.is_positive else 0.0 if known.is_negative else None


def read_impressions(index_name: str, passages: dict[str, str]) -> list[Impression]:
    """Every answered question of the index with what people did; fills `passages` with the texts that were shown."""
    with read_session() as session:
        mine = select(t.AskEvent).join(t.SearchIndex, t.AskEvent.index_id == t.SearchIndex.id).where(t.SearchIndex.name == index_name)
        events = list(session.scalars(mine.order_by(t.AskEvent.id)))
        acts: dict[int, list[AskFeedback]] = {}
        for act in session.scalars(select(AskFeedback).order_by(AskFeedback.id)):
            acts.setdefault(act.event_id, []).append(act)
    return [impression(event.query, event.contexts, acts.get(event.id, []), passages) for event in events if event.contexts]


def impression(query: str, contexts: list[dict[str, Any]], acts: list[AskFeedback], passages: dict[str, str]) -> Impression:
    """One list as shown, with clicks, dwell times and the newest judgement of each passage."""
    shown = []
    for context in contexts:
        text = "\n".join(part for part in (context.get("title"), context.get("section"), context.get("text")) if part)
        identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        passages[identity] = text
        shown.append(identity)
    clicked: set[int] = set()
    thumbs: dict[str, int] = {}
    for act in acts:
        place = (act.rank or 0) - 1
        if not 0 <= place < len(shown):
            continue  # a thumb is about the whole answer: it does not say which passage was good
        if act.kind == "opened":
            clicked.add(place)
        elif act.kind in ("helped", "not_helped"):
            thumbs[shown[place]] = 1 if act.kind == "helped" else -1
    return Impression(query, tuple(shown), frozenset(clicked), {}, thumbs)
