"""Weights and cutpoints by which an ordinal model explains experts' verdicts. Pure arithmetic; scipy is loaded on the first fit.

Model: proportional odds (McCullagh, J. R. Stat. Soc. B 42, 1980). An expert's verdict, from unsafe to acceptable, depends on the
reward of the answer with unknown weights plus logistic noise. The likelihood is maximised by SLSQP inside the limits of
`core.reward_limits` (signs, ranges, sums, safety floor), all of them linear in the weights up to scale; the fit's scale is divided
out, because only the order of rewards is identified, and the four weights keep their present sum. Called by core.calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.records import RewardConfig, Verdict
from core.reward_limits import MIN_BENEFIT, RANGES, WEIGHTS, weights_of

Array = NDArray[np.float64]
#: from worst to best; "cannot judge" is no verdict
LEVELS = (Verdict.UNSAFE, Verdict.SERIOUS, Verdict.MINOR, Verdict.ACCEPTABLE)
#: a part scored in a smaller share of the rows keeps its present weight
MIN_SCORED_SHARE = 0.2
RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One signed verdict. `parts` as in `Reward.parts`; rows with the same `case_id` share that case's weight."""

    case_id: int
    completion_id: int
    verdict: str
    parts: Mapping[str, float | None]
    #: the rules' own opinion needs the same parts; the gap is computed anew for every set of weights
    question: str = ""


@dataclass(frozen=True, slots=True)
class Fit:
    """Weights by name (summing to the present sum) and, per verdict, the reward from which on it is more likely than not."""

    weights: dict[str, float]
    cutpoints: dict[str, float]
    #: rewards are multiplied by this to become log odds
    scale: float
    num_iterations: int


class Table:
    """Rows as arrays. Rows in which no positive part was scored have no reward and are left out."""

    def __init__(self, rows: Sequence[CaseRow]) -> None:
        levels = {verdict.value: i for i, verdict in enumerate(LEVELS)}
        rows = [r for r in rows if r.verdict in levels and any(r.parts.get(name) is not None for name in WEIGHTS[:3])]
        self.rows = rows
        self.level = np.array([levels[r.verdict] for r in rows], dtype=int)
        self.case = np.unique(np.array([r.case_id for r in rows], dtype=int), return_inverse=True)[1]
        values = np.array([[np.nan if (x := r.parts.get(name)) is None else x for name in WEIGHTS] for r in rows], dtype=float).reshape(
            -1, 4
        )
        self.is_scored = np.isfinite(values[:, :3])
        self.x = np.nan_to_num(values[:, :3])
        self.risk = np.nan_to_num(values[:, 3])
        counts = np.bincount(self.case) if len(rows) else np.zeros(0)
        self.weight = 1.0 / counts[self.case] if len(rows) else np.zeros(0)
        self.scored_share = {name: float(np.isfinite(values[:, k]).mean()) if len(rows) else 0.0 for k, name in enumerate(WEIGHTS)}

    @property
    def num_cases(self) -> int:
        return len(set(self.case.tolist()))

    def score(self, v: Array) -> tuple[Array, Array]:
        """Rewards for weights `v` (chain, emergency, teacher, risk_penalty; any scale) and their gradient, (n,) and (n, 4)."""
        benefit, scored = v[:3], self.is_scored
        a, m, total = self.x @ benefit, scored @ benefit, benefit.sum()
        m = np.maximum(m, 1e-9)
        gradient = np.empty((len(a), 4))
        gradient[:, :3] = self.x * (total / m)[:, None] + (a / m)[:, None] - scored * (a * total / m**2)[:, None]
        gradient[:, 3] = -self.risk
        return a * total / m - v[3] * self.risk, gradient

    def gap(self, v: Array) -> Array:
        """|teacher - rules' own opinion| as `core.conflicts.detect` computes it; NaN where either is missing."""
        rules = v[[0, 1]] * self.is_scored[:, :2]
        m, total = rules.sum(1), v[:3].sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            value = (self.x[:, :2] * rules).sum(1) * (total / m) - v[3] * self.risk
            own = np.clip(value / total, 0, 1)
        return np.where((m > 0) & self.is_scored[:, 2], np.abs(self.x[:, 2] - own), np.nan)


def vector(weights: Mapping[str, float]) -> Array:
    return np.array([weights[name] for name in WEIGHTS], dtype=float)


def fit(
    table: Table, current: RewardConfig, weight: Array | None = None, *, start: Fit | None = None, max_unsafe_above: float | None = None
) -> Fit:
    """Maximum likelihood inside the limits. `weight` (n,) counts each row; `start` warms a refit up."""
    from scipy.optimize import minimize

    weight = table.weight if weight is None else weight
    used = weight > 0
    present = np.unique(table.level[used])
    level = np.searchsorted(present, table.level)
    num_cuts = len(present) - 1
    now = vector(weights_of(current))
    total = float(now.sum())
    first = np.concatenate([now / total * 8.0, *_start_cuts(table, now / total * 8.0, level, weight, num_cuts)])
    if start is not None and len(start.cutpoints) == num_cuts:
        cuts = np.array(list(start.cutpoints.values())) * start.scale
        first = np.concatenate([vector(start.weights) * start.scale, cuts[:1], np.log(np.maximum(np.diff(cuts), 1e-3))])

    def loss(p: Array) -> tuple[float, Array]:
        return _loss(table, p, level, weight, num_cuts)

    held = held_parts(table)
    lines = _limit_lines(total)
    constraints: list[dict[str, Any]] = [{"type": "ineq", "fun": lambda p: lines @ p[:4], "jac": lambda p: _padded(lines, len(p))}]
    if held:
        rows = np.array([total * np.eye(4)[WEIGHTS.index(name)] - now[WEIGHTS.index(name)] for name in held])
        constraints.append({"type": "eq", "fun": lambda p: rows @ p[:4], "jac": lambda p: _padded(rows, len(p))})
    if max_unsafe_above is not None:
        room, slope = _floor(table, weight, max_unsafe_above)
        constraints.append({"type": "ineq", "fun": room, "jac": slope})
    bounds = [(0.0, 200.0)] * 4 + [(-200.0, 200.0)] + [(-7.0, 6.0)] * (num_cuts - 1)
    options = {"maxiter": 300, "ftol": 1e-9}
    found = minimize(loss, first, jac=True, method="SLSQP", bounds=bounds, constraints=constraints, options=options)
    v = np.maximum(found.x[:4], 0.0)
    if v.sum() < 1e-3 * total:  # an unreachable floor, or verdicts that follow nothing: no direction was found
        v = 1e-3 * now
    scale = float(v.sum()) / total
    cuts = np.cumsum(np.concatenate([found.x[4:5], np.exp(found.x[5:])])) / scale
    names = [LEVELS[k].value for k in present[1:]]
    return Fit(dict(zip(WEIGHTS, (v / scale).tolist(), strict=True)), dict(zip(names, cuts.tolist(), strict=True)), scale, int(found.nit))


def held_parts(table: Table) -> tuple[str, ...]:
    """Parts that too few rows have, or that do not vary: the verdicts cannot tell their weight."""
    found = []
    for k, name in enumerate(WEIGHTS):
        values = table.risk if k == 3 else table.x[table.is_scored[:, k], k]
        if table.scored_share[name] < MIN_SCORED_SHARE or float(np.ptp(values) if len(values) else 0.0) < 1e-9:
            found.append(name)
    return tuple(found)


def _loss(table: Table, p: Array, level: NDArray[np.int64], weight: Array, num_cuts: int) -> tuple[float, Array]:
    """Negative log-likelihood of the ordinal model and its gradient in (v, first cut, log steps)."""
    s, ds = table.score(p[:4])
    steps = np.exp(p[5:])
    cuts = np.concatenate([[-np.inf], p[4] + np.concatenate([[0.0], np.cumsum(steps)]), [np.inf]])
    upper, lower = _sigmoid(cuts[level + 1] - s), _sigmoid(cuts[level] - s)
    probability = np.maximum(upper - lower, 1e-12)
    slope_up, slope_low = upper * (1 - upper), lower * (1 - lower)
    by_score = weight * (slope_up - slope_low) / probability
    by_cut = np.zeros(num_cuts + 2)
    np.add.at(by_cut, level + 1, -weight * slope_up / probability)
    np.add.at(by_cut, level, weight * slope_low / probability)
    inner = by_cut[1:-1]
    tail = np.array([inner[k + 1 :].sum() * steps[k] for k in range(num_cuts - 1)])
    gradient = np.concatenate([ds.T @ by_score + RIDGE * p[:4], [inner.sum()], tail])
    value = -float(weight @ np.log(probability)) + RIDGE / 2 * float(p[:4] @ p[:4])
    return value, gradient


def _sigmoid(z: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(np.clip(z, -60, 60) / 2)), dtype=float)


def _start_cuts(table: Table, v: Array, level: NDArray[np.int64], weight: Array, num_cuts: int) -> tuple[Array, Array]:
    """Cuts that give each verdict its observed share at the start."""
    s = np.sort(table.score(v)[0][weight > 0])
    shares = np.cumsum(np.bincount(level, weights=weight, minlength=num_cuts + 1))[:-1] / weight.sum()
    cuts = np.quantile(s, np.clip(shares, 0.02, 0.98))
    return cuts[:1], np.log(np.maximum(np.diff(cuts), 0.05))


def _limit_lines(total: float) -> Array:
    """Rows a with a @ v >= 0: ranges, benefit and safety floor of weights v * total / sum(v)."""
    lines = []
    for k, name in enumerate(WEIGHTS):
        low, high = RANGES[name]
        lines += [total * np.eye(4)[k] - low, high - total * np.eye(4)[k]]
    lines.append(total * np.array([1.0, 1.0, 1.0, 0.0]) - MIN_BENEFIT)
    lines.append(np.array([-0.5, 1.0, -0.5, 1.0]))
    return np.array(lines)


def _padded(lines: Array, width: int) -> Array:
    return np.hstack([lines, np.zeros((len(lines), width - 4))])


def _floor(table: Table, weight: Array, limit: float) -> tuple[Callable[[Array], float], Callable[[Array], Array]]:
    """A smooth stand-in for the share of unsafe answers above acceptable ones, as a constraint >= 0, and its gradient."""
    unsafe, fine = (np.flatnonzero((table.level == k) & (weight > 0)) for k in (0, len(LEVELS) - 1))
    pair = weight[unsafe][:, None] * weight[fine][None]
    pair = pair / pair.sum() if pair.size else pair

    def above(p: Array) -> tuple[Array, Array]:
        s, ds = table.score(p[:4])
        return _sigmoid(4 * (s[unsafe][:, None] - s[fine][None])), ds

    def room(p: Array) -> float:
        return limit - float((pair * above(p)[0]).sum())

    def slope(p: Array) -> Array:
        share, ds = above(p)
        each = 4 * pair * share * (1 - share)
        return np.concatenate([-(each.sum(1) @ ds[unsafe] - each.sum(0) @ ds[fine]), np.zeros(len(p) - 4)])

    return room, slope
