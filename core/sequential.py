"""Tests that may be looked at again and again without their error rate growing. Pure, exact arithmetic.

Red-team pairs: let w be the number of (prompt, look) in which the new version alone failed and b that in which the old one alone
failed. Under "over the whole set, the new version fails no more often", the mixture likelihood ratio

    E = integral over p in (1/2, 1) of 2 * (2p)^w * (2 - 2p)^b dp  =  sum_{k<=w} C(w+b+1, k) / ((w+b+1) * C(w+b, w))

has expectation at most 1 at every look (each prompt's bet pays 1 + c*(worse - better); the arithmetic mean bounds the product),
so the chance that it ever reaches 1/alpha is at most alpha (Ville 1939; mixture SPRT: Robbins 1970, Johari et al. 2022).
Safety cases: Fisher's exact test at every look, look k at alpha * 6 / (pi^2 k^2); these add up to alpha over all looks.
Called by core.watch.
"""

from __future__ import annotations

import math


def log_evidence(num_worse: int, num_better: int) -> float:
    """Natural log of E; 0 before any discordant pair. Raises ValueError for negative counts."""
    if num_worse < 0 or num_better < 0:
        raise ValueError(f"{num_worse} worse and {num_better} better pairs")
    n = num_worse + num_better
    term = total = 1
    for k in range(1, num_worse + 1):
        term = term * (n + 2 - k) // k
        total += term
    return math.log(total) - math.log((n + 1) * math.comb(n, num_worse))


def fisher_more_often(cases_new: int, answers_new: int, cases_old: int, answers_old: int) -> float:
    """One-sided p of Fisher's exact test: the chance of at least `cases_new` among the new answers when both share one rate.

    Raises ValueError when there are more cases than answers.
    """
    if not (0 <= cases_new <= answers_new and 0 <= cases_old <= answers_old):
        raise ValueError(f"{cases_new} of {answers_new} and {cases_old} of {answers_old}")
    cases, answers = cases_new + cases_old, answers_new + answers_old
    top = min(cases, answers_new)
    ways = sum(math.comb(answers_new, k) * math.comb(answers_old, cases - k) for k in range(cases_new, top + 1) if cases - k <= answers_old)
    return min(1.0, ways / math.comb(answers, cases)) if answers else 1.0


def share_of_look(look: int, alpha: float) -> float:
    """What look number `look` (1, 2, ...) may spend of `alpha`; all looks together spend `alpha`."""
    return alpha * 6 / (math.pi**2 * look**2)
