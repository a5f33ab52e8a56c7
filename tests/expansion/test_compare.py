"""Two expanders on the same queries: paired, by slice, and only what both answered."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import UserError
from core.expansion.compare import MIN_SLICE, compare, mean_of, slices_of
from core.expansion.runs import Output, Report


def output(query: str, reward: float, language: str = "en", **values: Any) -> Output:
    one: Output = {
        "query": query, "language": language, "slices": {"language": language}, "output": "lex: x", "finished": True, "valid": True,
        "num_lines": 1, "num_bad": 0, "reward": reward, "rubric": reward, "points": 100 * reward, "maximum": 140, "rating": "good",
        "grounded": None, "dimensions": {"format": 30.0}, "recall_plain": None, "recall_expanded": None,
    }  # fmt: skip
    return {**one, **values}  # type: ignore[typeddict-item]


def report(**models: list[Output]) -> Report:
    made = {name: {"summary": {"valid_lines": 1.0}, "outputs": outputs} for name, outputs in models.items()}
    return {"name": "e", "source": "s", "corpus": "", "queries_hash": "", "settings": {}, "models": made}  # type: ignore[typeddict-item]


def test_the_difference_is_paired_and_its_interval_is_of_the_pairs() -> None:
    rewards = [i / 40 for i in range(40)]
    base = [output(f"q{i}", r) for i, r in enumerate(rewards)]
    better = [output(f"q{i}", r + 0.1 + 0.01 * (i % 2)) for i, r in enumerate(rewards)]
    found = compare(report(sft=base, grpo=better), "sft", "grpo").measures["reward"]
    assert found.difference == pytest.approx(0.105)
    assert 0.1 < found.ci_low < 0.105 < found.ci_high < 0.11, "the spread between queries must not widen a paired interval"
    assert found.p_value < 0.01
    assert found.n == 40


def test_slices_that_are_too_small_are_named_and_not_tested() -> None:
    rows = [output(f"e{i}", 0.5) for i in range(MIN_SLICE)] + [output("z", 0.5, "zh")]
    found = compare(report(a=rows, b=rows), "a", "b")
    assert [(s.by, s.value, s.p_holm) for s in found.slices] == [("language", "en", 1.0)]
    assert found.too_few == (("language", "zh", 1),)


def test_only_queries_that_both_answered_count() -> None:
    found = compare(report(a=[output("x", 0.2), output("y", 0.4)], b=[output("y", 0.5)]), "a", "b")
    assert [pair.query for pair in found.pairs] == ["y"]
    with pytest.raises(UserError, match="nothing_in_common"):
        compare(report(a=[output("x", 0.2)], b=[output("y", 0.5)]), "a", "b")


def test_a_measure_that_one_side_lacks_is_left_out() -> None:
    a = [output("x", 0.2, grounded=0.5, recall_expanded=1.0)]
    b = [output("x", 0.3, grounded=None, recall_expanded=0.0)]
    assert set(compare(report(a=a, b=b), "a", "b").measures) == {"reward", "rubric", "recall_expanded"}


def test_means_leave_out_what_is_unknown() -> None:
    assert mean_of([None, 0.5, None])["n"] == 1
    assert mean_of([None])["mean"] is None
    assert [(s["value"], s["n"]) for s in slices_of([output("a", 0.1), output("b", 0.2, "zh")])] == [("en", 1), ("zh", 1)]
