"""The gate of a change to retrieval, and its way into service: offline first, then a growing share of the traffic.

Gate: a candidate passes only when the mean rises by at least `MIN_GAIN` of the control's AND the lower end of the paired bootstrap
interval is above zero; both on the same queries. Live, a person or session always falls into the same arm, and raising the share
moves people in one direction only. Looks at the live figures may be repeated: interleaving is judged by an e-value
(core.sequential), arms by intervals whose error is spread over the looks. Pure; called by training.learn_retrieval, core.retrieval_trials
and benchmarks/retrieval_gate.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from core.sequential import log_evidence, share_of_look
from core.statistics import CONFIDENCE, POWER, bootstrap

MIN_GAIN = 0.05
#: with fewer queries the bootstrap's interval is too narrow to be trusted
MIN_QUERIES = 30
#: shares of the traffic, in order; each step is a person's press
STEPS = (0.05, 0.25, 0.5, 1.0)
#: asks that the candidate must have answered before the next step
MIN_EXPOSURES = 50
#: error rate of all looks together
ALPHA = 0.05

Arm = Literal["control", "candidate"]
Reason = Literal["accepted", "too_few_queries", "worse", "not_significant", "gain_below_bar"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says. `relative_gain` is None when the control's mean is 0; needed numbers are None when nothing differs.

    `needed_for_bar` queries show a true gain of the bar, `needed_for_seen` one as large as was seen, with 80 % power.
    """

    is_accepted: bool
    reason: Reason
    metric: str
    n: int
    control: float | None
    candidate: float | None
    difference: float | None
    relative_gain: float | None
    ci_low: float | None
    ci_high: float | None
    min_gain: float
    needed_for_bar: int | None
    needed_for_seen: int | None

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def gate(
    control: Sequence[float | None],
    candidate: Sequence[float | None],
    rng: np.random.Generator,
    *,
    metric: str = "ndcg@10",
    min_gain: float = MIN_GAIN,
) -> Verdict:
    """Judge per-query values of the same queries in the same order; queries without a value (None) in either are left out.

    Raises ValueError when the numbers of queries differ.
    """
    pairs = [(a, b) for a, b in zip(control, candidate, strict=True) if a is not None and b is not None]
    if not pairs:
        return Verdict(False, "too_few_queries", metric, 0, None, None, None, None, None, None, min_gain, None, None)
    before, after = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    differences = after - before
    mean, gained = float(before.mean()), float(differences.mean())
    low, high = bootstrap(differences.tolist(), rng)
    if low is None or high is None:
        raise AssertionError("an interval of pairs that are there")
    spread = float(differences.std(ddof=1)) if len(pairs) > 1 else 0.0
    relative = gained / mean if mean > 0 else None
    reaches_bar = gained > 0 and (relative is None or relative >= min_gain)
    reason: Reason = "accepted"
    if len(pairs) < MIN_QUERIES:
        reason = "too_few_queries"
    elif high < 0:
        reason = "worse"
    elif low <= 0:
        reason = "not_significant"
    elif not reaches_bar:
        reason = "gain_below_bar"
    return Verdict(
        reason == "accepted", reason, metric, len(pairs), mean, float(after.mean()), gained, relative, low, high, min_gain,
        queries_needed(spread, (min_gain or MIN_GAIN) * mean), queries_needed(spread, gained),
    )  # fmt: skip


def queries_needed(spread: float, difference: float, power: float = POWER, confidence: float = CONFIDENCE) -> int | None:
    """Paired queries after which a true mean `difference` is seen with this power; `spread` is the standard deviation of the
    differences. None when there is no difference to see, never fewer than `MIN_QUERIES`. Two-sided z-test of a mean."""
    if difference == 0:
        return None
    z = NormalDist().inv_cdf(0.5 + confidence / 2) + NormalDist().inv_cdf(power)
    return max(MIN_QUERIES, math.ceil((z * spread / difference) ** 2))


# --- live -----------------------------------------------------------------------------------------------------------------


def arm_of(trial: str, key: str, share: float) -> Arm:
    """The arm of a person or session: fixed by a hash, so that it never flips, and only grows into "candidate" with the share."""
    digest = hashlib.sha256(f"{trial}\x00{key}".encode()).digest()
    return "candidate" if int.from_bytes(digest[:8], "big") / 2**64 < share else "control"


def next_share(share: float) -> float | None:
    """The step after `share`; None when all the traffic is there already."""
    return next((step for step in STEPS if step > share), None)


def interleave(control: Sequence[str], candidate: Sequence[str], k: int, rng: np.random.Generator) -> tuple[list[str], dict[str, Arm]]:
    """Team-draft interleaving of two rankings: the first k passages and which arm put each there.

    F. Radlinski, M. Kurup and T. Joachims, CIKM 2008: in every round a coin decides who picks first, so both arms hold every rank
    equally often and position cannot favour either.
    """
    sides: dict[Arm, Sequence[str]] = {"control": control, "candidate": candidate}
    shown: dict[str, Arm] = {}
    while len(shown) < k:
        order: list[Arm] = ["control", "candidate"] if rng.random() < 0.5 else ["candidate", "control"]
        picked = False
        for arm in order:
            item = next((i for i in sides[arm] if i not in shown), None)
            if item is not None and len(shown) < k:
                shown[item] = arm
                picked = True
        if not picked:
            break
    return list(shown), shown


def winner(teams: dict[str, Arm], clicked: Collection[str]) -> Arm | None:
    """Who got more clicks of one interleaved list; None for a tie."""
    scores = {arm: sum(teams.get(item) == arm for item in set(clicked)) for arm in ("control", "candidate")}
    if scores["control"] == scores["candidate"]:
        return None
    return "candidate" if scores["candidate"] > scores["control"] else "control"


def interleaving_evidence(candidate_wins: int, control_wins: int) -> tuple[float, float]:
    """(e-value that the candidate is better, e-value that it is worse); valid at every look, decide at 1 / ALPHA."""
    return math.exp(log_evidence(candidate_wins, control_wins)), math.exp(log_evidence(control_wins, candidate_wins))


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a running trial. `action`: hold (keep the share), advance (the next share may be pressed) or stop (go back)."""

    action: Literal["hold", "advance", "stop"]
    num_control: int
    num_candidate: int
    difference: float | None
    ci_low: float | None
    ci_high: float | None


def look(control: Sequence[float], candidate: Sequence[float], number: int, rng: np.random.Generator) -> Look:
    """Compare what the arms earned so far (one debiased value per ask); `number` counts looks from 1.

    The interval is as wide as this look's share of ALPHA demands, so however often one looks, a harmless candidate is stopped with
    probability at most ALPHA. "advance" needs `MIN_EXPOSURES` in each arm and no harm seen; the gain itself was shown offline.
    """
    if min(len(control), len(candidate)) < 2:
        return Look("hold", len(control), len(candidate), None, None, None)
    a, b = np.asarray(control, float), np.asarray(candidate, float)
    difference = float(b.mean() - a.mean())
    z = NormalDist().inv_cdf(1 - share_of_look(number, ALPHA) / 2)
    reach = z * math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    is_enough = min(len(a), len(b)) >= MIN_EXPOSURES
    action: Literal["hold", "advance", "stop"] = "hold"
    if is_enough:
        action = "stop" if difference + reach < 0 else "advance"
    return Look(action, len(a), len(b), difference, difference - reach, difference + reach)
