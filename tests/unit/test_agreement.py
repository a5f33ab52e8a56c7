"""Agreement coefficients against published tables to 1e-6, and intervals against a simulation with a known truth."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from core import agreement
from core.agreement import Array, count_table

#: Krippendorff (2011), "Computing Krippendorff's alpha-reliability", part C: four observers, twelve units, missing data;
#: the same table is cac.raw4raters of Gwet's irrCAC. Published there: nominal .743, ordinal .815.
FOUR_OBSERVERS = [
    (1, 1, None, 1), (2, 2, 3, 2), (3, 3, 3, 3), (3, 3, 3, 3), (2, 2, 2, 2), (1, 2, 3, 4),
    (4, 4, 4, 4), (1, 1, 2, 1), (2, 2, 2, 2), (None, 5, 5, 5), (None, None, 1, 1), (None, None, 3, None),
]  # fmt: skip
#: Gwet (2014), Handbook of Inter-Rater Reliability, 4th ed.; cont3x3abstractors of his R package irrCAC
ABSTRACTORS = [[13, 0, 0], [0, 20, 7], [0, 4, 56]]
#: first fifteen of the thirty patients of Fleiss (1971), six psychiatrists; distrib.6raters of irrCAC
SIX_PSYCHIATRISTS = [
    [0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0], [2, 0, 4, 0, 0], [0, 0, 4, 0, 2],
    [2, 0, 3, 1, 0], [2, 0, 0, 4, 0], [0, 0, 0, 0, 6], [1, 0, 0, 5, 0], [1, 1, 0, 4, 0], [0, 3, 3, 0, 0], [1, 0, 0, 5, 0],
    [0, 2, 0, 3, 1],
]  # fmt: skip


def pairs_of(table: list[list[int]]) -> Array:
    return np.array([(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)], dtype=float)


def counts_of(pairs: Array, q: int) -> Array:
    return np.asarray(np.eye(q)[pairs.astype(int)].sum(axis=1))


def near(value: float) -> object:
    return pytest.approx(value, abs=1e-6)


def test_two_raters_three_categories() -> None:
    """Values printed by irrCAC for cont3x3abstractors, to seven digits."""
    pairs = pairs_of(ABSTRACTORS)
    counts = counts_of(pairs, 3)
    assert agreement.raw_agreement(counts) == near(0.89)
    assert agreement.cohen_kappa(pairs) == near(0.7964094)
    assert agreement.gwet_ac1(counts) == near(0.8493305)
    assert agreement.randolph_kappa(counts) == near(0.8350000)
    assert agreement.krippendorff_alpha(counts) == near(0.7972585)


def test_six_raters_five_categories() -> None:
    """Values printed by irrCAC for distrib.6raters, to seven digits."""
    counts = np.array(SIX_PSYCHIATRISTS, dtype=float)
    assert agreement.raw_agreement(counts) == near(0.5511111)
    assert agreement.gwet_ac1(counts) == near(0.4448007)
    assert agreement.randolph_kappa(counts) == near(0.4388889)
    assert agreement.krippendorff_alpha(counts) == near(0.4204384)


def test_four_raters_with_missing_ratings() -> None:
    """Krippendorff (2011) and irrCAC for cac.raw4raters: 0.8181818 and five digits of the coefficients, made exact below."""
    counts = count_table(FOUR_OBSERVERS, [1, 2, 3, 4, 5])
    assert agreement.raw_agreement(counts) == near(0.8181818)
    assert agreement.randolph_kappa(counts) == near(0.7727273)  # printed 0.77273: (0.8181818 - 0.2) / 0.8
    assert agreement.gwet_ac1(counts) == near((0.8181818182 - 0.1903212) / (1 - 0.1903212))  # printed pa and pe
    assert agreement.gwet_ac1(counts) == pytest.approx(0.77544, abs=5e-6)
    assert agreement.krippendorff_alpha(counts) == pytest.approx(0.743, abs=5e-4)
    assert agreement.krippendorff_alpha(counts) == near(float(alpha_by_definition(FOUR_OBSERVERS, is_ordinal=False)))
    assert agreement.krippendorff_alpha(counts, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert agreement.krippendorff_alpha(counts, "ordinal") == near(float(alpha_by_definition(FOUR_OBSERVERS, is_ordinal=True)))


def alpha_by_definition(units: list[tuple[int | None, ...]], *, is_ordinal: bool) -> Fraction:
    """Alpha pair by pair in exact fractions, straight from Krippendorff (2011), sections C and D."""
    values = [[v for v in unit if v is not None] for unit in units]
    values = [unit for unit in values if len(unit) > 1]
    margin = {c: Fraction(sum(unit.count(c) for unit in values)) for c in range(1, 6)}

    def distance(c: int, k: int) -> Fraction:
        if not is_ordinal:
            return Fraction(c != k)
        between = sum((margin[g] for g in range(min(c, k), max(c, k) + 1)), Fraction(0))
        return (between - (margin[c] + margin[k]) / 2) ** 2

    total = sum(margin.values())
    observed = sum(Fraction(2, len(unit) - 1) * distance(a, b) for unit in values for a, b in combinations(unit, 2)) / total
    everything = [v for unit in values for v in unit]
    expected = sum(2 * distance(a, b) for a, b in combinations(everything, 2)) / (total * (total - 1))
    return 1 - observed / expected


def test_cohens_paradox_is_no_paradox_for_ac1() -> None:
    """High agreement on a rare finding (Feinstein and Cicchetti 1990; Gwet 2008): 118, 5, 2, 0."""
    pairs = pairs_of([[118, 5], [2, 0]])
    kappa, ac1 = agreement.cohen_kappa(pairs), agreement.gwet_ac1(counts_of(pairs, 2))
    assert kappa == near(float(Fraction(118, 125) - Fraction(123 * 120 + 2 * 5, 125**2)) / (1 - (123 * 120 + 2 * 5) / 125**2))
    share = 7 / 250
    assert ac1 == near((0.944 - 2 * share * (1 - share)) / (1 - 2 * share * (1 - share)))
    assert kappa is not None
    assert ac1 is not None
    assert kappa < 0 < 0.9 < ac1


def test_ac2_is_ac1_without_partial_credit_and_forgives_near_misses() -> None:
    counts = count_table(FOUR_OBSERVERS, [1, 2, 3, 4, 5])
    assert agreement.gwet_ac2(counts, np.eye(5)) == agreement.gwet_ac1(counts)
    weighted = agreement.gwet_ac2(counts, agreement.quadratic_weights(5))
    assert weighted is not None
    assert weighted > (agreement.gwet_ac1(counts) or 0)


def test_what_the_data_do_not_decide_is_none() -> None:
    nothing = count_table([], ["a", "b"])
    single = count_table([("a",), ("b", None)], ["a", "b"])
    same = count_table([("a", "a")] * 9, ["a", "b"])
    for counts in (nothing, single):
        assert agreement.raw_agreement(counts) is None
        assert agreement.krippendorff_alpha(counts, "ordinal") is None
        assert agreement.gwet_ac1(counts) is None
        assert agreement.estimate(counts, "ac1").low is None
    assert agreement.raw_agreement(same) == 1
    assert agreement.krippendorff_alpha(same) is None
    assert agreement.estimate(same, "raw").low == 1
    with pytest.raises(ValueError, match="none of"):
        count_table([("c",)], ["a", "b"])


def test_an_interval_is_reproducible_and_holds_its_value() -> None:
    counts = np.array(SIX_PSYCHIATRISTS, dtype=float)
    for name in agreement.COEFFICIENTS:
        found = agreement.estimate(counts, name, seed=3)
        assert found == agreement.estimate(counts, name, seed=3)
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
        assert (found.num_cases, found.num_ratings) == (15, 90)


def test_intervals_hold_the_truth_about_95_times_in_100() -> None:
    """300 samples of 60 cases; the numbers of record (2000 samples, every coefficient) are in docs/benchmarks_desk.md."""
    rng = np.random.default_rng(11)
    num_cases, trials, accuracy = 60, 300, 0.85
    truth = accuracy**2 + (1 - accuracy) ** 2  # two people, two equally frequent answers, independent slips
    held = {"raw": 0, "ac1": 0}
    for trial in range(trials):
        hidden = rng.random((num_cases, 1)) < 0.5
        given = np.where(rng.random((num_cases, 2)) < accuracy, hidden, ~hidden).astype(int)
        counts = np.eye(2)[given].sum(axis=1)
        for name in held:
            low, high = agreement.interval(agreement.COEFFICIENTS[name], counts, num_resamples=300, seed=trial)
            target = truth if name == "raw" else 2 * truth - 1
            held[name] += low is not None and high is not None and low <= target <= high
    assert all(0.92 <= n / trials <= 0.98 for n in held.values()), held
