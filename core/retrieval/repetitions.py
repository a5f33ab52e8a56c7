"""Chunks that say the same as an earlier one: the same text, or nearly the same with the same numbers and negations. Pure.

A mark is a hash of the plain text and a MinHash signature over pairs of tokens, cut in bands: two chunks of similarity 0.9
share two bands with probability .99, and the likeliest pairs that do are compared exactly. "10 mg" and "15 mg", "take" and "do not take"
are never the same, however alike the rest: such pairs are the last that a medical index may merge. Called by training.index.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from core.retrieval.chunk import Chunk
from core.retrieval.tokens import UNIT, normalise, tokenise

SIMILARITY = 0.9
NUM_BANDS, ROWS_PER_BAND = 8, 5
MARK = np.dtype([("hash", "u8"), ("bands", "u4", (NUM_BANDS,))])
#: bands that two chunks must share before they are compared: .99 of those at similarity 0.9 do, .02 of those at 0.5
MIN_SHARED = 2
MAX_COMPARED = 16
#: a text of fewer pairs has no near copies, only the same text
MIN_PAIRS = 8
NEGATIONS = frozenset(["no", "not", "never", "without", "cannot", "nor", "neither", "avoid", "don", "t", "stop"])
CJK_NEGATION = re.compile("[不无非未勿忌禁别没莫]")
_draw = np.random.default_rng(20_240_501)
_MULTIPLY = _draw.integers(1, 2**63, NUM_BANDS * ROWS_PER_BAND, dtype=np.uint64) | np.uint64(1)
_ADD = _draw.integers(0, 2**63, NUM_BANDS * ROWS_PER_BAND, dtype=np.uint64)
_MIX = _draw.integers(1, 2**63, ROWS_PER_BAND, dtype=np.uint64) | np.uint64(1)
Marks = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A chunk repeats the earlier one of number `number`."""

    number: int
    kind: Literal["exact", "near"]


def pair_hashes(tokens: Sequence[str]) -> Marks:
    """Distinct 32-bit hashes of the neighbouring tokens of a text, as uint64."""
    each = np.array([zlib.crc32(token.encode()) for token in tokens], np.uint64)
    return np.unique((each[:-1] * np.uint64(0x9E3779B97F4A7C15) + each[1:]) >> np.uint64(16) & np.uint64(0xFFFFFFFF))


def mark(text: str) -> Marks:
    """One row of MARK. The bands of a short text are zero: it is compared by its hash only."""
    row = np.zeros((), MARK)
    tokens = tokenise(text)
    plain = " ".join(tokens).encode()
    row["hash"] = zlib.crc32(plain) << 32 | zlib.adler32(plain)
    pairs = pair_hashes(tokens)
    if len(pairs) >= MIN_PAIRS:
        mixed = (pairs[:, None] * _MULTIPLY + _ADD) >> np.uint64(32)
        bands = mixed.min(0).reshape(NUM_BANDS, ROWS_PER_BAND)
        row["bands"] = ((bands * _MIX).sum(1, dtype=np.uint64) >> np.uint64(32)) | np.uint64(1)
    return row


def is_repeat(text: str, other: str, similarity: float = SIMILARITY) -> Literal["exact", "near"] | None:
    """Compare two texts whose marks agree somewhere."""
    units, own_critical, own = _profile(text)
    other_units, other_critical, their = _profile(other)
    if units == other_units:
        return "exact"
    if similarity >= 1 or own_critical != other_critical:
        return None
    common = len(np.intersect1d(own, their, assume_unique=True))
    return "near" if common >= similarity * (len(own) + len(their) - common) and common else None


def critical(text: str) -> list[str]:
    """Numbers and negations, in order: what may not differ between texts that count as the same."""
    found: list[str] = []
    for match in UNIT.finditer(normalise(text)):
        if match["cjk"]:
            found += CJK_NEGATION.findall(match[0])
        elif match["number"] or match[0] in NEGATIONS or match[0].endswith(("n't", "n’t")):
            found.append(match[0])
    return found


@lru_cache(maxsize=4096)
def _profile(text: str) -> tuple[int, list[str], Marks]:
    """What a comparison needs of a text; remembered, because texts made from one template are compared with each other again."""
    return hash(tuple(match[0] for match in UNIT.finditer(normalise(text)))), critical(text), pair_hashes(tokenise(text))


class Repetitions:
    """The chunks so far, by their marks. `chunk_of(number)` reads one back for the exact comparison.

    A chunk under another title is never a repetition: "there is no cure" is said of many diseases.
    """

    def __init__(self, chunk_of: Callable[[int], Chunk], similarity: float = SIMILARITY) -> None:
        self._chunk_of, self._similarity = chunk_of, similarity
        self._by_hash: dict[int, list[int]] = {}
        self._by_band: list[dict[int, list[int]]] = [{} for _ in range(NUM_BANDS)]

    def add(self, number: int, row: Marks) -> None:
        """Know a chunk from now on."""
        self._by_hash.setdefault(int(row["hash"]), []).append(number)
        for known, band in zip(self._by_band, row["bands"], strict=True):
            if band:
                known.setdefault(int(band), []).append(number)

    def add_all(self, numbers: Sequence[int], rows: Marks) -> None:
        for number, row in zip(numbers, rows, strict=True):
            self.add(number, row)

    def find(self, chunk: Chunk, row: Marks) -> Repeat | None:
        """The chunk that `chunk` (its text marked `row`) repeats, or None."""
        shared = Counter(dict.fromkeys(self._by_hash.get(int(row["hash"]), ()), NUM_BANDS))
        if self._similarity < 1:
            for known, band in zip(self._by_band, row["bands"], strict=True):
                if band:
                    shared.update(known.get(int(band), ()))
        likely = sorted((-times, number) for number, times in shared.items() if times >= MIN_SHARED)[:MAX_COMPARED]
        for _, number in likely:
            other = self._chunk_of(number)
            kind = is_repeat(chunk.text, other.text, self._similarity)
            if kind and tokenise(chunk.title) == tokenise(other.title):
                return Repeat(number, kind)
        return None
