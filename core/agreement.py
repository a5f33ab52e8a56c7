"""How well people agree: raw agreement, Randolph's free-marginal kappa, Krippendorff's alpha, Gwet's AC1 and AC2, Cohen's kappa. Pure.

Ratings come as a table of counts, one row per case and one column per category: `counts[u, k]` people put case `u` into
category `k`. So any number of people per case, and missing ratings, are the ordinary case; a case with one rating pairs with
nothing and counts only where its author says so (AC1's category shares). Every coefficient is computed for many reweighted
copies of the cases at once, which is what makes a bootstrap clustered by case cheap. Called by `core.desk.measures`.

A coefficient that the data cannot decide (no pairs; alpha when everybody always says the same) is None, never 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000
#: share of resamples in which a coefficient must be defined before its interval is given
MIN_DEFINED = 0.9

Array = NDArray[np.float64]
Level = Literal["nominal", "ordinal"]
Coefficient = Callable[[Array, Array], Array]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A coefficient with its 95 % interval. None where the data do not decide. `num_cases` have at least two ratings."""

    value: float | None
    low: float | None
    high: float | None
    num_cases: int
    num_ratings: int


def count_table(ratings: Iterable[Sequence[Hashable | None]], categories: Sequence[Hashable]) -> Array:
    """Counts (cases, categories) of ratings given case by case; None is missing. Raises ValueError for an unknown category."""
    column = {category: k for k, category in enumerate(categories)}
    rows = []
    for given in ratings:
        row = [0.0] * len(categories)
        for rating in given:
            if rating is None:
                continue
            if rating not in column:
                raise ValueError(f"rating {rating!r} is none of {list(categories)}")
            row[column[rating]] += 1
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(categories))


def raw_agreement(counts: Array) -> float | None:
    """Share of agreeing pairs, averaged over the cases with two or more ratings (Fleiss 1971, eq. 2)."""
    return _once(_raw, counts)


def randolph_kappa(counts: Array) -> float | None:
    """Randolph's free-marginal kappa: raw agreement against 1/q (Randolph 2005, ERIC ED490661; Brennan and Prediger 1981)."""
    return _once(_randolph, counts)


def krippendorff_alpha(counts: Array, level: Level = "nominal") -> float | None:
    """Krippendorff's alpha from the coincidence matrix, missing ratings allowed (Krippendorff 2011, Computing alpha-reliability).

    `ordinal` measures distance by ranks, so near misses cost less; the columns of `counts` must then be in order.
    """
    return _once(_alpha_ordinal if level == "ordinal" else _alpha_nominal, counts)


def gwet_ac1(counts: Array) -> float | None:
    """Gwet's AC1 (Gwet 2008, Br J Math Stat Psychol 61:29; missing ratings as in his Handbook, 4th ed., 2014)."""
    return _once(_ac1, counts)


def gwet_ac2(counts: Array, weights: Array) -> float | None:
    """Gwet's AC2: AC1 with partial credit `weights[k, l]` in [0, 1], 1 on the diagonal (Gwet 2014, ch. 4)."""
    return _once(ac2(weights), counts)


def quadratic_weights(num_categories: int) -> Array:
    """1 - ((k - l) / (q - 1))^2."""
    k = np.arange(num_categories, dtype=np.float64)
    return np.asarray(1 - ((k[:, None] - k[None, :]) / max(1, num_categories - 1)) ** 2, dtype=np.float64)


def cohen_kappa(pairs: Array) -> float | None:
    """Cohen's kappa of two people (Cohen 1960, Educ Psychol Meas 20:37). `pairs` (cases, 2) holds category numbers."""
    return _once(_cohen(_num_categories(pairs)), pairs)


def estimate(counts: Array, name: str, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Estimate:
    """The coefficient `name` (a key of `COEFFICIENTS`) of a table of counts with its bootstrap interval."""
    ratings = counts.sum(axis=1)
    low, high = interval(COEFFICIENTS[name], counts, num_resamples=num_resamples, seed=seed)
    return Estimate(_once(COEFFICIENTS[name], counts), low, high, int((ratings >= 2).sum()), int(ratings.sum()))


def estimate_pair(pairs: Array, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Estimate:
    """Cohen's kappa of two people with its bootstrap interval."""
    low, high = interval(_cohen(_num_categories(pairs)), pairs, num_resamples=num_resamples, seed=seed)
    return Estimate(cohen_kappa(pairs), low, high, len(pairs), pairs.size)


def interval(
    coefficient: Coefficient, cases: Array, *, num_resamples: int = NUM_RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> tuple[float | None, float | None]:
    """Bias-corrected, accelerated bootstrap interval over cases (Efron 1987, JASA 82:171).

    Whole cases are drawn again, with all their ratings, because ratings of one case are not independent. Plain percentiles
    hold the truth in 93 of 100 samples of 48 cases, this in 95 (docs/benchmarks_desk.md). (None, None) with fewer than two
    cases, or when the coefficient is undefined in more than a tenth of the resamples.
    """
    n = len(cases)
    if n < 2:
        return None, None
    value = coefficient(cases, np.ones((1, n)))[0]
    rng = np.random.default_rng(seed)
    drawn = coefficient(cases, rng.multinomial(n, np.full(n, 1 / n), size=num_resamples).astype(np.float64))
    drawn = np.sort(drawn[np.isfinite(drawn)])
    if not math.isfinite(value) or len(drawn) < MIN_DEFINED * num_resamples:
        return None, None
    if drawn[0] == drawn[-1]:
        return float(drawn[0]), float(drawn[-1])
    normal = NormalDist()
    below = (np.count_nonzero(drawn < value) + 0.5 * np.count_nonzero(drawn == value)) / len(drawn)
    bias = normal.inv_cdf(min(max(below, 0.5 / len(drawn)), 1 - 0.5 / len(drawn)))
    acceleration = _acceleration(coefficient, cases)
    z = normal.inv_cdf(0.5 + confidence / 2)
    ends = []
    for side in (-z, z):
        shifted = bias + side
        ends.append(normal.cdf(bias + shifted / max(1e-9, 1 - acceleration * shifted)))
    return float(np.quantile(drawn, ends[0])), float(np.quantile(drawn, ends[1]))


def _acceleration(coefficient: Coefficient, cases: Array) -> float:
    """Skewness of the jackknife values over six; 0 when leaving a case out changes nothing or is undefined."""
    left_out = coefficient(cases, 1 - np.eye(len(cases)))
    left_out = left_out[np.isfinite(left_out)]
    if len(left_out) < 2:
        return 0.0
    away = left_out.mean() - left_out
    spread = float((away**2).sum()) ** 1.5
    return float((away**3).sum()) / (6 * spread) if spread > 0 else 0.0


def _once(coefficient: Coefficient, cases: Array) -> float | None:
    if len(cases) == 0:
        return None
    value = float(coefficient(cases, np.ones((1, len(cases))))[0])
    return value if math.isfinite(value) else None


# Below, `counts` is (cases, q) and `weights` (resamples, cases); every function returns one value per resample, NaN if undefined.


def _ratio(top: Array, bottom: Array) -> Array:
    out: Array = np.full(np.broadcast(top, bottom).shape, np.nan)
    return np.divide(top, bottom, out=out, where=np.abs(bottom) > 1e-12)


def _raw(counts: Array, weights: Array) -> Array:
    n = counts.sum(axis=1)
    paired = n >= 2
    share = _ratio((counts * (counts - 1)).sum(axis=1), n * (n - 1))
    return _ratio(weights[:, paired] @ share[paired], weights[:, paired].sum(axis=1))


def _randolph(counts: Array, weights: Array) -> Array:
    q = counts.shape[1]
    return np.asarray((_raw(counts, weights) - 1 / q) / (1 - 1 / q), dtype=np.float64)


def ac2(credit: Array) -> Coefficient:
    """AC2 for these weights, as a coefficient that `interval` accepts."""

    def coefficient(counts: Array, weights: Array) -> Array:
        q = counts.shape[1]
        n = counts.sum(axis=1)
        paired, rated = n >= 2, n >= 1
        share = _ratio((counts * (counts @ credit - 1)).sum(axis=1), n * (n - 1))
        agreed = _ratio(weights[:, paired] @ share[paired], weights[:, paired].sum(axis=1))
        common = (weights[:, rated] @ (counts[rated] / n[rated, None])) / weights[:, rated].sum(axis=1, keepdims=True)
        chance = credit.sum() / (q * (q - 1)) * (common * (1 - common)).sum(axis=1)
        return _ratio(agreed - chance, 1 - chance)

    return coefficient


def _ac1(counts: Array, weights: Array) -> Array:
    return ac2(np.eye(counts.shape[1]))(counts, weights)


def _alpha(counts: Array, weights: Array, level: Level) -> Array:
    n = counts.sum(axis=1)
    paired = counts[n >= 2]
    if len(paired) == 0:
        return np.full(len(weights), np.nan)
    q = counts.shape[1]
    values = paired[:, :, None] * paired[:, None, :] - paired[:, :, None] * np.eye(q)
    values /= paired.sum(axis=1)[:, None, None] - 1
    coincidences = (weights[:, n >= 2] @ values.reshape(len(paired), q * q)).reshape(-1, q, q)
    margin = coincidences.sum(axis=2)
    if level == "ordinal":
        rank = np.cumsum(margin, axis=1) - margin / 2
        distance = (rank[:, :, None] - rank[:, None, :]) ** 2
    else:
        distance = np.broadcast_to(1 - np.eye(q), coincidences.shape)
    observed = (coincidences * distance).sum(axis=(1, 2))
    expected = (margin[:, :, None] * margin[:, None, :] * distance).sum(axis=(1, 2))
    return np.asarray(1 - (margin.sum(axis=1) - 1) * _ratio(observed, expected), dtype=np.float64)


def _alpha_nominal(counts: Array, weights: Array) -> Array:
    return _alpha(counts, weights, "nominal")


def _alpha_ordinal(counts: Array, weights: Array) -> Array:
    return _alpha(counts, weights, "ordinal")


def _num_categories(pairs: Array) -> int:
    return int(pairs.max()) + 1 if pairs.size else 1


def _cohen(q: int) -> Coefficient:
    def coefficient(pairs: Array, weights: Array) -> Array:
        cell = (pairs[:, 0] * q + pairs[:, 1]).astype(int)
        table = (weights @ np.eye(q * q)[cell]).reshape(-1, q, q) / weights.sum(axis=1)[:, None, None]
        agreed = np.trace(table, axis1=1, axis2=2)
        chance = (table.sum(axis=2) * table.sum(axis=1)).sum(axis=1)
        return _ratio(agreed - chance, 1 - chance)

    return coefficient


#: name -> coefficient of a table of counts; screens and exports use these names
COEFFICIENTS: dict[str, Coefficient] = {
    "raw": _raw,
    "randolph": _randolph,
    "alpha_nominal": _alpha_nominal,
    "alpha_ordinal": _alpha_ordinal,
    "ac1": _ac1,
}
