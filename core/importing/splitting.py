"""Deterministic stratified splits: the same rows and seed give the same split, whatever their order in the file. Pure.

Within each stratum (language, risk, category) items are ordered by SHA-256(seed, content hash) and dealt out by largest
remainder. Near duplicates travel together, so that no paraphrase of a training prompt is tested on.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from core.records import Split

SHARES: Mapping[Split, float] = {Split.TRAIN: 0.8, Split.DEV: 0.1, Split.TEST: 0.1}


def assign(digests: Sequence[str], strata: Sequence[str], groups: Sequence[int], seed: int) -> list[Split]:
    """One split per item. `groups[i]` is the index of the item whose fate item i shares (itself when alone)."""
    leaders: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        if group == i:
            leaders[strata[i]].append(i)
    fate: dict[int, Split] = {}
    carry = dict.fromkeys(SHARES, 0.0)
    for stratum in sorted(leaders):
        order = sorted(leaders[stratum], key=lambda i: hashlib.sha256(f"{seed}:{digests[i]}".encode()).digest())
        counts = _deal(len(order), carry)
        position = 0
        for split, count in counts.items():
            for i in order[position : position + count]:
                fate[i] = split
            position += count
    return [fate[group] for group in groups]


def _deal(total: int, carry: dict[Split, float]) -> dict[Split, int]:
    """Whole numbers that add up to `total`; what rounding leaves over is carried to the next stratum, so small ones count too."""
    exact = {split: share * total + carry[split] for split, share in SHARES.items()}
    counts = {split: max(0, int(value)) for split, value in exact.items()}
    while sum(counts.values()) > total:
        counts[min((s for s in counts if counts[s]), key=lambda s: exact[s] - counts[s])] -= 1
    while sum(counts.values()) < total:
        counts[max(counts, key=lambda s: exact[s] - counts[s])] += 1
    for split in carry:
        carry[split] = exact[split] - counts[split]
    return counts
