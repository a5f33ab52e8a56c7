"""What other weights would do to the cases that experts have decided: for the sliders of the Reward page. Reads only.

The same arithmetic as the calibration (`core.calibration.Table`, `agreement`, `sides_changed`), without fitting anything: a
preview answers in milliseconds and proposes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core import judged_cases
from core.calibration import MIN_CASES, MIN_SIDE, Change, agreement, sides_changed, unsafe_above
from core.ordinal_fit import Table, vector
from core.records import RewardConfig
from core.reward_limits import weights_of


@dataclass(frozen=True, slots=True)
class Loaded:
    """The decided cases, read once per visit."""

    table: Table
    num_unscored: int
    num_cannot_judge: int
    questions: dict[int, str]

    @property
    def num_cases(self) -> int:
        return self.table.num_cases

    @property
    def num_missing(self) -> int:
        """Cases still missing for a calibration; 0 when it may start."""
        good = self.table.level >= 2
        side = min(len(set(self.table.case[good].tolist())), len(set(self.table.case[~good].tolist())))
        return max(0, MIN_CASES - self.num_cases, MIN_SIDE - side)


@dataclass(frozen=True, slots=True)
class Preview:
    """Agreement under the config in force and under the tried one, over all pairs of cases; None without such pairs."""

    pairwise_before: float | None
    pairwise_after: float | None
    unsafe_before: float | None
    unsafe_after: float | None
    changes: tuple[Change, ...]


def load() -> Loaded:
    """Everything the sliders need."""
    found = judged_cases.load()
    table = Table(found.rows)
    return Loaded(table, found.num_unscored, found.num_cannot_judge, {row.case_id: row.question for row in found.rows})


def preview(loaded: Loaded, current: RewardConfig, tried: RewardConfig) -> Preview:
    """Compare two configs on the decided cases."""
    table = loaded.table
    if not table.rows:
        return Preview(None, None, None, None, ())
    one_fold = np.zeros(len(table.rows), dtype=np.int64)
    scores = [table.score(vector(weights_of(config)))[0] for config in (current, tried)]
    pairwise = [agreement(table, s, one_fold, table.weight)["pairwise"] for s in scores]
    unsafe = [unsafe_above(table, s) for s in scores]
    known = [None if np.isnan(p) else p for p in pairwise]
    return Preview(known[0], known[1], unsafe[0], unsafe[1], sides_changed(table, current, tried))
