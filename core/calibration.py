"""Reward calibration: which weights order answers as experts do? Pure.

The model is `core.ordinal_fit`. If unsafe answers still outrank acceptable ones in more than `max_unsafe_above` of all such
pairs, that share becomes a constraint too, and a fit that cannot meet it is not proposed.

What is reported is held out: agreement "after" is measured on cases that the weights were not fitted on (folds by case).
Intervals are percentile bootstraps over cases, so that two verdicts on one case do not pass for two cases; each case weighs one.

Limits: cases reach the desk because scorers disagreed (and a few as controls), so the weights are those for such cases.
Called by training.calibrate and, for `sides` and `agreement`, by the Reward page's preview.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.ordinal_fit import LEVELS, Array, CaseRow, Fit, Table, fit, held_parts, vector
from core.records import RewardConfig, Verdict
from core.reward_limits import WEIGHTS, violations, weights_of

#: fewer cases, or fewer on the rarer side (unsafe or serious / minor or acceptable), say too little
MIN_CASES, MIN_SIDE = 80, 15
NUM_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Change:
    """A case whose reward moves to the other side of "fit to send" (minor or better)."""

    case_id: int
    completion_id: int
    verdict: str
    before: float
    after: float
    is_fit_after: bool
    #: whether the new side is the expert's
    agrees_now: bool


@dataclass(frozen=True, slots=True)
class Calibration:
    """What came out. `proposal` is None unless `outcome` is improved or uncertain."""

    outcome: str
    num_rows: int
    num_cases: int
    by_verdict: dict[str, int]
    current: RewardConfig
    fit: Fit
    weights: dict[str, Estimate]
    cutpoints: dict[str, Estimate]
    conflict_threshold: Estimate | None
    held: tuple[str, ...]
    before: dict[str, Estimate]
    after: dict[str, Estimate]
    gain: dict[str, Estimate]
    unsafe_above_before: float | None
    unsafe_above: float | None
    max_unsafe_above: float
    changes: tuple[Change, ...]
    proposal: RewardConfig | None


def agreement(table: Table, scores: Array, folds: NDArray[np.int64], weight: Array) -> dict[str, float]:
    """How well `scores` order the verdicts, over pairs of different cases inside a fold.

    pairwise: share of pairs with different verdicts that are in the right order (ties count half); unsafe_auc: the same
    for unsafe against the rest; kendall: tau-b.
    """
    return _Pairs(table, folds, scores).measure(weight)


def calibrate(
    rows: Sequence[CaseRow],
    current: RewardConfig,
    *,
    seed: int = 0,
    num_bootstrap: int = 200,
    max_unsafe_above: float = 0.05,
    on_progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Fit, measure held out, and say whether it is worth proposing. Deterministic in (rows, seed).

    Raises UserError("reward.too_few_verdicts") with how many cases are missing.
    """
    table = Table(rows)
    check_enough(table)
    rng = np.random.default_rng(seed)
    now = vector(weights_of(current))
    best = fit(table, current)
    if (above := unsafe_above(table, table.score(vector(best.weights))[0])) is not None and above > max_unsafe_above:
        best = fit(table, current, start=best, max_unsafe_above=max_unsafe_above)
    floor = max_unsafe_above if above is not None and above > max_unsafe_above else None
    if floor is not None and (unsafe_above(table, table.score(vector(best.weights))[0]) or 0.0) > floor:
        floor = None  # no weights inside the limits keep it: nothing will be proposed, so the intervals need not pay for it
    folds = _folds(table, rng)
    old, new = table.score(now)[0], np.empty(len(table.level))
    for k in range(NUM_FOLDS):
        apart = fit(table, current, np.where(folds == k, 0.0, table.weight), start=best, max_unsafe_above=floor)
        new[folds == k] = table.score(vector(apart.weights))[0][folds == k]
    pairs = [_Pairs(table, folds, scores) for scores in (old, new)]
    draws: list[Fit] = []
    measured: list[list[dict[str, float]]] = [[], []]
    thresholds: list[float] = []
    for i in range(num_bootstrap):
        weight = _resample(table, rng)
        for side, one in zip(measured, pairs, strict=True):
            side.append(one.measure(weight))
        if len(np.unique(table.level[weight > 0])) == len(best.cutpoints) + 1:
            draws.append(fit(table, current, weight, start=best, max_unsafe_above=floor))
            if (found := _conflict_threshold(table, draws[-1], weight)) is not None:
                thresholds.append(found)
        if on_progress:
            on_progress(i + 1, num_bootstrap)
    whole = [one.measure(table.weight) for one in pairs]
    before = {name: _estimate(whole[0][name], [m[name] for m in measured[0]]) for name in whole[0]}
    after = {name: _estimate(whole[1][name], [m[name] for m in measured[1]]) for name in whole[1]}
    gain = {n: _estimate(whole[1][n] - whole[0][n], [b[n] - a[n] for a, b in zip(*measured, strict=True)]) for n in whole[0]}
    conflict = _conflict_threshold(table, best, table.weight)
    conflict_estimate = None
    if conflict is not None and len(thresholds) > num_bootstrap // 2:
        conflict_estimate = _estimate(conflict, thresholds)
    now_above, then_above = unsafe_above(table, old), unsafe_above(table, table.score(vector(best.weights))[0])
    proposal = _proposal(current, best, conflict_estimate)
    outcome = "improved" if gain["pairwise"].low > 0 else "uncertain" if gain["pairwise"].value > 0 else "no_better"
    if then_above is not None and then_above > max(max_unsafe_above, (now_above or 0.0)) + 1e-9:
        outcome = "floor_broken"
    if violations(proposal):
        outcome = "floor_broken"
    return Calibration(
        outcome,
        len(table.rows),
        table.num_cases,
        {verdict.value: int((table.level == i).sum()) for i, verdict in enumerate(LEVELS)},
        current,
        best,
        {n: _estimate(best.weights[n], [d.weights[n] for d in draws]) for n in WEIGHTS},
        {n: _estimate(best.cutpoints[n], [d.cutpoints[n] for d in draws]) for n in best.cutpoints},
        conflict_estimate,
        held_parts(table),
        before,
        after,
        gain,
        now_above,
        then_above,
        max_unsafe_above,
        sides_changed(table, current, proposal),
        proposal if outcome in ("improved", "uncertain") else None,
    )


def check_enough(table: Table) -> None:
    """Raise UserError("reward.too_few_verdicts") when the verdicts cannot carry a fit."""
    good = table.level >= LEVELS.index(Verdict.MINOR)
    cases, side = table.num_cases, min(len(set(table.case[good].tolist())), len(set(table.case[~good].tolist())))
    if cases < MIN_CASES or side < MIN_SIDE:
        more = max(MIN_CASES - cases, MIN_SIDE - side)
        raise UserError("reward.too_few_verdicts", have=cases, needed=MIN_CASES, side=side, side_needed=MIN_SIDE, more=more)


def fit_line(table: Table, config: RewardConfig) -> float:
    """The reward that best parts minor-or-better from the rest under these weights (largest share of rows on the right side)."""
    scores = table.score(vector(weights_of(config)))[0]
    good = table.level >= LEVELS.index(Verdict.MINOR)
    order = np.unique(scores)
    cuts = np.concatenate([order[:1] - 1e-6, (order[:-1] + order[1:]) / 2, order[-1:] + 1e-6])
    right = [float(table.weight[(scores >= cut) == good].sum()) for cut in cuts]
    return float(cuts[int(np.argmax(right))])


def sides_changed(table: Table, old: RewardConfig, new: RewardConfig) -> tuple[Change, ...]:
    """Cases on the other side of "fit to send" under `new`; those that now disagree with the expert first."""
    if not len(table.rows):
        return ()
    before, after = (table.score(vector(weights_of(config)))[0] for config in (old, new))
    was, now = before >= fit_line(table, old), after >= fit_line(table, new)
    good = table.level >= LEVELS.index(Verdict.MINOR)
    found = [
        Change(r.case_id, r.completion_id, r.verdict, float(before[i]), float(after[i]), bool(now[i]), bool(now[i] == good[i]))
        for i, r in enumerate(table.rows)
        if was[i] != now[i]
    ]
    return tuple(sorted(found, key=lambda change: (change.agrees_now, change.case_id)))


def unsafe_above(table: Table, scores: Array) -> float | None:
    """Share of (unsafe, acceptable) pairs in which the unsafe answer earns more; None without both."""
    unsafe, fine = scores[table.level == 0], scores[table.level == len(LEVELS) - 1]
    return float((unsafe[:, None] > fine[None]).mean()) if len(unsafe) and len(fine) else None


class _Pairs:
    """Concordance of one set of scores with the verdicts as matrices per fold, so that a bootstrap is two products."""

    def __init__(self, table: Table, folds: NDArray[np.int64], scores: Array) -> None:
        self.blocks: list[tuple[NDArray[np.int64], Array, Array, Array, Array]] = []
        for k in np.unique(folds):
            rows = np.flatnonzero(folds == k)
            level, s, case = table.level[rows], scores[rows], table.case[rows]
            other = case[:, None] != case[None]
            better = (level[:, None] > level[None]) & other
            difference = s[:, None] - s[None]
            right = np.where(np.abs(difference) < 1e-12, 0.5, difference > 0)
            untied = ((np.abs(difference) >= 1e-12) & other) / 2.0
            self.blocks.append((rows, better.astype(float), right * better, (better & (level[None] == 0)).astype(float), untied))

    def measure(self, weight: Array) -> dict[str, float]:
        pairs = right = unsafe = unsafe_right = untied = 0.0
        for rows, better, concordant, against_unsafe, free in self.blocks:
            w = weight[rows]
            pairs += float(w @ better @ w)
            right += float(w @ concordant @ w)
            unsafe += float(w @ against_unsafe @ w)
            unsafe_right += float(w @ (concordant * against_unsafe) @ w)
            untied += float(w @ free @ w)
        return {
            "pairwise": right / pairs if pairs else float("nan"),
            "unsafe_auc": unsafe_right / unsafe if unsafe else float("nan"),
            "kendall": (2 * right - pairs) / np.sqrt(pairs * untied) if pairs and untied else float("nan"),
        }


def _folds(table: Table, rng: np.random.Generator) -> NDArray[np.int64]:
    """A fold per row, the same for all rows of a case; the cases of each verdict are spread evenly."""
    cases: dict[int, int] = {}
    for case, level in zip(table.case.tolist(), table.level.tolist(), strict=True):
        cases.setdefault(case, level)
    fold_of: dict[int, int] = {}
    by_level: dict[int, list[int]] = defaultdict(list)
    for case, level in cases.items():
        by_level[level].append(case)
    position = 0
    for level in sorted(by_level):
        for case in rng.permutation(by_level[level]).tolist():
            fold_of[case] = position % NUM_FOLDS
            position += 1
    return np.array([fold_of[case] for case in table.case.tolist()], dtype=np.int64)


def _resample(table: Table, rng: np.random.Generator) -> Array:
    """Row weights of one bootstrap over cases."""
    size = int(table.case.max()) + 1
    times = np.bincount(rng.integers(0, size, size), minlength=size)
    return np.asarray(table.weight * times[table.case], dtype=float)


def _conflict_threshold(table: Table, found: Fit, weight: Array) -> float | None:
    """The gap that best parts cases whose reward stands on another side than the expert from those where it agrees (Youden's J).

    None when there are too few of either, or when the gap says nothing.
    """
    line = next((found.cutpoints[v.value] for v in LEVELS[2:] if v.value in found.cutpoints), None)
    v = vector(found.weights)
    gap = table.gap(v)
    known = np.isfinite(gap) & (weight > 0)
    if line is None:
        return None
    wrong = (table.score(v)[0] >= line) != (table.level >= LEVELS.index(Verdict.MINOR))
    bad, fine = weight * (known & wrong), weight * (known & ~wrong)
    if min((bad > 0).sum(), (fine > 0).sum()) < MIN_SIDE:
        return None
    grid = np.arange(0.10, 0.801, 0.01)
    above = np.nan_to_num(gap, nan=-1.0)[None] > grid[:, None]
    youden = above @ bad / bad.sum() - above @ fine / fine.sum()
    best = float(youden.max())
    if best < 0.1:
        return None
    return float(np.round(grid[youden >= best - 0.01].mean(), 3))  # the middle of a flat top, not its edge


def _proposal(current: RewardConfig, best: Fit, conflict: Estimate | None) -> RewardConfig:
    """The fit rounded to what people can read, inside the limits; the conflict threshold moves only when its interval says so."""
    rounded = {name: round(value, 3) for name, value in best.weights.items()}
    config = replace(current, version="", **rounded)
    for name in ("chain", "teacher"):  # rounding may cross the floor or the sum by a thousandth
        if violations(config):
            config = replace(config, **{name: round(getattr(config, name) - 0.002, 3)})
    moves = conflict is not None and not conflict.low <= current.conflict_threshold <= conflict.high
    return replace(config, conflict_threshold=round(conflict.value, 2)) if conflict is not None and moves else config


def _estimate(value: float, draws: Sequence[float]) -> Estimate:
    known = [d for d in draws if np.isfinite(d)]
    low, high = np.quantile(known, [0.025, 0.975]).tolist() if known else (float("nan"), float("nan"))
    return Estimate(float(value), float(low), float(high))
