"""The gate, the arms, interleaving and the looks: what passes, what does not, and how often chance gets through."""

from __future__ import annotations

import numpy as np
import pytest

from core.retrieval.trial import (
    MIN_QUERIES,
    STEPS,
    arm_of,
    gate,
    interleave,
    interleaving_evidence,
    look,
    next_share,
    queries_needed,
    winner,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_large_sure_gain_passes_and_a_loss_is_named() -> None:
    base = rng(1).random(300) * 0.8
    better = np.clip(base + rng(2).normal(0.08, 0.1, 300), 0, 1)
    verdict = gate(base.tolist(), better.tolist(), rng())
    assert verdict.is_accepted
    assert verdict.ci_low is not None
    assert verdict.ci_low > 0
    assert gate(better.tolist(), base.tolist(), rng()).reason == "worse"


def test_a_sure_but_small_gain_stays_below_the_bar() -> None:
    base = np.full(500, 0.5)
    verdict = gate(base.tolist(), (base + 0.02 + rng(3).normal(0, 0.01, 500)).tolist(), rng())
    assert (verdict.is_accepted, verdict.reason) == (False, "gain_below_bar")
    assert verdict.relative_gain == pytest.approx(0.04, abs=0.005)


def test_a_large_gain_on_few_noisy_queries_is_not_enough() -> None:
    base, after = rng(4).random(40), rng(5).random(40) + 0.1
    verdict = gate(base.tolist(), after.tolist(), rng())
    assert verdict.reason == "not_significant"
    assert verdict.needed_for_seen is not None
    assert verdict.needed_for_seen > 40, "the report says how many queries would settle it"
    few = gate([0.1] * (MIN_QUERIES - 1), [0.9] * (MIN_QUERIES - 1), rng())
    assert few.reason == "too_few_queries"


def test_queries_without_a_value_are_left_out_not_counted_as_zero() -> None:
    verdict = gate([0.5, None, 0.5] * 20, [0.6, 1.0, 0.6] * 20, rng())
    assert (verdict.n, verdict.control) == (40, 0.5)
    assert gate([None], [1.0], rng()).n == 0
    with pytest.raises(ValueError, match="zip"):
        gate([0.1], [0.1, 0.2], rng())


def test_so_many_queries_are_needed() -> None:
    # textbook: (1.95996 + 0.84162)^2 = 7.8489; spread 0.3, difference 0.05
    assert queries_needed(0.3, 0.05) == 283
    assert queries_needed(0.3, 0.0) is None
    # and with that many queries a true gain of that size is indeed seen about four times in five
    seen = 0
    for seed in range(200):
        differences = rng(seed).normal(0.05, 0.3, 283)
        seen += differences.mean() - 1.96 * differences.std(ddof=1) / np.sqrt(283) > 0
    assert 0.70 <= seen / 200 <= 0.90


def test_chance_is_rarely_promoted() -> None:
    """A small version of benchmarks/retrieval_gate.py: same per-query difficulty, independent noise, no true difference."""
    promoted = 0
    for seed in range(150):
        draw = rng(seed)
        difficulty = draw.beta(0.6, 0.8, 120)
        control, candidate = (draw.binomial(10, difficulty) / 10 for _ in range(2))
        promoted += gate(control.tolist(), candidate.tolist(), draw).is_accepted
    assert promoted / 150 <= 0.05


def test_a_person_keeps_the_arm_and_moves_in_one_direction() -> None:
    keys = [f"user:{i}" for i in range(4000)]
    before: set[str] = set()
    for share in STEPS:
        now = {key for key in keys if arm_of("t1", key, share) == "candidate"}
        assert before <= now, "nobody who had the candidate loses it when the share grows"
        assert len(now) / len(keys) == pytest.approx(share, abs=0.03)
        before = now
    assert {arm_of("t1", key, 0.5) == arm_of("t2", key, 0.5) for key in keys} == {True, False}, "trials draw apart"
    assert [next_share(s) for s in (0.0, *STEPS)] == [*STEPS, None]


def test_interleaving_favours_no_rank_and_finds_the_better_ranking() -> None:
    draw = rng(7)
    firsts = [interleave(["a", "b", "c"], ["x", "y", "z"], 4, draw)[0][0] for _ in range(400)]
    assert firsts.count("a") / 400 == pytest.approx(0.5, abs=0.08)
    shown, teams = interleave(["a", "b"], ["b", "a"], 5, draw)
    assert sorted(shown) == ["a", "b"], "nothing twice, and it ends when both are used up"
    assert sorted(teams.values()) == ["candidate", "control"]
    assert winner({"a": "control", "x": "candidate"}, ["x"]) == "candidate"
    assert winner({"a": "control", "x": "candidate"}, ["x", "a"]) is None
    better, worse = interleaving_evidence(40, 15)
    assert better > 20 > 1 > worse


def test_a_harmful_candidate_is_stopped_and_a_harmless_one_rarely() -> None:
    draw = rng(8)
    stopped = 0
    for _ in range(200):
        control, candidate = (draw.binomial(1, 0.5, 600).tolist() for _ in range(2))
        stopped += any(look(control[: 100 * k], candidate[: 100 * k], k, draw).action == "stop" for k in range(1, 7))
    assert stopped / 200 <= 0.05
    bad = look(draw.binomial(1, 0.6, 400).tolist(), draw.binomial(1, 0.3, 400).tolist(), 1, draw)
    assert bad.action == "stop"
    assert look([1.0] * 10, [1.0] * 10, 1, draw).action == "hold", "ten asks are no reason to go on"
