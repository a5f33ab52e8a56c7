"""Strengths of three or more versions from pairwise votes: Bradley-Terry, raw and with style held constant. Pure.

P(left wins) = sigmoid(strength[left] - strength[right] + x @ effects). `x` holds what should not count: which side, difference in
length, in formatting. A tie is half a win for either. The effects are estimated beside the strengths (as Chatbot Arena's style
control does), so a version that wins by writing more falls when length is held constant; both figures are shown, never one alone.

R. A. Bradley and M. E. Terry, Biometrika 39 (1952) 324; H. Stern and A. Agresti for covariates (Categorical Data Analysis, 10.6).
Called by the bench's standings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.statistics import CONFIDENCE

Floats = NDArray[np.float64]

#: a prior of this many tied votes of every version against the average: without it, a version that never lost is infinitely strong
PRIOR = 0.1
STEPS = 50


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


def rank(battles: Sequence[Battle], *, with_style: bool, resamples: int = 500, seed: int = 0, confidence: float = CONFIDENCE) -> Ranking:
    """Fit and bootstrap. Questions and voters are resampled both (the pigeonhole bootstrap, A. B. Owen, Annals of Applied Statistics 1
    (2007) 386): votes on one question, and votes of one person, are not independent. Without battles an empty ranking."""
    names = sorted({name for battle in battles for name in (battle.left, battle.right)})
    if not names:
        return Ranking((), (), True)
    design, won = _design(battles, names, with_style)
    num = len(names)
    everyone = np.ones(len(battles))
    estimate = fit(design, won, everyone, num)
    rng = np.random.default_rng(seed)
    questions, voters = (np.unique([getattr(b, key) for b in battles], return_inverse=True)[1] for key in ("question", "voter"))
    drawn = np.array([fit(design, won, _weights(rng, questions) * _weights(rng, voters), num, start=estimate) for _ in range(resamples)])
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0) if resamples else (estimate, estimate)
    counts = {name: sum(name in (b.left, b.right) for b in battles) for name in names}
    standings = [Standing(n, float(estimate[i]), float(low[i]), float(high[i]), counts[n]) for i, n in enumerate(names)]
    effects = [(float(estimate[i]), float(low[i]), float(high[i])) for i in range(num, len(estimate))]
    return Ranking(tuple(sorted(standings, key=lambda s: -s.strength)), tuple(effects), _is_connected(battles, names))


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


def _design(battles: Sequence[Battle], names: list[str], with_style: bool) -> tuple[Floats, Floats]:
    num_effects = len(battles[0].style) if with_style else 0
    place = {name: i for i, name in enumerate(names)}
    design = np.zeros((len(battles), len(names) + num_effects))
    for row, battle in enumerate(battles):
        design[row, place[battle.left]] += 1
        design[row, place[battle.right]] -= 1
        design[row, len(names) :] = battle.style[:num_effects]
    return design, np.array([battle.won for battle in battles])


def _weights(rng: np.random.Generator, groups: NDArray[np.intp]) -> Floats:
    """How often each row's group was drawn, with replacement. One group alone is no sample: it keeps its weight."""
    num = int(groups.max()) + 1
    if num == 1:
        return np.ones(len(groups))
    return np.bincount(rng.integers(0, num, num), minlength=num).astype(np.float64)[groups]


def _is_connected(battles: Sequence[Battle], names: list[str]) -> bool:
    group = {name: name for name in names}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    for battle in battles:
        group[root(battle.left)] = root(battle.right)
    return len({root(name) for name in names}) == 1
