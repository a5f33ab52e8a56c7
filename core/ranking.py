"""Strengths of three or more versions from pairwise votes: Bradley-Terry, raw and with style held constant. Pure.

P(left wins) = sigmoid(strength[left] - strength[right] + x @ effects). `x` holds what should not count: which side, difference in
length, in formatting. A tie is half a win for either. The effects are estimated beside the strengths (as Chatbot Arena's style
control does), so a version that wins by writing more falls when length is held constant; both figures are shown, never one alone.

R. A. Bradley and M. E. Terry, Biometrika 39 (1952) 324; H. Stern and A. Agresti for covariates (Categorical Data Analysis, 10.6).
Called by the bench's standings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from core.statistics import CONFIDENCE

Floats = NDArray[np.float64]

#: a prior of this many tied votes of every version against the average: without it, a version that never lost is infinitely strong
PRIOR = 0.1
STEPS = 50
#: Satterthwaite's degrees of freedom of few clusters scatter so much that intervals come out too wide; they are never put below this
#: share of the smaller number of clusters less one. Chosen by simulation (docs/benchmarks_bench.md)
LEAST_DEGREES = 0.5


@dataclass(frozen=True, slots=True)
class Battle:
    """One vote: `won` is 1.0 for left, 0.0 for right, 0.5 for a tie. `question` and `voter` say what hangs together."""

    left: str
    right: str
    won: float
    question: int = 0
    voter: int = 0
    #: left minus right of what is held constant, in units of its own spread
    style: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """Strength in natural-log odds (0 is the average) with its interval, and the expected share of wins against an average version."""

    name: str
    strength: float
    low: float
    high: float
    num_votes: int

    @property
    def win_rate(self) -> float:
        return float(1 / (1 + np.exp(-self.strength)))


@dataclass(frozen=True, slots=True)
class Ranking:
    """Strongest first. `effects` are (estimate, low, high) of each column of `style`; `is_connected` is False when the votes fall into
    groups that never met, whose strengths cannot be compared."""

    standings: tuple[Standing, ...]
    effects: tuple[tuple[float, float, float], ...]
    is_connected: bool


def win_rate(wins: float, ties: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """(rate, low, high) of a side that won `wins` and tied `ties` of `n` votes, a tie being half a win. n = 0 knows nothing: (0.5, 0, 1).

    Wilson's score interval (JASA 22, 1927, 209) for a vote that may be a half: under a true rate r with a share d of ties one vote has
    the variance r(1 - r) - d / 4, and the interval holds every r that the votes do not contradict. Without ties it is Wilson's own;
    with ties Wilson's own, which takes a half for a coin, would be too wide. d is taken a little low, as ties / (n + 2).
    """
    if not 0 <= wins + ties <= n:
        raise ValueError(f"{wins} wins and {ties} ties of {n}")
    if n == 0:
        return 0.5, 0.0, 1.0
    share = (wins + ties / 2) / n
    k = NormalDist().inv_cdf(0.5 + confidence / 2) ** 2 / n
    drawn = ties / (n + 2)
    middle = 2 * share + k
    root = math.sqrt(max(0.0, middle * middle - (1 + k) * (4 * share * share + k * drawn)))
    return share, max(0.0, (middle - root) / (2 + 2 * k)), min(1.0, (middle + root) / (2 + 2 * k))


def rank(battles: Sequence[Battle], *, with_style: bool, resamples: int = 300, seed: int = 0, confidence: float = CONFIDENCE) -> Ranking:
    """Fit, and bootstrap by question, by voter and by both together: votes on one question, and votes of one person, hang together.

    The variance is that of resampling questions plus that of resampling voters minus that of resampling their crossings, which both
    count (A. C. Cameron, J. B. Gelbach, D. L. Miller, JBES 29, 2011, 238); few voters make the interval wider through Student's t
    with Satterthwaite's degrees of freedom (see LEAST_DEGREES). Resampling both at once would be too wide (A. B. Owen, Annals of
    Applied Statistics 1, 2007, 386). One voter alone is no sample of voters: the interval then speaks of that person. Without battles
    an empty ranking.
    """
    names = sorted({name for battle in battles for name in (battle.left, battle.right)})
    if not names:
        return Ranking((), (), True)
    design, won = _design(battles, names, with_style)
    num = len(names)
    estimate = fit(design, won, np.ones(len(battles)), num)
    reach = _reach(battles, design, won, estimate, num, resamples, np.random.default_rng(seed), confidence) if resamples else 0 * estimate
    counts = {name: sum(name in (b.left, b.right) for b in battles) for name in names}

    def around(i: int) -> tuple[float, float, float]:
        return float(estimate[i]), float(estimate[i] - reach[i]), float(estimate[i] + reach[i])

    standings = [Standing(n, *around(i), counts[n]) for i, n in enumerate(names)]
    effects = tuple(around(i) for i in range(num, len(estimate)))
    return Ranking(tuple(sorted(standings, key=lambda s: -s.strength)), effects, _is_connected(battles, names))


def _reach(
    battles: Sequence[Battle],
    design: Floats,
    won: Floats,
    estimate: Floats,
    num: int,
    resamples: int,
    rng: np.random.Generator,
    confidence: float,
) -> Floats:
    """Half the width of the interval of every strength and effect."""
    from scipy.special import stdtrit

    both = [(b.question, b.voter) for b in battles]
    crossings = {pair: i for i, pair in enumerate(dict.fromkeys(both))}
    clusterings = ([b.question for b in battles], [b.voter for b in battles], [crossings[pair] for pair in both])
    parts: list[tuple[Floats, int]] = []
    for labels in clusterings:
        groups = np.unique(labels, return_inverse=True)[1]
        size = int(groups.max()) + 1
        if size == 1:
            parts.append((np.zeros(len(estimate)), 1))
            continue
        drawn = rng.multinomial(size, np.full(size, 1 / size), resamples)[:, groups].astype(np.float64)
        found = _fit_many(design, won, drawn, num, estimate)
        parts.append((found.var(0, ddof=1) * size / (size - 1), size))
    (by_question, num_q), (by_voter, num_v), (crossed, num_c) = parts
    if num_q == 1 or num_v == 1:  # only one of the two was sampled, and its clusters are all there is
        variance, degrees = np.maximum(by_question, by_voter), np.full(len(estimate), max(num_q, num_v) - 1.0)
    else:
        variance = np.maximum(by_question + by_voter - crossed, crossed / 16)
        noise = by_question**2 / (num_q - 1) + by_voter**2 / (num_v - 1) + crossed**2 / (num_c - 1)
        degrees = np.maximum(variance**2 / np.maximum(noise, 1e-300), LEAST_DEGREES * (min(num_q, num_v) - 1))
    return np.asarray(stdtrit(np.maximum(degrees, 1.0), 0.5 + confidence / 2) * np.sqrt(variance), dtype=np.float64)


def fit(design: Floats, won: Floats, weights: Floats, num_versions: int, *, start: Floats | None = None, prior: float = PRIOR) -> Floats:
    """Maximum of the weighted likelihood by Newton's method: strengths (sum 0) and then effects. design (N, versions + effects)."""
    size = design.shape[1]
    found = np.zeros(size) if start is None else start.copy()
    ties = np.zeros(size)
    ties[:num_versions] = prior
    centre = np.zeros((size, size))
    centre[:num_versions, :num_versions] = 1.0  # strengths are known up to a constant: their sum is held at 0
    for _ in range(STEPS):
        expected = 1 / (1 + np.exp(-(design @ found)))
        prior_expected = 1 / (1 + np.exp(-found))
        gradient = design.T @ (weights * (won - expected)) + ties * (0.5 - prior_expected) - centre @ found
        slope = weights * expected * (1 - expected)
        hessian = (design * slope[:, None]).T @ design + np.diag(ties * prior_expected * (1 - prior_expected) + 1e-9) + centre
        step = np.linalg.solve(hessian, gradient)
        found = found + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-10:
            break
    return found


def _fit_many(design: Floats, won: Floats, weights: Floats, num_versions: int, start: Floats, *, prior: float = PRIOR) -> Floats:
    """`fit` for every row of weights (B, N) at once; returns (B, versions + effects)."""
    size = design.shape[1]
    found = np.repeat(start[None, :], len(weights), 0)
    ties = np.zeros(size)
    ties[:num_versions] = prior
    centre = np.zeros((size, size))
    centre[:num_versions, :num_versions] = 1.0
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), size * size)
    for _ in range(STEPS):
        expected = 1 / (1 + np.exp(-(found @ design.T)))
        prior_expected = 1 / (1 + np.exp(-found))
        gradient = (weights * (won - expected)) @ design + ties * (0.5 - prior_expected) - found @ centre
        hessian = ((weights * expected * (1 - expected)) @ products).reshape(-1, size, size) + centre
        hessian[:, range(size), range(size)] += ties * prior_expected * (1 - prior_expected) + 1e-9
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        found += np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-8:
            break
    return found


def _design(battles: Sequence[Battle], names: list[str], with_style: bool) -> tuple[Floats, Floats]:
    num_effects = len(battles[0].style) if with_style else 0
    place = {name: i for i, name in enumerate(names)}
    design = np.zeros((len(battles), len(names) + num_effects))
    for row, battle in enumerate(battles):
        design[row, place[battle.left]] += 1
        design[row, place[battle.right]] -= 1
        design[row, len(names) :] = battle.style[:num_effects]
    return design, np.array([battle.won for battle in battles])


def _is_connected(battles: Sequence[Battle], names: list[str]) -> bool:
    group = {name: name for name in names}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for battle in battles:
        group[root(battle.left)] = root(battle.right)
    return len({root(name) for name in names}) == 1
