"""Rank metrics against independent implementations, and the fusion against its formula."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.retrieval.fuse import rrf
from core.retrieval.metrics import METRICS, definition, gold_kind, hit_at, mean, mrr_at, ndcg_at, precision_at, recall_at

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


#: rankings, judgements and what pytrec_eval 0.5.11 and ranx 0.3.21 (which agreed to 1e-9) gave for them
REFERENCE: list[dict[str, Any]] = json.loads((Path(__file__).parent / "rank_metrics_reference.json").read_text())


@pytest.mark.parametrize("case", REFERENCE)
def test_values_of_trec_eval_and_ranx(case: dict[str, Any]) -> None:
    ours = {name: metric(case["ranking"], case["qrels"]) for name, metric in METRICS.items()}
    assert ours == pytest.approx(case["expected"], abs=1e-9)


def test_live_against_pytrec_eval_where_it_is_installed() -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    rng = np.random.default_rng(3)
    for _ in range(20):
        qrels = {d: int(rng.integers(0, 4)) for d in rng.choice(DOCUMENTS, 6, replace=False)} | {"d0": 1}
        ranking = [str(d) for d in rng.permutation(DOCUMENTS)]
        measures = pytrec_eval.RelevanceEvaluator({"q": qrels}, {"recall.5", "P.5", "ndcg_cut.10"})
        found = measures.evaluate({"q": {d: 100.0 - rank for rank, d in enumerate(ranking)}})["q"]
        expected = (found["recall_5"], found["P_5"], found["ndcg_cut_10"])
        assert (recall_at(ranking, qrels, 5), precision_at(ranking, qrels, 5), ndcg_at(ranking, qrels)) == pytest.approx(expected, abs=1e-9)


def test_what_a_number_means_is_said_with_it() -> None:
    assert definition("recall@5") == "relevant documents among the first 5 / all relevant documents of the query (strict; not hit rate)"
    assert definition("precision@5").endswith("/ 5")
    assert gold_kind([{"a": 1}, {"b": 1, "c": 0}]) == "single"
    assert gold_kind([{"a": 1, "b": 1}]) == "pooled"
    assert gold_kind([{"a": 1}, {"b": 2}]) == "graded"


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
