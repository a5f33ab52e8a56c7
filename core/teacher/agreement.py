"""How steady a teacher is, in numbers: agreement of second opinions, and whether two windows of scores differ. Pure.

Kolmogorov-Smirnov: exact enough by scipy's two-sample test. PSI: sum over bins of (p - q) ln(p / q), half a count added to each
bin; with windows of 200 and ten bins chance alone gives about 0.09, and 0.25 is the usual line for "has shifted".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.statistics import wilson

NUM_BINS = 10
Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of `num` texts judged twice. `mean_abs` in score units with its 95 % interval; `flips` of `num_flags` safety flags."""

    num: int
    mean_abs: float | None
    low: float | None
    high: float | None
    #: second minus first, on average: a teacher that has become milder is above zero
    shift: float | None
    num_flags: int
    flips: int
    flips_low: float
    flips_high: float


def agreement(scores: Sequence[tuple[float, float]], flags: Sequence[tuple[bool | None, bool | None]]) -> Agreement:
    """First and second opinions of the same texts, in pairs. Intervals: normal for the mean, Wilson for the flips."""
    both = [(a, b) for a, b in flags if a is not None and b is not None]
    flips = sum(a != b for a, b in both)
    low, high = wilson(flips, len(both))
    if not scores:
        return Agreement(0, None, None, None, None, len(both), flips, low, high)
    gaps = np.abs(np.array([a - b for a, b in scores]))
    mean, n = float(gaps.mean()), len(gaps)
    spread = Z_95 * float(gaps.std(ddof=1)) / math.sqrt(n) if n > 1 else 1.0  # one pair says nothing about the next
    shift = float(np.mean([b - a for a, b in scores]))
    return Agreement(n, mean, max(0.0, mean - spread), min(1.0, mean + spread), shift, len(both), flips, low, high)


def psi(before: Sequence[float], after: Sequence[float], num_bins: int = NUM_BINS) -> float:
    """Population stability index of scores in [0, 1] over equal bins. 0 for equal shares; raises ValueError without scores."""
    if not before or not after:
        raise ValueError("a window without scores")
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    p = (np.histogram(before, edges)[0] + 0.5) / (len(before) + 0.5 * num_bins)
    q = (np.histogram(after, edges)[0] + 0.5) / (len(after) + 0.5 * num_bins)
    return float(((q - p) * np.log(q / p)).sum())


def ks(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Two-sample Kolmogorov-Smirnov: the largest distance of the two distributions, and its p-value."""
    from scipy.stats import ks_2samp

    found = ks_2samp(before, after)
    return float(found.statistic), float(found.pvalue)
