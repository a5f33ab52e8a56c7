"""The decision engine on its bands and on sets whose right verdict is known; failure categories with their reasons."""

from __future__ import annotations

from typing import Any

import pytest

from core.retrieval.decision import Facts, decide
from core.retrieval.failures import CATEGORIES, classify, is_failure
from core.retrieval.metrics import Threshold

GOOD = {"recall@5": 0.9, "recall@10": 0.92, "mrr@10": 0.8}


def facts(**values: Any) -> Facts:
    return Facts(**{"metrics": GOOD, "num_queries": 500, "failures": {}, **values})


def test_cmedir_needs_a_reranker_and_no_fine_tuning() -> None:
    # figures of the published search: recall is fine, the order is not
    measured = {"recall@5": 0.813, "recall@10": 0.883, "mrr@10": 0.596}
    decision = decide(facts(metrics=measured, failures={"ranking_issue": 200, "terminology_mismatch": 150}, failure_rate=0.12))
    assert decision.level == "no_finetuning_needed"
    assert decision.actions == ("rerank_first",)


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ({"metrics": {**GOOD, "recall@10": 0.85}}, "no_finetuning_needed"),
        ({"metrics": {"recall@5": 0.6, "recall@10": 0.849, "mrr@10": 0.5}}, "recommended"),
        ({"metrics": {"recall@5": 0.6, "recall@10": 0.75, "mrr@10": 0.5}}, "recommended"),
        ({"metrics": {"recall@5": 0.6, "recall@10": 0.749, "mrr@10": 0.5}}, "critical"),
        ({"satisfaction": 4.2}, "no_finetuning_needed"),
        ({"satisfaction": 4.19}, "recommended"),
        ({"satisfaction": 3.49}, "critical"),
        ({"failure_rate": 0.079}, "no_finetuning_needed"),
        ({"failure_rate": 0.08}, "recommended"),
        ({"failure_rate": 0.151}, "critical"),
        ({"issue_rate": 0.079}, "no_finetuning_needed"),
        ({"issue_rate": 0.10}, "monitor"),
        ({"issue_rate": 0.16}, "recommended"),
        ({"num_queries": 12}, "monitor"),
    ],
)
def test_the_bands(values: dict[str, Any], level: str) -> None:
    assert decide(facts(**values)).level == level


def test_causes_decide_what_comes_first() -> None:
    low = {"recall@5": 0.5, "recall@10": 0.7, "mrr@10": 0.4}
    terms = decide(facts(metrics=low, failures={"terminology_mismatch": 40, "ranking_issue": 60}))
    assert (terms.level, terms.actions) == ("critical", ("rerank_first", "fine_tune"))
    missing = decide(facts(metrics=low, failures={"document_coverage": 80, "ranking_issue": 20}))
    assert (missing.level, missing.severity, missing.actions) == ("monitor", "critical", ("add_documents",))
    neither = decide(facts(metrics=low, failures={"context_dependency": 80}))
    assert (neither.level, neither.actions) == ("critical", ("fine_tune",))
    few = decide(facts(metrics=low, failures={"document_coverage": 3}))
    assert few.actions == ("fine_tune",), "three failures say nothing about their cause"


def test_a_set_may_carry_its_own_thresholds_and_a_foreign_default_is_named() -> None:
    base: Threshold = {
        "metric": "recall@10", "value": 0.3, "definition": "", "gold": "single", "corpus_size": 36_000, "num_queries": 500,
        "bm25": 0.2, "source": "set",
    }  # fmt: skip
    low = {"recall@5": 0.75, "recall@10": 0.31, "mrr@10": 0.71}
    assert decide(facts(metrics=low), {"recall@10": base}).level == "no_finetuning_needed"
    default: Threshold = {**base, "value": 0.85, "source": "default"}
    decision = decide(facts(metrics=low), {"recall@10": default})
    assert decision.level == "critical"
    assert "threshold_far" in {signal.key for signal in decision.signals}


def test_what_is_not_known_decides_nothing_and_is_not_zero() -> None:
    decision = decide(facts(metrics={"recall@10": None}))
    assert decision.level == "no_finetuning_needed"
    assert decision.sheet.failures_per_month is None
    assert decision.sheet.payback_months is None
    assert {check.key: check.is_done for check in decision.checklist}["reranker"] is None
    paid = decide(facts(failure_rate=0.2, failures={"terminology_mismatch": 100}, num_pairs=100)).sheet
    assert paid.pairs_missing == 400
    assert paid.payback_months == pytest.approx(paid.total_cost / (2000 * 0.2 * 0.15 * 4 / 60 * 60))


def weight(token: str) -> float:
    return 1.0 if token in {"the", "of"} else 5.0


@pytest.mark.parametrize(
    ("category", "query", "relevant", "ranking", "legs", "first"),
    [
        ("document_coverage", "dosage of warfarin", {}, ["x"], {}, "other"),
        ("language_mixing", "metformin 二甲双胍 有什么副作用", {"r": "二甲双胍的副作用"}, ["x"], {}, "other"),
        ("language_mixing", "头痛怎么办", {"r": "Headache: rest in a dark room."}, ["x"], {}, "other"),
        ("ranking_issue", "migraine treatment triptans", {"r": "triptans treat migraine"}, ["x"] * 6 + ["r"], {"bm25": ["x", "r"]}, "z"),
        ("terminology_mismatch", "heart attack warning pain", {"r": "myocardial infarction prodrome"}, ["x"], {"bm25": ["x"]}, "z"),
        ("context_dependency", "is it dangerous", {"r": "Long drives are dangerous for sleepy people"}, ["x"], {"bm25": ["x"]}, "z"),
        (
            "legal_nuance", "am I eligible for early release of super", {"r": "conditions for early release of super"}, ["x"],
            {"bm25": ["x", "r"]},
            "who is eligible for early release of super on death",
        ),
    ],
)  # fmt: skip
def test_failures_get_a_category_with_a_reason(
    category: str, query: str, relevant: dict[str, str], ranking: list[str], legs: dict[str, list[str]], first: str
) -> None:
    failure = classify(query, relevant, ranking, legs, first, weight)
    assert failure.category == category
    assert failure.reason
    assert category in CATEGORIES


def test_a_failure_is_nothing_relevant_among_the_first_five() -> None:
    assert is_failure(["a", "b", "c", "d", "e", "r"], {"r"})
    assert not is_failure(["a", "b", "c", "d", "r"], {"r"})
