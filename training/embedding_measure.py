"""How well an encoder finds the held-out questions' passages among all passages: every metric per question, and the gain over another.

Exhaustive search (cosine), so the figures are the encoder's and not an index's. Called by training.embedding and the benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.retrieval.dense import Encoder
from core.retrieval.metrics import METRICS, mean
from core.retrieval.trial import gate
from training.retrieval_pairs import Judged

DEPTH = 100
#: questions compared with all passages at once: bounds the memory
BLOCK = 128
#: what a gain is judged by
METRIC = "ndcg@10"

#: metric -> one value per question, None where the question has none
PerQuery = dict[str, list[float | None]]


def rank_all(questions: np.ndarray, passages: np.ndarray, ids: Sequence[str], depth: int = DEPTH) -> list[list[str]]:
    """Ids of the `depth` nearest passages of each question, best first. Vectors are unit rows; a zero question finds nothing."""
    found: list[list[str]] = []
    depth = min(depth, len(ids))
    for start in range(0, len(questions), BLOCK):
        scores = questions[start : start + BLOCK] @ passages.T
        top = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        for row, columns in zip(scores, top, strict=True):
            order = columns[np.argsort(-row[columns], kind="stable")]
            found.append([ids[i] for i in order if row[i] > 0])
    return found


def measure(encoder: Encoder, asked: Sequence[Judged], passages: Mapping[str, str]) -> PerQuery:
    """All of METRICS for each question."""
    ids = list(passages)
    vectors = encoder.encode([passages[i] for i in ids], is_query=False)
    rankings = rank_all(encoder.encode([one.query for one in asked], is_query=True), vectors, ids)
    return {name: [metric(found, one.grades) for found, one in zip(rankings, asked, strict=True)] for name, metric in METRICS.items()}


def means(values: PerQuery) -> dict[str, float | None]:
    """The mean of each metric over the questions that have one."""
    return {name: mean(found)[0] for name, found in values.items()}


def compare(before: PerQuery, after: PerQuery) -> dict[str, Any]:
    """What the gate says of the candidate on the same questions (bootstrap seeded with 0)."""
    return gate(before[METRIC], after[METRIC], np.random.default_rng(0), metric=METRIC).as_record()
