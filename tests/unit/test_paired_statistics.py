"""Paired tests and intervals against scipy, published values, exact coverage and the definition of closed testing."""

from __future__ import annotations

import itertools
from math import factorial

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from core.statistics import bootstrap, cases_needed, holm, mcnemar, paired_difference, sign_flip, upper_bound


@settings(max_examples=40)
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_upper_bound_is_the_quantile_of_the_beta_distribution(counts: tuple[int, int], confidence: float) -> None:
    events, n = counts
    expected = 1.0 if events == n else scipy.stats.beta.ppf(confidence, events + 1, n - events)
    assert upper_bound(events, n, confidence) == pytest.approx(expected, abs=1e-9)


def test_without_an_event_it_is_the_rule_of_three_and_without_a_case_it_knows_nothing() -> None:
    assert upper_bound(0, 300) == pytest.approx(3 / 300, rel=0.01)
    assert upper_bound(0, 0) == 1.0
    with pytest.raises(ValueError, match="events"):
        upper_bound(3, 2)


@pytest.mark.parametrize(("limit", "events", "needed"), [(0.05, 0, 59), (0.03, 0, 99), (0.01, 0, 299), (0.05, 2, 124)])
def test_cases_needed_are_those_of_the_published_tables(limit: float, events: int, needed: int) -> None:
    """59, 99 and 299 are the numbers of cases without event of the usual tables for 95 %."""
    assert cases_needed(limit, events) == needed
    assert upper_bound(events, needed) < limit <= upper_bound(events, needed - 1)


@settings(max_examples=40)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ(first: int, second: int) -> None:
    expected = scipy.stats.binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_of_thousands_of_pairs_does_not_overflow() -> None:
    assert mcnemar(3000, 3000) == 1.0
    assert 0 < mcnemar(2900, 3100) < 0.02


def test_newcombes_own_example() -> None:
    """Statistics in Medicine 17 (1998) 2635, table III: 36, 12, 2, 0 gives 0.0569 to 0.3404 by method 10 (first minus second)."""
    difference, low, high = paired_difference(36, 12, 2, 0)
    assert (difference, low, high) == pytest.approx((-0.2, -0.3404, -0.0569), abs=5e-5)
    assert paired_difference(36, 2, 12, 0) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)


def test_a_difference_of_nothing_is_not_known_and_equal_pairs_still_have_an_interval() -> None:
    assert paired_difference(0, 0, 0, 0) == (0.0, -1.0, 1.0)
    difference, low, high = paired_difference(40, 0, 0, 0)
    assert difference == 0.0
    assert -0.13 < low < 0 < high < 0.13  # Wald's interval would say [0, 0]


@pytest.mark.parametrize("chances", [(0.85, 0.06, 0.04, 0.05), (0.5, 0.2, 0.1, 0.2), (0.96, 0.02, 0.01, 0.01)])
def test_the_interval_of_a_difference_covers_what_it_promises(chances: tuple[float, float, float, float]) -> None:
    """Exact coverage at n = 24, summed over all 2,925 tables."""
    n, truth, covered = 24, chances[2] - chances[1], 0.0
    for a, b, c in itertools.product(range(n + 1), repeat=3):
        d = n - a - b - c
        if d < 0:
            continue
        weight = factorial(n) / (factorial(a) * factorial(b) * factorial(c) * factorial(d))
        weight *= chances[0] ** a * chances[1] ** b * chances[2] ** c * chances[3] ** d
        if weight < 1e-9:
            continue
        _, low, high = paired_difference(a, b, c, d)
        covered += weight * (low <= truth <= high)
    assert covered > 0.94


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_closed_testing_with_bonferroni(p_values: list[float]) -> None:
    """Adjusted p of a hypothesis = the largest Bonferroni p over all sets of hypotheses that hold it (Marcus et al., 1976)."""
    everything = range(len(p_values))
    for i, adjusted in enumerate(holm(p_values)):
        sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(everything, size) if i in s]
        expected = max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets)
        assert adjusted == pytest.approx(expected, abs=1e-12)
    assert holm([]) == []


def test_the_bootstrap_interval_agrees_with_scipys() -> None:
    values = list(np.random.default_rng(3).normal(0.1, 0.3, 120))
    low, high = bootstrap(values, np.random.default_rng(0), resamples=9999)
    reference = scipy.stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(1))
    assert (low, high) == pytest.approx((reference.confidence_interval.low, reference.confidence_interval.high), abs=0.004)
    assert bootstrap([], np.random.default_rng(0)) == (None, None)


def test_bootstrap_depends_on_the_generator_only() -> None:
    values = [0.1, 0.5, 0.9, 0.3]
    assert bootstrap(values, np.random.default_rng(7)) == bootstrap(values, np.random.default_rng(7))


@pytest.mark.parametrize("n", [3, 9, 40])
def test_flipped_signs_agree_with_scipys_permutation_test(n: int) -> None:
    values = np.random.default_rng(n).normal(0.25, 0.6, n)
    reference = scipy.stats.permutation_test(
        (values, np.zeros(n)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(0),
    )
    found = sign_flip(list(values), np.random.default_rng(1), resamples=9999)
    assert found == pytest.approx(reference.pvalue, abs=1e-9 if n <= 12 else 0.015)


def test_no_difference_is_no_evidence() -> None:
    assert sign_flip([], np.random.default_rng(0)) == 1.0
    assert sign_flip([0.0] * 30, np.random.default_rng(0)) == 1.0
    assert sign_flip([0.1] * 30, np.random.default_rng(0)) == 1 / 5000
