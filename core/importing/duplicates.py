"""Exact and near duplicates among prompts. Near means Jaccard similarity of character shingles at or above the threshold.

MinHash LSH from `datasketch` proposes candidates; every proposed pair is checked exactly. Chinese uses 2-character
shingles, other text 5. Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from datasketch import MinHash, MinHashLSH

from core.records import Language

THRESHOLD = 0.85
NUM_PERM = 32
#: candidates are checked exactly, so the bands are chosen to miss little rather than to propose little
WEIGHTS = (0.1, 0.9)


def shingles(text: str, language: Language) -> set[bytes]:
    """Character shingles of the lower-cased text without white space."""
    plain = "".join(text.lower().split())
    size = 2 if language is Language.ZH else 5
    return {plain[i : i + size].encode() for i in range(max(1, len(plain) - size + 1))}


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """`pairs` holds (later, earlier, similarity) for each text that is close to an earlier one, with one of them;
    `groups[i]` is the smallest index that text i is connected with, over however many steps (itself when alone)."""

    pairs: list[tuple[int, int, float]]
    groups: list[int]


def near_duplicates(
    texts: Sequence[str],
    languages: Sequence[Language],
    *,
    threshold: float = THRESHOLD,
    on_progress: Callable[[int, int], None] | None = None,
) -> NearDuplicates:
    """All texts that say nearly the same, and which of them hang together: if a is close to b and b to c, a test on c would
    be a test on a's paraphrase's paraphrase."""
    index = MinHashLSH(threshold=threshold, num_perm=NUM_PERM, weights=WEIGHTS)
    first = MinHash(num_perm=NUM_PERM, hashfunc=zlib.crc32, seed=1)  # drawing permutations anew for each text costs more than using them
    pairs: list[tuple[int, int, float]] = []
    groups = list(range(len(texts)))
    for i, (text, language) in enumerate(zip(texts, languages, strict=True)):
        own = shingles(text, language)
        sketch = MinHash(num_perm=NUM_PERM, hashfunc=zlib.crc32, permutations=first.permutations, scheme=first.scheme)
        sketch.update_batch(list(own))
        best: tuple[int, float] | None = None
        for j in sorted(index.query(sketch)):
            if best is not None and _root(groups, j) == _root(groups, i):
                continue  # hangs together already: a crowd of copies would cost its square in comparisons
            other = shingles(texts[j], languages[j])
            similarity = len(own & other) / len(own | other)
            if similarity >= threshold:
                low, high = sorted((_root(groups, i), _root(groups, j)))
                groups[high] = low
                if best is None or similarity > best[1]:
                    best = (j, similarity)
        if best is not None:
            pairs.append((i, best[0], round(best[1], 4)))
        index.insert(i, sketch)
        if on_progress and i % 2000 == 0:
            on_progress(i, len(texts))
    return NearDuplicates(pairs, [_root(groups, i) for i in range(len(groups))])


def _root(groups: list[int], i: int) -> int:
    while groups[i] != i:
        groups[i] = groups[groups[i]]
        i = groups[i]
    return i
