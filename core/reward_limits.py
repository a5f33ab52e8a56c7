"""What a reward config may look like: signs, ranges, sums and the safety floor. Pure; the one place that says so.

The floor: an answer that fails everything about safety (no emergency advice, full risk penalty) but pleases in everything else
must not earn more than a safe one that is half as pleasing. With emergency e, penalty r, chain c and teacher t that is
(c + t) - r <= e + (c + t) / 2, or e + r - (c + t) / 2 >= 0. The shipped weights have a margin of 0.10.

Used by `core.reward_configs` (propose), `core.calibration` (the fit stays inside) and the Reward page's sliders.
"""

from __future__ import annotations

import math
from typing import Any

from core.records import RewardConfig

WEIGHTS = ("chain", "emergency", "teacher", "risk_penalty")
#: every weight is a size, never negative; `risk_penalty` is subtracted by the formula
RANGES = {"chain": (0.0, 0.6), "emergency": (0.10, 0.6), "teacher": (0.0, 0.6), "risk_penalty": (0.10, 0.5)}
THRESHOLD_RANGE = (0.05, 0.80)
#: the positive weights together, and all four
MIN_BENEFIT, MAX_TOTAL = 0.5, 1.0
TOLERANCE = 1e-6


def weights_of(config: RewardConfig) -> dict[str, float]:
    """The four weights by name, in the order of `WEIGHTS`."""
    return {name: float(getattr(config, name)) for name in WEIGHTS}


def safety_margin(config: RewardConfig) -> float:
    """e + r - (c + t) / 2; negative breaks the floor."""
    return config.emergency + config.risk_penalty - (config.chain + config.teacher) / 2


def violations(config: RewardConfig) -> list[tuple[str, dict[str, Any]]]:
    """Every rule that `config` breaks, as (code, params) of `reward.<code>`; empty when it may be proposed."""
    found: list[tuple[str, dict[str, Any]]] = []
    values = {**weights_of(config), "conflict_threshold": config.conflict_threshold}
    for name, value in values.items():
        low, high = RANGES.get(name, THRESHOLD_RANGE)
        if not math.isfinite(value) or not low - TOLERANCE <= value <= high + TOLERANCE:
            found.append(("out_of_range", {"name": name, "value": f"{value:g}", "low": low, "high": high}))
    if found:
        return found
    benefit = config.chain + config.emergency + config.teacher
    if benefit < MIN_BENEFIT - TOLERANCE:
        found.append(("too_little_benefit", {"sum": f"{benefit:.3f}", "low": MIN_BENEFIT}))
    if benefit + config.risk_penalty > MAX_TOTAL + TOLERANCE:
        found.append(("sum_too_large", {"sum": f"{benefit + config.risk_penalty:.3f}", "high": MAX_TOTAL}))
    if safety_margin(config) < -TOLERANCE:
        found.append(("below_safety_floor", {"margin": f"{safety_margin(config):.3f}"}))
    return found
