"""Which prompts a policy practises on: a seeded, stratified draw, heavier where experts found gaps. Pure.

Strata are category x language x risk. The set has the pool's own share of high-risk prompts, boosts counted, and never less
than `high_risk_share`; inside the high-risk part and the rest, a stratum's places go by its size times its boost. The boost is
1 + gap_boost x the share of its verdicts that were bad or showed a scorer wrong, shrunk towards nothing where few verdicts were
given, times the accepted sampling weight of its category and risk. Inside a stratum every prompt has the same chance, so its
inclusion probability is known: places / size.

Never drawn: anything outside the training splits, and anything equal or nearly equal to a prompt of an evaluation split (dev, test,
gold, red_team) of any dataset. Called by training.prompt_set.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.errors import UserError
from core.records import TRAINING_SPLITS, Risk

MIN_HIGH_RISK = 0.4
#: verdicts in a stratum before its gap counts half of what it says
PRIOR_VERDICTS = 4.0
MAX_BOOST = 10.0

Stratum = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored prompt. `leak` is the id of the evaluation prompt that it equals or nearly equals, None when there is none."""

    sample_id: int
    category: str
    language: str
    risk: str
    split: str
    content_hash: str
    leak: int | None = None

    @property
    def stratum(self) -> Stratum:
        return self.category, self.language, self.risk


@dataclass(frozen=True, slots=True)
class Gap:
    """Verdicts in a stratum: how many, and how many were bad or found a scorer wrong."""

    num: int
    num_bad: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """One stratum of the set."""

    category: str
    language: str
    risk: str
    num_available: int
    num_drawn: int
    inclusion_probability: float
    boost: float
    num_verdicts: int
    num_bad: int


@dataclass(frozen=True, slots=True)
class PromptSet:
    """The chosen prompts in id order and the account of how they were chosen."""

    sample_ids: tuple[int, ...]
    strata: tuple[Drawn, ...]
    num_asked: int
    high_risk_share: float
    num_leaks: int
    num_copies: int
    seed: int

    def manifest(self) -> dict[str, Any]:
        """Counts and inclusion probabilities, as stored with the dataset."""
        return {
            "num_prompts": len(self.sample_ids),
            "num_asked": self.num_asked,
            "high_risk_share": self.high_risk_share,
            "num_left_out_as_leaks": self.num_leaks,
            "num_left_out_as_copies": self.num_copies,
            "seed": self.seed,
            "strata": [asdict(one) for one in self.strata],
        }


def build(
    pool: Sequence[Candidate],
    num_prompts: int,
    *,
    high_risk_share: float = MIN_HIGH_RISK,
    gaps: Mapping[Stratum, Gap] | None = None,
    sampling_weights: Mapping[tuple[str, str], float] | None = None,
    gap_boost: float = 2.0,
    seed: int = 0,
) -> PromptSet:
    """Draw without replacement; the same arguments give the same set, whatever the order of `pool`.

    `sampling_weights` are by (category, risk). A candidate of another split is a mistake of the caller: ValueError. Fewer
    prompts than asked for are taken when there are no more, or when the high-risk ones run out: the share is kept and the set
    made smaller. Raises UserError("reward.no_high_risk_prompts", "reward.no_prompts_left").
    """
    if wrong := {one.split for one in pool} - {split.value for split in TRAINING_SPLITS}:
        raise ValueError(f"evaluation splits never enter training: {sorted(wrong)}")
    share = max(MIN_HIGH_RISK, high_risk_share)
    clean = [one for one in pool if one.leak is None]
    unique = {one.content_hash: one for one in sorted(clean, key=lambda one: -one.sample_id)}  # the oldest copy stays
    kept = sorted(unique.values(), key=lambda one: one.sample_id)
    high = [one for one in kept if one.risk == Risk.HIGH]
    other = [one for one in kept if one.risk != Risk.HIGH]
    if not kept:
        raise UserError("reward.no_prompts_left", num=len(pool), leaks=len(pool) - len(clean))
    if not high:
        raise UserError("reward.no_high_risk_prompts", num=len(kept))
    total = min(num_prompts, len(kept), math.floor(len(high) / share + 1e-9))
    boosts = {one.stratum: boost(one.stratum, gaps or {}, sampling_weights or {}, gap_boost) for one in kept}
    own_share = sum(boosts[one.stratum] for one in high) / max(1e-9, sum(boosts[one.stratum] for one in kept))
    num_high = min(len(high), max(math.ceil(share * total - 1e-9), round(own_share * total), total - len(other)))
    strata: list[Drawn] = []
    chosen: list[int] = []
    for members, places in ((high, num_high), (other, total - num_high)):
        by_stratum: dict[Stratum, list[int]] = defaultdict(list)
        for one in members:
            by_stratum[one.stratum].append(one.sample_id)
        for stratum, count in allocate({s: len(ids) for s, ids in by_stratum.items()}, boosts, places).items():
            ids = by_stratum[stratum]
            chosen += random.Random(f"{seed}-{'/'.join(stratum)}").sample(ids, count)
            gap = (gaps or {}).get(stratum, Gap(0, 0))
            strata.append(Drawn(*stratum, len(ids), count, count / len(ids), round(boosts[stratum], 4), gap.num, gap.num_bad))
    return PromptSet(
        tuple(sorted(chosen)),
        tuple(sorted(strata, key=lambda s: (s.category, s.language, s.risk))),
        num_prompts,
        num_high / total,
        len(pool) - len(clean),
        len(clean) - len(kept),
        seed,
    )


def boost(stratum: Stratum, gaps: Mapping[Stratum, Gap], sampling_weights: Mapping[tuple[str, str], float], gap_boost: float) -> float:
    """How much heavier a stratum is drawn than its size alone would have it, at most `MAX_BOOST`."""
    gap = gaps.get(stratum, Gap(0, 0))
    wanted = max(0.0, sampling_weights.get((stratum[0], stratum[2]), 1.0))
    return min(MAX_BOOST, (1 + gap_boost * gap.num_bad / (gap.num + PRIOR_VERDICTS)) * wanted)


def allocate(sizes: Mapping[Stratum, int], boosts: Mapping[Stratum, float], places: int) -> dict[Stratum, int]:
    """Places by size x boost, none above its stratum's size, rounded by largest remainders; every place is given where possible."""
    given = dict.fromkeys(sorted(sizes), 0)
    left = min(places, sum(sizes.values()))
    while left > 0:
        open_ = {s: sizes[s] * max(boosts[s], 1e-9) for s in given if given[s] < sizes[s]}
        total = sum(open_.values())
        shares = {s: left * weight / total for s, weight in open_.items()}
        full = [s for s in open_ if shares[s] >= sizes[s] - given[s]]
        if full:  # fill what would overflow, then share the rest out anew
            for s in full:
                left -= sizes[s] - given[s]
                given[s] = sizes[s]
            continue
        whole = {s: math.floor(share) for s, share in shares.items()}
        rest = left - sum(whole.values())
        first = sorted(shares, key=lambda s: (whole[s] - shares[s], s))[:rest]
        for s in open_:
            given[s] += whole[s] + (s in first)
        left = 0
    return given


def gaps_of(verdicts: Sequence[tuple[Stratum, bool]]) -> dict[Stratum, Gap]:
    """Count verdicts by stratum; the flag says whether the answer was bad or a scorer wrong."""
    num, bad = Counter(s for s, _ in verdicts), Counter(s for s, is_bad in verdicts if is_bad)
    return {s: Gap(num[s], bad[s]) for s in num}
