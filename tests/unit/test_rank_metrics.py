"""Rank metrics against independent implementations, and the fusion against its formula."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.retrieval.fuse import rrf
from core.retrieval.metrics import METRICS, hit_at, mean, mrr_at, ndcg_at, recall_at

DOCUMENTS = [f"d{i}" for i in range(12)]
RANKINGS = st.permutations(DOCUMENTS).flatmap(lambda p: st.integers(0, len(p)).map(lambda n: p[:n]))
QRELS = st.dictionaries(st.sampled_from([*DOCUMENTS, "x1", "x2"]), st.integers(0, 3), max_size=8)


def independent(ranking: list[str], qrels: dict[str, int], k: int) -> dict[str, float] | None:
    """The textbook's definitions with numpy, written apart from core.retrieval.metrics."""
    gains = np.array([qrels.get(d, 0) for d in ranking[:k]], dtype=float)
    ideal = np.sort(np.array(list(qrels.values()) or [0], dtype=float))[::-1][:k]
    if ideal.max() <= 0:
        return None
    discount = 1 / np.log2(np.arange(2, k + 2))
    hits = np.flatnonzero(gains)
    num_relevant = sum(grade > 0 for grade in qrels.values())
    return {
        "recall": len(hits) / num_relevant,
        "hit": float(len(hits) > 0),
        "mrr": 1 / (hits[0] + 1) if len(hits) else 0.0,
        "ndcg": float((gains * discount[: len(gains)]).sum() / (ideal * discount[: len(ideal)]).sum()),
    }


@given(RANKINGS, QRELS, st.integers(1, 12))
def test_against_an_independent_implementation(ranking: list[str], qrels: dict[str, int], k: int) -> None:
    ours = {
        "recall": recall_at(ranking, qrels, k),
        "hit": hit_at(ranking, qrels, k),
        "mrr": mrr_at(ranking, qrels, k),
        "ndcg": ndcg_at(ranking, qrels, k),
    }
    expected = independent(ranking, qrels, k)
    if expected is None:
        assert set(ours.values()) == {None}, "a query without a relevant document has no value, not zero"
    else:
        assert ours == pytest.approx(expected)


def test_a_known_case_by_hand() -> None:
    # one grade-2 document at rank 3 and one grade-1 document never found
    value = ndcg_at(["a", "b", "c"], {"c": 2, "z": 1}, 10)
    assert value == pytest.approx((2 / math.log2(4)) / (2 / math.log2(2) + 1 / math.log2(3)))
    assert mrr_at(["a", "b", "c"], {"c": 2}) == pytest.approx(1 / 3)


def test_mean_leaves_out_what_has_no_value() -> None:
    assert mean([1.0, None, 0.0]) == (0.5, 2)
    assert mean([None]) == (None, 0)
    assert set(METRICS) == {"recall@5", "recall@10", "hit@5", "mrr@10", "ndcg@10"}


def test_fusion_follows_its_formula() -> None:
    fused = dict(rrf([["a", "b"], ["b", "c"]], [1, 2]))
    assert fused["a"] == pytest.approx(float(Fraction(1, 61)))
    assert fused["b"] == pytest.approx(float(Fraction(1, 62) + 2 * Fraction(1, 61)))
    assert fused["c"] == pytest.approx(float(2 * Fraction(1, 62)))


@given(st.lists(st.permutations(DOCUMENTS), min_size=1, max_size=4))
def test_fusing_a_ranking_with_itself_keeps_it(rankings: list[list[str]]) -> None:
    assert [d for d, _ in rrf([rankings[0]] * 3)] == list(rankings[0])
    assert {d for d, _ in rrf(rankings)} == set(DOCUMENTS)


def test_wrong_number_of_weights() -> None:
    with pytest.raises(ValueError, match="2 rankings but 1 weights"):
        rrf([["a"], ["b"]], [1])
