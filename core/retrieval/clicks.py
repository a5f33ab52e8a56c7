"""What clicks say about passages once the place where they were shown is taken out. Pure.

A passage is clicked when it was looked at and found attractive (position-based model: Craswell et al., WSDM 2008): P(click) =
examination(rank) * attraction(query, passage). Examination is estimated from logs in which passages changed rank, by
expectation-maximisation, else assumed to fall as 1 / rank. Dividing by it makes the estimate of attraction unbiased (inverse
propensity weights: Joachims, Swaminathan and Schnabel, WSDM 2017). Invariants: a passage below the lowest click is never evidence
against itself (nobody knows whether it was read), and no passage is judged without an interval. Thumbs and verdicts count as what
they are: judgements, not clicks. Called by training.learn_retrieval and benchmarks/retrieval_weeks.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from core.retrieval.prune import EntryStats
from core.statistics import wilson

#: examination of ranks beyond the estimate, and the smallest propensity that is divided by (clipping bounds the variance)
MIN_PROPENSITY = 0.05
#: a passage must have been looked at so often (expected) before silence is held against it
MIN_EXAMINED = 3.0
#: attraction whose interval lies above is a confident positive, below a confident negative
POSITIVE, NEGATIVE = 0.25, 0.25
#: one click is a person's mood
MIN_CLICKS = 2
#: a click that is left again within this time was a mistake (seconds); None means the time is not known and the click counts
MIN_DWELL_S = 5.0
#: of the sessions that asked again in other words, the share that ended at one passage must lie above this (interval)
AGREED = 0.15
#: passages that moved between ranks, at least; below, examination is assumed
MIN_MOVED = 20


@dataclass(frozen=True, slots=True)
class Impression:
    """One list as shown. `clicked` holds places from 0; `dwell_s` the time spent on them; `thumbs` judges passages: +1 or -1.

    `doors` names, place by place, the entry (its text or id) that let the passage in. `session` joins questions asked in one sitting.
    """

    query: str
    shown: tuple[str, ...]
    clicked: frozenset[int] = frozenset()
    dwell_s: Mapping[int, float] = field(default_factory=dict)
    thumbs: Mapping[str, int] = field(default_factory=dict)
    doors: tuple[str, ...] = ()
    session: str = ""

    @property
    def satisfied(self) -> frozenset[int]:
        """Places whose click was not taken back at once."""
        return frozenset(place for place in self.clicked if self.dwell_s.get(place, MIN_DWELL_S) >= MIN_DWELL_S)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about a passage under a query. `examined` is the expected number of looks, `attraction` clicks per look with
    its 95 % interval; `against` counts only looks at or above the lowest click."""

    query: str
    passage: str
    clicks: int
    examined: float
    against: float
    attraction: float
    low: float
    high: float
    up: int = 0
    down: int = 0

    @property
    def is_positive(self) -> bool:
        """Judged good, or clicked more often per look than chance and noise explain; never against a judgement."""
        return self.up > self.down or (self.down == 0 and self.clicks >= MIN_CLICKS and self.low >= POSITIVE)

    @property
    def is_negative(self) -> bool:
        """Judged bad, or looked at often enough and left alone."""
        if self.down > self.up:
            return True
        return self.up == 0 and self.clicks == 0 and self.against >= MIN_EXAMINED and self.high_against < NEGATIVE

    @property
    def high_against(self) -> float:
        """Upper end of attraction by the looks that count against it."""
        return wilson(0.0, self.against, 0.80)[1] if self.clicks == 0 else 1.0


def estimate_examination(impressions: Sequence[Impression], depth: int = 10, rounds: int = 50) -> list[float]:
    """Probability that rank 1, 2, ... `depth` is looked at, relative to rank 1.

    From passages shown at several ranks under one query; with fewer than `MIN_MOVED` of them, 1 / rank.
    """
    groups: dict[tuple[str, str], list[tuple[int, bool]]] = defaultdict(list)
    for one in impressions:
        for place, passage in enumerate(one.shown[:depth]):
            groups[(one.query, passage)].append((place, place in one.satisfied))
    moved = [rows for rows in groups.values() if len({place for place, _ in rows}) > 1]
    if len(moved) < MIN_MOVED:
        return [1 / rank for rank in range(1, depth + 1)]
    pair = np.concatenate([np.full(len(rows), i) for i, rows in enumerate(moved)])
    places = np.array([p for rows in moved for p, _ in rows])
    click = np.array([c for rows in moved for _, c in rows])
    theta, gamma = 1 / np.arange(1, depth + 1), np.full(len(moved), 0.3)
    shown_at = np.maximum(np.bincount(places, minlength=depth), 1)
    shown_as = np.bincount(pair, minlength=len(moved))
    for _ in range(rounds):
        both = theta[places] * gamma[pair]
        looked = np.where(click, 1.0, theta[places] * (1 - gamma[pair]) / np.maximum(1 - both, 1e-9))
        liked = np.where(click, 1.0, gamma[pair] * (1 - theta[places]) / np.maximum(1 - both, 1e-9))
        # two pseudo-looks at the prior keep ranks that were rarely seen from running off
        theta = (np.bincount(places, looked, depth) + 2 / np.arange(1, depth + 1)) / (shown_at + 2)
        gamma = np.clip((np.bincount(pair, liked, len(moved)) + 0.3) / (shown_as + 1), 1e-3, 1 - 1e-3)
    falling = np.minimum.accumulate(theta / theta[0])
    return [float(value) for value in np.clip(falling, MIN_PROPENSITY, 1.0)]


def inverse_weights(examination: Sequence[float]) -> list[float]:
    """1 / propensity per rank, clipped: what one click at that rank counts."""
    return [1 / max(p, MIN_PROPENSITY) for p in examination]


def gather(impressions: Iterable[Impression], examination: Sequence[float]) -> dict[tuple[str, str], Evidence]:
    """Evidence per (query, passage). Attraction = clicks / expected looks, which is unbiased under the position-based model."""
    clicks: dict[tuple[str, str], int] = defaultdict(int)
    looks: dict[tuple[str, str], float] = defaultdict(float)
    against: dict[tuple[str, str], float] = defaultdict(float)
    up: dict[tuple[str, str], int] = defaultdict(int)
    down: dict[tuple[str, str], int] = defaultdict(int)
    for one in impressions:
        satisfied = one.satisfied
        lowest = max(one.clicked, default=len(one.shown))
        for place, passage in enumerate(one.shown):
            key = (one.query, passage)
            seen = examination[place] if place < len(examination) else MIN_PROPENSITY
            looks[key] += seen
            clicks[key] += place in satisfied
            if place <= lowest and place not in one.clicked:
                against[key] += seen
        for passage, thumb in one.thumbs.items():
            (up if thumb > 0 else down)[(one.query, passage)] += 1
    found = {}
    for key in {*looks, *up, *down}:
        n, hits = looks[key], clicks[key]
        low, high = wilson(min(hits, n), n)
        attraction = min(1.0, hits / n) if n else 0.0
        found[key] = Evidence(*key, hits, n, against[key], attraction, low, high, up[key], down[key])
    return found


@dataclass(frozen=True, slots=True)
class Missed:
    """A passage that answers a query which did not show it well: `why` is "judged", "reformulated" or "clicked_low".

    What a query shows well already needs no door: confirmed questions as entries gained nothing and cost others a little
    (docs/benchmarks_retrieval.md)."""

    query: str
    passage: str
    why: str


def missed_documents(impressions: Sequence[Impression], evidence: Mapping[tuple[str, str], Evidence], good_rank: int = 3) -> list[Missed]:
    """Which passages should have a door for which query, surest first, each pair once.

    A query failed when nobody was satisfied with what it showed first. The passage wanted is known from a judgement, from clicks far
    down that are confident, or from the next question of the same session: it was satisfied with a confident passage, or several
    sessions in which the first wording failed ended at the same one.
    """
    found: dict[tuple[str, str], str] = {}
    best: dict[tuple[str, str], int] = {}
    for one in impressions:
        for place, passage in enumerate(one.shown):
            best[(one.query, passage)] = min(place, best.get((one.query, passage), place))
    for key, known in evidence.items():
        if known.is_positive and best.get(key, good_rank) >= good_rank:
            found[key] = "judged" if known.up > known.down else "clicked_low"
    ended: dict[str, set[str]] = defaultdict(set)
    agree: dict[tuple[str, str], set[str]] = defaultdict(set)
    for before, after in pairwise(sorted(impressions, key=lambda one: one.session)):  # stable: sittings of several people interlock
        if not before.session or before.session != after.session or before.query == after.query or before.satisfied:
            continue
        ended[before.query].add(after.session)
        for place in sorted(after.satisfied):
            passage = after.shown[place]
            agree[(before.query, passage)].add(after.session)
            if (later := evidence.get((after.query, passage))) is not None and later.is_positive:
                agree[(before.query, passage)].add("")  # known to be right for the other wording
    for (query, passage), sessions in agree.items():
        here = evidence.get((query, passage))
        num = len(sessions - {""})
        is_sure = "" in sessions or (num >= MIN_CLICKS and wilson(num, len(ended[query]))[0] >= AGREED)
        is_right = here is None or not here.is_negative or here.down <= here.up
        if is_sure and is_right and best.get((query, passage), good_rank) >= good_rank:
            found.setdefault((query, passage), "reformulated")
    order = ("judged", "clicked_low", "reformulated")
    return [Missed(q, p, why) for (q, p), why in sorted(found.items(), key=lambda item: order.index(item[1]))]


def entry_stats(impressions: Iterable[Impression], evidence: Mapping[tuple[str, str], Evidence]) -> dict[str, EntryStats]:
    """Per door, how often it let a passage in, and how often that passage was a confident positive or negative for the query."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for one in impressions:
        for door, passage in zip(one.doors, one.shown, strict=False):
            if door:
                known = evidence[(one.query, passage)]
                for place, is_so in enumerate((True, known.is_positive, known.is_negative)):
                    counts[door][place] += is_so
    return {door: EntryStats(*numbers) for door, numbers in counts.items()}
