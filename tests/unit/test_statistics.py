"""Intervals against scipy, sample sizes against a simulation and published tables."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from core.statistics import votes_needed, wilson


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_wilson_equals_scipy(counts: tuple[int, int], confidence: float) -> None:
    successes, n = counts
    reference = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_half_wins_lie_between_their_neighbours() -> None:
    below, half, above = wilson(10, 20), wilson(10.5, 20), wilson(11, 20)
    assert below[0] < half[0] < above[0]
    assert below[1] < half[1] < above[1]


def test_nothing_counted_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_more_successes_than_trials_is_refused() -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson(3, 2)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("n", [60, 200])
def test_a_95_percent_interval_covers_95_percent(share: float, n: int) -> None:
    """Exact coverage, summed over all outcomes."""
    covered = sum(binom.pmf(k, n, share) for k in range(n + 1) if wilson(k, n)[0] <= share <= wilson(k, n)[1])
    assert 0.93 < covered < 0.97


@pytest.mark.parametrize(("share", "needed"), [(0.55, 783), (0.60, 194), (0.65, 85), (0.70, 47)])
def test_votes_needed_are_the_textbook_numbers(share: float, needed: int) -> None:
    assert votes_needed(share) == needed


def test_votes_needed_give_the_promised_power() -> None:
    n, rng, num_seen = votes_needed(0.6), random.Random(0), 0
    for _ in range(4000):
        wins = sum(rng.random() < 0.6 for _ in range(n))
        num_seen += abs(wins / n - 0.5) / (0.25 / n) ** 0.5 > 1.959964
    assert 0.77 < num_seen / 4000 < 0.83
