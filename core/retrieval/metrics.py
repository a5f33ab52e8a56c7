"""Rank metrics over one ranking and its judgements (`qrels`: document -> grade, above 0 is relevant). Pure.

nDCG uses the linear gain of trec_eval: DCG = sum grade / log2(rank + 1). A query without a relevant document has no value:
the functions return None, and `mean` leaves it out and says how many queries were counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

Qrels = Mapping[str, float]
Metric = Callable[[Sequence[str], Qrels], "float | None"]


def recall_at(ranking: Sequence[str], qrels: Qrels, k: int) -> float | None:
    """Share of the relevant documents among the first k."""
    relevant = {d for d, grade in qrels.items() if grade > 0}
    return len(relevant & set(ranking[:k])) / len(relevant) if relevant else None


def hit_at(ranking: Sequence[str], qrels: Qrels, k: int) -> float | None:
    """1 when at least one of the first k is relevant, else 0."""
    recall = recall_at(ranking, qrels, k)
    return None if recall is None else float(recall > 0)


def mrr_at(ranking: Sequence[str], qrels: Qrels, k: int = 10) -> float | None:
    """1 / rank of the first relevant document among the first k, else 0."""
    if not any(grade > 0 for grade in qrels.values()):
        return None
    return next((1 / rank for rank, d in enumerate(ranking[:k], start=1) if qrels.get(d, 0) > 0), 0.0)


def ndcg_at(ranking: Sequence[str], qrels: Qrels, k: int = 10) -> float | None:
    """DCG of the first k over the DCG of the best possible order."""
    ideal = sorted((grade for grade in qrels.values() if grade > 0), reverse=True)[:k]
    if not ideal:
        return None
    return _dcg([max(qrels.get(d, 0), 0) for d in ranking[:k]]) / _dcg(ideal)


#: What every report shows.
METRICS: dict[str, Metric] = {
    "recall@5": lambda ranking, qrels: recall_at(ranking, qrels, 5),
    "recall@10": lambda ranking, qrels: recall_at(ranking, qrels, 10),
    "hit@5": lambda ranking, qrels: hit_at(ranking, qrels, 5),
    "mrr@10": lambda ranking, qrels: mrr_at(ranking, qrels, 10),
    "ndcg@10": lambda ranking, qrels: ndcg_at(ranking, qrels, 10),
}


def mean(values: Iterable[float | None]) -> tuple[float | None, int]:
    """Mean of what has a value, and how many had one."""
    known = [v for v in values if v is not None]
    return (sum(known) / len(known), len(known)) if known else (None, 0)


def _dcg(grades: Sequence[float]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))
