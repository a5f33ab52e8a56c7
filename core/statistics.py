"""Statistics of decisions and of paired measurements: shares, differences, tests, and how many cases are still missing. Pure.

Every function names its source and is held against an independent implementation in tests/unit/test_statistics.py. Where a
random generator is asked for, the same generator state gives the same result. Called by the standings of the bench, the
evaluation and the gates of promotion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
POWER = 0.80
RESAMPLES = 2000


def wilson(successes: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share; `successes` may hold halves (ties). n = 0 knows nothing: (0, 1).

    E. B. Wilson, JASA 22 (1927) 209. With ties as halves the interval is a little too wide, never too narrow.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - spread) / (1 + z * z / n), (centre + spread) / (1 + z * z / n)
    return max(0.0, low), min(1.0, high)


def votes_needed(share: float = 0.6, power: float = POWER, confidence: float = CONFIDENCE) -> int:
    """Decisive votes after which a true `share` against one half is seen with this power (two-sided test of a proportion)."""
    if not 0.5 < share < 1:
        raise ValueError(f"a share of {share} is no preference")
    z_alpha, z_beta = NormalDist().inv_cdf(0.5 + confidence / 2), NormalDist().inv_cdf(power)
    return math.ceil(((z_alpha * 0.5 + z_beta * math.sqrt(share * (1 - share))) / (share - 0.5)) ** 2)


def upper_bound(events: int, n: int, confidence: float = CONFIDENCE) -> float:
    """One-sided Clopper-Pearson upper bound of a rate after `events` in `n` independent cases; 1.0 for n = 0.

    C. J. Clopper and E. S. Pearson, Biometrika 26 (1934) 404: the rate at which so few events have probability 1 - confidence.
    Without an event it is 1 - (1 - confidence)**(1/n), about 3/n: the rule of three (Hanley and Lippman-Hand, JAMA 249, 1983, 1743).
    """
    if not 0 <= events <= n:
        raise ValueError(f"{events} events of {n}")
    if events == n:
        return 1.0
    low, high = events / n, 1.0
    for _ in range(100):  # the tail falls with the rate, so it can be bisected
        middle = (low + high) / 2
        if _binomial_cdf(events, n, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def cases_needed(limit: float, events: int = 0, confidence: float = CONFIDENCE) -> int:
    """The smallest number of cases in which `events` events put `upper_bound` under `limit` (0 < limit < 1)."""
    if not 0 < limit < 1:
        raise ValueError(f"{limit} is no rate")
    low, high = events, max(2, events + 1)
    while upper_bound(events, high, confidence) >= limit:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if upper_bound(events, middle, confidence) >= limit else (low, middle)
    return high


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that neither of two paired yes/no results is yes more often; 1.0 when they never differ.

    Q. McNemar, Psychometrika 12 (1947) 153, by the binomial distribution of the pairs that differ (never an approximation).
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"{only_first} and {only_second} pairs")
    n = only_first + only_second
    tail, ways = 0, 1
    for i in range(min(only_first, only_second) + 1):
        tail += ways
        ways = ways * (n - i) // (i + 1)
    return min(1.0, float(2 * tail / 2**n)) if n else 1.0


def paired_difference(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """(second minus first, low, high) of two paired proportions. Without pairs (0, -1, 1): nothing is known.

    R. G. Newcombe, Statistics in Medicine 17 (1998) 2635, method 10: Wilson's intervals of both margins, squared and added with
    the correlation of the pairs (phi with his continuity correction). Keeps its cover where Wald's interval fails, at 0 and 1.
    """
    n = both + only_first + only_second + neither
    if min(both, only_first, only_second, neither) < 0:
        raise ValueError(f"{both}, {only_first}, {only_second}, {neither} pairs")
    if n == 0:
        return 0.0, -1.0, 1.0
    first, second = both + only_first, both + only_second
    p1, p2 = first / n, second / n
    (l1, u1), (l2, u2) = wilson(first, n, confidence), wilson(second, n, confidence)
    margins = first * (n - first) * second * (n - second)
    phi = 0.0
    if margins:
        product = both * neither - only_first * only_second
        phi = (max(product - n / 2, 0) if product > 0 else product) / math.sqrt(margins)
    difference = p2 - p1
    low = math.sqrt(max(0.0, (p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2))
    high = math.sqrt(max(0.0, (u2 - p2) ** 2 - 2 * phi * (u2 - p2) * (p1 - l1) + (p1 - l1) ** 2))
    return difference, max(-1.0, difference - low), min(1.0, difference + high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order given: each may be held against alpha, and the chance of any false alarm stays below it.

    S. Holm, Scandinavian Journal of Statistics 6 (1979) 65. Needs no independence.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def bootstrap(
    values: Sequence[float], rng: np.random.Generator, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Percentile interval of the mean over resamples of the rows; (None, None) without values.

    B. Efron, Annals of Statistics 7 (1979) 1. Given the differences of pairs it is the paired bootstrap.
    """
    if not values:
        return None, None
    numbers = np.asarray(values, dtype=float)
    means = numbers[rng.integers(0, len(numbers), (resamples, len(numbers)))].mean(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def sign_flip(differences: Sequence[float], rng: np.random.Generator, *, resamples: int = 4999) -> float:
    """Two-sided p-value that paired differences scatter around zero: how often randomly flipped signs give so large a mean.

    R. A. Fisher, The Design of Experiments (1935), section 21; up to 12 pairs every flip is counted, beyond that by simulation
    with (hits + 1) / (resamples + 1) (Phipson and Smyth, 2010), so p is never 0. 1.0 without pairs.
    """
    numbers = np.asarray(differences, dtype=float)
    n = len(numbers)
    if n == 0:
        return 1.0
    seen = abs(numbers.sum()) * (1 - 1e-12)
    if n <= 12:
        flips = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float(np.mean(np.abs(flips @ numbers) >= seen))
    flips = 1.0 - 2.0 * rng.integers(0, 2, (resamples, n))
    return float((np.sum(np.abs(flips @ numbers) >= seen) + 1) / (resamples + 1))


def _binomial_cdf(k: int, n: int, rate: float) -> float:
    """P(X <= k) of Binomial(n, rate), by logarithms so that large n neither over- nor underflows."""
    if rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0 if k < n else 1.0
    log_p, log_q, whole = math.log(rate), math.log1p(-rate), math.lgamma(n + 1)
    terms = [whole - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * log_p + (n - i) * log_q for i in range(k + 1)]
    highest = max(terms)
    return min(1.0, math.exp(highest) * sum(math.exp(term - highest) for term in terms))
