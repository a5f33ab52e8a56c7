"""Two expanders on the same queries: paired differences with intervals, by slice, and the outputs side by side. Pure.

Differences are candidate minus baseline on each query; 95 % paired bootstrap, p by flipped signs, slices corrected by Holm over those
large enough to test (`MIN_SLICE`). Called by training.expansion_evaluate's report reader and pages/expansion.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import UserError
from core.expansion.runs import Evaluated, Mean, Output, Report, Slice
from core.statistics import bootstrap, holm, sign_flip

#: below this many queries a slice's difference is not shown
MIN_SLICE = 10
RESAMPLES_SEED = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference. `p_holm` is None for what is not a slice, or too small to test."""

    by: str
    value: str
    n: int
    baseline: float
    candidate: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    p_holm: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """One query with both outputs."""

    query: str
    baseline: Output
    candidate: Output

    @property
    def difference(self) -> float:
        return self.candidate["reward"] - self.baseline["reward"]


@dataclass(frozen=True, slots=True)
class Compared:
    """`measures`: reward, rubric, grounded, recall@10 (those that both have). `too_few`: (by, value, n) of slices left out."""

    baseline: str
    candidate: str
    measures: dict[str, Difference]
    slices: tuple[Difference, ...]
    too_few: tuple[tuple[str, str, int], ...]
    pairs: tuple[Pair, ...]
    valid: tuple[float | None, float | None]


def compare(report: Report, baseline: str, candidate: str, other: Report | None = None) -> Compared:
    """Baseline of `report` against a candidate of `other` (default: of the same report), on the queries that both answered.

    Raises UserError("expansion_training.nothing_in_common") when they share no query.
    """
    first, second = report["models"][baseline], (other or report)["models"][candidate]
    theirs = {one["query"]: one for one in second["outputs"]}
    pairs = tuple(Pair(one["query"], one, theirs[one["query"]]) for one in first["outputs"] if one["query"] in theirs)
    if not pairs:
        raise UserError("expansion_training.nothing_in_common", first=baseline, second=candidate)
    measures = {}
    for name in ("reward", "rubric", "grounded", "recall_expanded"):
        if (found := _difference("", name, pairs, name)) is not None:
            measures[name] = found
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        for by, value in pair.baseline["slices"].items():
            groups.setdefault((by, value), []).append(pair)
    large = [(by, value, of) for (by, value), of in sorted(groups.items()) if len(of) >= MIN_SLICE]
    slices = [found for by, value, of in large if (found := _difference(by, value, of, "reward")) is not None]
    adjusted = holm([s.p_value for s in slices])
    corrected = tuple(_with_holm(s, p) for s, p in zip(slices, adjusted, strict=True))
    few = tuple((by, value, len(of)) for (by, value), of in sorted(groups.items()) if len(of) < MIN_SLICE)
    valid = (first["summary"]["valid_lines"], second["summary"]["valid_lines"])
    return Compared(baseline, candidate, measures, corrected, few, pairs, valid)


def _difference(by: str, value: str, pairs: Sequence[Pair], measure: str) -> Difference | None:
    """None when no query has the measure on both sides."""
    values = [(_of(pair.baseline, measure), _of(pair.candidate, measure)) for pair in pairs]
    known = [(a, b) for a, b in values if a is not None and b is not None]
    if not known:
        return None
    differences = [b - a for a, b in known]
    low, high = bootstrap(differences, np.random.default_rng(RESAMPLES_SEED))
    if low is None or high is None:
        raise AssertionError("an interval of nothing")
    p = sign_flip(differences, np.random.default_rng(RESAMPLES_SEED))
    before, after = (float(np.mean([pair[i] for pair in known])) for i in (0, 1))
    return Difference(by, value, len(known), before, after, after - before, low, high, p)


def _of(output: Output, measure: str) -> float | None:
    found = {
        "reward": output["reward"],
        "rubric": output["rubric"],
        "grounded": output["grounded"],
        "recall_expanded": output["recall_expanded"],
    }
    return found[measure]


def _with_holm(d: Difference, p: float) -> Difference:
    return Difference(d.by, d.value, d.n, d.baseline, d.candidate, d.difference, d.ci_low, d.ci_high, d.p_value, p)


def mean_of(values: Sequence[float | None]) -> Mean:
    """The mean of what is known, with its 95 % bootstrap interval."""
    known = [v for v in values if v is not None]
    low, high = bootstrap(known, np.random.default_rng(RESAMPLES_SEED))
    return {"n": len(known), "mean": float(np.mean(known)) if known else None, "ci_low": low, "ci_high": high}


def slices_of(outputs: Sequence[Output]) -> list[Slice]:
    """Mean reward of every group of queries, in the order of their names."""
    groups: dict[tuple[str, str], list[float | None]] = {}
    for one in outputs:
        for by, value in one["slices"].items():
            groups.setdefault((by, value), []).append(one["reward"])
    return [{**mean_of(values), "by": by, "value": value} for (by, value), values in sorted(groups.items())]


def worst_dimensions(evaluated: Evaluated, maxima: Mapping[str, float]) -> list[tuple[str, float]]:
    """(dimension, share of its maximum), the weakest first: where points are lost."""
    found = evaluated["summary"]["dimensions"]
    return sorted(((name, found[name] / top) for name, top in maxima.items() if name in found), key=lambda pair: pair[1])
