"""Exact and near duplicates among prompts. Near means Jaccard similarity of character shingles at or above the threshold.

MinHash LSH from `datasketch` proposes candidates; every proposed pair is checked exactly. Chinese uses 2-character
shingles, other text 5. Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

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


def near_duplicates(
    texts: Sequence[str],
    languages: Sequence[Language],
    *,
    threshold: float = THRESHOLD,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[tuple[int, int, float]]:
    """(later, earlier, similarity) for each text that is close to an earlier one; each later index appears once."""
    index = MinHashLSH(threshold=threshold, num_perm=NUM_PERM, weights=WEIGHTS)
    first = MinHash(num_perm=NUM_PERM, hashfunc=zlib.crc32, seed=1)  # drawing permutations anew for each text costs more than using them
    found: list[tuple[int, int, float]] = []
    for i, (text, language) in enumerate(zip(texts, languages, strict=True)):
        own = shingles(text, language)
        sketch = MinHash(num_perm=NUM_PERM, hashfunc=zlib.crc32, permutations=first.permutations, scheme=first.scheme)
        sketch.update_batch(list(own))
        best: tuple[int, float] | None = None
        for j in index.query(sketch):
            other = shingles(texts[j], languages[j])
            similarity = len(own & other) / len(own | other)
            if similarity >= threshold and (best is None or similarity > best[1]):
                best = (j, similarity)
        if best is not None:
            found.append((i, best[0], round(best[1], 4)))
        else:
            index.insert(i, sketch)  # only the first of a group is a target, so groups stay flat
        if on_progress and i % 2000 == 0:
            on_progress(i, len(texts))
    return found
