"""Choosing cases by chance with known probabilities, and estimating shares from what was chosen. Pure.

Chance comes from SHA-256 of (seed, purpose, id), never from a generator's hidden state: the same frame and seed give the same
cases on every machine and Python, bit for bit, and the order in which a frame was listed does not matter. Every chosen unit
carries its inclusion probability, so that worst-first reviewing can still answer "how often is the model wrong?".
Called by `core.desk.draw` (choosing) and `core.desk.measures` (estimating).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from core.statistics import wilson


@dataclass(frozen=True, slots=True)
class Chosen:
    """A unit of the frame and how likely it was to be chosen."""

    unit_id: int
    stratum: str
    inclusion_probability: float


@dataclass(frozen=True, slots=True)
class Observed:
    """A chosen unit after somebody looked. `group` separates parts of a frame that were drawn on their own."""

    is_hit: bool
    inclusion_probability: float
    group: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """An estimated share with its 95 % interval, the number of units it rests on, and the estimated number of hits and units."""

    value: float | None
    low: float | None
    high: float | None
    num_observed: int
    total_hits: float
    total_units: float


class Frame(TypedDict):
    """What a weekly draw could choose from."""

    #: stratum -> conflicts
    conflict: dict[str, list[int]]
    #: completions without a conflict
    control: list[int]
    #: person who decided it -> cases
    repeat: dict[str, list[int]]


def chance(seed: int, purpose: str, unit_id: object) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{unit_id}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def simple_sample(ids: Sequence[int], num: int, seed: int, purpose: str) -> list[Chosen]:
    """`num` ids with equal probability, without replacement: the ones with the smallest chance."""
    num = min(num, len(ids))
    ordered = sorted(ids, key=lambda unit_id: (chance(seed, purpose, unit_id), unit_id))
    return [Chosen(unit_id, purpose, num / len(ids)) for unit_id in ordered[:num]]


def allocation(sizes: Mapping[str, int], num: int) -> dict[str, float]:
    """Expected number of units per stratum: proportional to the square root of its size, never more than it has.

    The square root stands between one vote per case and one vote per stratum (power allocation, Bankier 1988, Am Stat 42:174):
    rare kinds, topics and versions are seen without crowding out the common ones. Values are fractions and sum to `num`.
    """
    left = float(min(num, sum(sizes.values())))
    given: dict[str, float] = {}
    open_strata = {name: size for name, size in sorted(sizes.items()) if size > 0}
    while open_strata:
        unit = left / math.fsum(math.sqrt(size) for size in open_strata.values())
        full = [name for name, size in open_strata.items() if unit * math.sqrt(size) >= size]
        if not full:
            return given | {name: unit * math.sqrt(size) for name, size in open_strata.items()}
        for name in full:  # a stratum smaller than its share is taken whole, the rest is shared out again
            given[name] = float(open_strata.pop(name))
            left -= given[name]
    return given


def stratified_sample(frame: Mapping[str, Sequence[int]], num: int, seed: int, purpose: str) -> list[Chosen]:
    """`num` units over the strata of `frame`, with inclusion probability expected number / size of the stratum.

    There may be more strata than units: expected numbers are fractions, and one random start with equal steps over the sorted
    strata turns them into whole numbers (systematic sampling, Madow 1949), each at most one away from its expectation.
    """
    expected = allocation({name: len(ids) for name, ids in frame.items()}, num)
    start = chance(seed, purpose, "start")
    chosen: list[Chosen] = []
    reached, taken = 0.0, 0
    for place, name in enumerate(sorted(expected), start=1):
        reached += expected[name]
        # the last stratum ends at a whole number; rounding must not lose its unit
        end = round(reached) if place == len(expected) else reached
        upto = max(0, math.ceil(end - start))
        ids = sorted(frame[name], key=lambda unit_id: (chance(seed, purpose, unit_id), unit_id))
        chosen += [Chosen(unit_id, name, expected[name] / len(ids)) for unit_id in ids[: min(upto - taken, len(ids))]]
        taken = upto
    return chosen


@dataclass(frozen=True, slots=True)
class Item:
    """One place of a weekly draw. `unit_id` is a conflict, for controls a completion, for repeats the case to repeat."""

    purpose: str
    stratum: str
    unit_id: int
    inclusion_probability: float


def draw_plan(frame: Frame, wanted: Mapping[str, int], seed: int) -> list[Item]:
    """The items of a draw, mixed so that their order says nothing about why they were drawn.

    `wanted` has conflict, control, repeat_same and repeat_other. A repeat's stratum is the person who decided it before.
    """
    items = [
        Item("conflict", one.stratum, one.unit_id, one.inclusion_probability)
        for one in stratified_sample(frame["conflict"], wanted["conflict"], seed, "conflict")
    ]
    items += [
        Item("control", one.stratum, one.unit_id, one.inclusion_probability)
        for one in simple_sample(frame["control"], wanted["control"], seed, "control")
    ]
    decided_by = {unit_id: person for person, ids in frame["repeat"].items() for unit_id in ids}
    repeats = simple_sample(sorted(decided_by), wanted["repeat_same"] + wanted["repeat_other"], seed, "repeat")
    for place, one in enumerate(repeats):
        purpose = "repeat_same" if place < wanted["repeat_same"] else "repeat_other"
        items.append(Item(purpose, decided_by[one.unit_id], one.unit_id, one.inclusion_probability))
    return sorted(items, key=lambda item: (chance(seed, "place", f"{item.purpose}:{item.unit_id}"), item.unit_id))


def weighted_share(observed: Sequence[Observed]) -> Share:
    """The share of hits in the frame: Hajek's ratio of Horvitz-Thompson totals (Horvitz and Thompson 1952; Hajek 1971).

    The interval joins a Wilson interval per group by recovered variances (MOVER, Zou and Donner 2008, Stat Med 27:1693), each
    with the effective number of its weighted units; so a group in which nothing was found still contributes its doubt.
    """
    if not observed:
        return Share(None, None, None, 0, 0.0, 0.0)
    groups: dict[str, list[Observed]] = {}
    for one in observed:
        groups.setdefault(one.group, []).append(one)
    total = math.fsum(1 / one.inclusion_probability for one in observed)
    value = below = above = hits = 0.0
    for units in groups.values():
        weights = [1 / one.inclusion_probability for one in units]
        part = math.fsum(weights) / total
        found = math.fsum(w for w, one in zip(weights, units, strict=True) if one.is_hit)
        share = found / math.fsum(weights)
        low, high = _group_interval(units, weights, share)
        value += part * share
        below += (part * (share - low)) ** 2
        above += (part * (high - share)) ** 2
        hits += found
    return Share(value, max(0.0, value - math.sqrt(below)), min(1.0, value + math.sqrt(above)), len(observed), hits, total)


def _group_interval(units: Sequence[Observed], weights: Sequence[float], share: float) -> tuple[float, float]:
    """Wilson's interval with the number of equally likely units that would know as much."""
    n = len(units)
    effective = math.fsum(weights) ** 2 / math.fsum(w * w for w in weights)  # Kish
    if 0 < share < 1 and n > 1:
        pairs = zip(weights, units, strict=True)
        spread = math.fsum((1 - one.inclusion_probability) * (w * (one.is_hit - share)) ** 2 for w, one in pairs)
        variance = n / (n - 1) * spread / math.fsum(weights) ** 2
        if variance > 0:
            effective = min(share * (1 - share) / variance, 1e9)
    if all(one.inclusion_probability >= 1 for one in units):
        return share, share  # everybody was looked at: nothing is left to chance
    return wilson(share * effective, effective)
