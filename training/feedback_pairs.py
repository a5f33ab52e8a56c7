"""What the team's own use of Ask teaches: which passages answered which question, from verdicts, and from clicks that the place
where a passage was shown does not explain (`core.retrieval.clicks`). Called by training.embedding and training.reranker.

A passage is known by a hash of its text, not by its number in an index, so what was learnt outlives the index it was shown from.
"""

from __future__ import annotations

import hashlib
from typing import Any

from core.retrieval.clicks import Evidence, estimate_examination, gather
from core.retrieval_use import asked
from training.retrieval_pairs import Judged


def feedback_of(index_name: str) -> tuple[list[Judged], dict[str, str]]:
    """Questions with passages judged 1 (confident positive) or 0 (confident negative), and every passage ever shown (id -> text).

    Counted are questions asked of any version of the index of that name.
    """
    passages: dict[str, str] = {}

    def name_of(context: dict[str, Any]) -> str:
        text = "\n".join(part for part in (context.get("title"), context.get("section"), context.get("text")) if part)
        identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        passages[identity] = text
        return identity

    impressions = [event.impression for event in asked(index_name, name_of=name_of)]
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
