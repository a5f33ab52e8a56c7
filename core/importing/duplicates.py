"""Exact and near duplicates among prompts. Near means Jaccard similarity of character shingles at or above the threshold.

MinHash LSH from `datasketch` proposes candidates; every proposed pair is checked exactly. Chinese uses 2-character
shingles, other text 5. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from datasketch import MinHash, MinHashLSH

from core.records import Language

THRESHOLD = 0.85
NUM_PERM = 32


def shingles(text: str, language: Language) -> set[bytes]:
    """Character shingles of the lower-cased text without white space."""
    plain = "".join(text.lower().split())
    size = 2 if language is Language.ZH else 5
    return {plain[i : i + size].encode() for i in range(max(1, len(plain) - size + 1))}


def _fast_hash(value: bytes) -> int:
    return int.from_bytes(value[-8:], "little") * 0x9E3779B1 & 0xFFFFFFFF


def near_duplicates(
    texts: Sequence[str],
    languages: Sequence[Language],
    *,
    threshold: float = THRESHOLD,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[tuple[int, int, float]]:
    """(later, earlier, similarity) for each text that is close to an earlier one; each later index appears once."""
    index = MinHashLSH(threshold=threshold, num_perm=NUM_PERM)
    found: list[tuple[int, int, float]] = []
    for i, (text, language) in enumerate(zip(texts, languages, strict=True)):
        own = shingles(text, language)
        sketch = MinHash(num_perm=NUM_PERM, hashfunc=_fast_hash, seed=1)
        sketch.update_batch(list(own))
        best: tuple[int, float] | None = None
        for j in index.query(sketch):
            other = shingles(texts[j], languages[j])
            similarity = len(own & other) / len(own | other)
            if similarity >= threshold and (best is None or similarity > best[1]):
                best = (j, similarity)
        if best is not None:
            found.append((i, best[0], float(np.round(best[1], 4))))
        else:
            index.insert(i, sketch)  # only the first of a group is a target, so groups stay flat
        if on_progress and i % 2000 == 0:
            on_progress(i, len(texts))
    return found
