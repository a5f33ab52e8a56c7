"""Reciprocal rank fusion. Pure.

score(d) = sum over rankings of weight / (k + rank(d)), rank from 1 (Cormack, Clarke and Buettcher, SIGIR 2009, k = 60).
Only ranks count, so channels whose scores cannot be compared (BM25, cosine, other wordings of a question) can be joined.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

K = 60

T = TypeVar("T", bound=Hashable)


def rrf(rankings: Sequence[Sequence[T]], weights: Sequence[float] | None = None, k: int = K) -> list[tuple[T, float]]:
    """Items with their fused scores, best first; ties keep the order in which they were first seen.

    An item named twice in one ranking counts at its better rank. Raises ValueError when weights and rankings differ in number.
    """
    if weights is None:
        weights = [1.0] * len(rankings)
    if len(weights) != len(rankings):
        raise ValueError(f"{len(rankings)} rankings but {len(weights)} weights")
    scores: dict[T, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, item in enumerate(dict.fromkeys(ranking), start=1):
            scores[item] = scores.get(item, 0.0) + weight / (k + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])
