"""The sequential tests of the watch: exact against integration, and seldom wrong however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from core.sequential import fisher_more_often, log_evidence, share_of_look

ERROR_RATE = 0.05


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (1, 0), (0, 3), (5, 5), (12, 3), (40, 25)])
def test_the_evidence_is_the_mixture_likelihood_ratio(worse: int, better: int) -> None:
    expected, _ = integrate.quad(lambda p: 2 * (2 * p) ** worse * (2 - 2 * p) ** better, 0.5, 1)
    assert math.exp(log_evidence(worse, better)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("new", "old"), [((3, 40), (1, 50)), ((0, 10), (0, 10)), ((5, 5), (0, 5)), ((2, 30), (9, 12))])
def test_the_exact_test_is_fishers(new: tuple[int, int], old: tuple[int, int]) -> None:
    table = [[new[0], new[1] - new[0]], [old[0], old[1] - old[0]]]
    assert fisher_more_often(*new, *old) == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue)


def test_all_looks_together_spend_the_error_rate() -> None:
    assert sum(share_of_look(k, ERROR_RATE) for k in range(1, 20_000)) == pytest.approx(ERROR_RATE, abs=1e-5)


def one_promotion(rng: np.random.Generator, harm: float, num_looks: int = 12) -> int:
    """The look at which a roll-back is proposed, 0 for never: 40 prompts of unequal danger, 30 looked-at answers per look."""
    before = rng.uniform(0.02, 0.6, 40)
    now = np.minimum(1.0, before + harm)
    worse = better = 0
    cases, answers = [0, 0], [200, 0]
    cases[0] = int(rng.binomial(200, 0.03))
    for number in range(1, num_looks + 1):
        new, old = rng.random(40) < now, rng.random(40) < before
        worse += int((new & ~old).sum())
        better += int((old & ~new).sum())
        answers[1] += 30
        cases[1] += int(rng.binomial(30, 0.03 + harm / 2))
        is_red = log_evidence(worse, better) >= math.log(2 / ERROR_RATE)
        is_incoming = fisher_more_often(cases[1], answers[1], cases[0], answers[0]) <= share_of_look(number, ERROR_RATE / 2)
        if is_red or is_incoming:
            return number
    return 0


def test_a_thousand_harmless_promotions_give_few_false_proposals() -> None:
    rng = np.random.default_rng(7)
    false = sum(one_promotion(rng, harm=0.0) > 0 for _ in range(1000))
    assert false <= 1000 * ERROR_RATE


def test_a_harmful_promotion_is_noticed_within_a_few_looks() -> None:
    rng = np.random.default_rng(8)
    looks = [one_promotion(rng, harm=0.15) for _ in range(100)]
    assert sum(number > 0 for number in looks) >= 95
    assert float(np.median(looks)) <= 5
