"""Rank metrics over one ranking and its judgements (`qrels`: document -> grade, above 0 is relevant). Pure.

Definitions are trec_eval's, so values equal pytrec_eval and ranx to 1e-9: nDCG has the linear gain, DCG = sum grade / log2(rank + 1);
precision divides by k even when fewer were found. A query without a relevant document has no value: the functions return None, and
`mean` leaves it out and says how many queries were counted. A number means little without its definition, the kind of gold, the
size of the corpus and what plain BM25 reaches there: `Threshold` keeps them together. Called by every measurement of retrieval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, TypedDict

Qrels = Mapping[str, float]
Metric = Callable[[Sequence[str], Qrels], "float | None"]
Gold = Literal["single", "pooled", "graded"]


class Threshold(TypedDict):
    """A value that a set must reach, and what is needed to read it. `bm25` is the baseline on the same set, None before it was run."""

    metric: str
    value: float
    definition: str
    gold: Gold
    corpus_size: int
    num_queries: int
    bm25: float | None
    #: "default", or "set" when the set brings its own
    source: str


def recall_at(ranking: Sequence[str], qrels: Qrels, k: int) -> float | None:
    """Share of the relevant documents among the first k."""
    relevant = {d for d, grade in qrels.items() if grade > 0}
    return len(relevant & set(ranking[:k])) / len(relevant) if relevant else None


def precision_at(ranking: Sequence[str], qrels: Qrels, k: int) -> float | None:
    """Share of the first k places that hold a relevant document; an empty place holds none."""
    relevant = {d for d, grade in qrels.items() if grade > 0}
    return len(relevant & set(ranking[:k])) / k if relevant else None


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
    "hit@10": lambda ranking, qrels: hit_at(ranking, qrels, 10),
    "precision@5": lambda ranking, qrels: precision_at(ranking, qrels, 5),
    "mrr@10": lambda ranking, qrels: mrr_at(ranking, qrels, 10),
    "ndcg@10": lambda ranking, qrels: ndcg_at(ranking, qrels, 10),
}
#: name before the @ -> what is computed per query, before the mean over queries; stored beside every threshold
DEFINITIONS = {
    "recall": "relevant documents among the first k / all relevant documents of the query (strict; not hit rate)",
    "hit": "1 if any of the first k documents is relevant, else 0",
    "precision": "relevant documents among the first k / k",
    "mrr": "1 / rank of the first relevant document, 0 beyond rank k",
    "ndcg": "DCG of the first k / ideal DCG, gain = grade (linear, trec_eval), discount log2(rank + 1)",
}


def definition(metric: str) -> str:
    """What `metric` ("recall@5") means. Raises KeyError for a metric that no report shows."""
    name, _, k = metric.partition("@")
    return DEFINITIONS[name].replace("first k", f"first {k}").replace("/ k", f"/ {k}").replace("rank k", f"rank {k}")


def gold_kind(qrels: Iterable[Qrels]) -> Gold:
    """single: one relevant document per query; graded: relevant ones differ in grade; pooled: several, all alike."""
    is_single = True
    grades: set[float] = set()
    for one in qrels:
        relevant = [grade for grade in one.values() if grade > 0]
        is_single = is_single and len(relevant) <= 1
        grades.update(relevant)
    return "graded" if len(grades) > 1 else "single" if is_single else "pooled"


def mean(values: Iterable[float | None]) -> tuple[float | None, int]:
    """Mean of what has a value, and how many had one."""
    known = [v for v in values if v is not None]
    return (sum(known) / len(known), len(known)) if known else (None, 0)


def _dcg(grades: Sequence[float]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))
