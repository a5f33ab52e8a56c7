"""Two answers laid beside each other, sentence by sentence: what both say, what is worded differently, what only one says. Pure.

Sentences are aligned in order (Needleman and Wunsch, J. Mol. Biol. 48, 1970, 443) by the words they share; a Chinese character is a
word. Called by the bench's view.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from core.completions import sentences

WORD = re.compile(r"[\u3400-\u9fff]|\w+|\s+|[^\w\s]")
#: sentences that share at least this much (Dice's coefficient) say the same thing in other words
ALIKE = 0.5

Kind = Literal["same", "changed", "left", "right"]
#: (text, is it in this sentence only?)
Piece = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class Line:
    """One row: numbers of the sentences from 0 (None where a side is silent), and for a changed pair what differs in it."""

    kind: Kind
    left: int | None
    right: int | None
    left_pieces: tuple[Piece, ...] = ()
    right_pieces: tuple[Piece, ...] = ()


def align(left: str, right: str) -> list[Line]:
    """All sentences of both answers in order, each exactly once."""
    ours, theirs = ([s.text for s in sentences(text)] for text in (left, right))
    bags = [[Counter(words(s)) for s in side] for side in (ours, theirs)]
    likeness = [[_dice(a, b) for b in bags[1]] for a in bags[0]]
    best = [[0.0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i in reversed(range(len(ours))):
        for j in reversed(range(len(theirs))):
            met = likeness[i][j] + best[i + 1][j + 1] if likeness[i][j] >= ALIKE else -1.0
            best[i][j] = max(met, best[i + 1][j], best[i][j + 1])
    found: list[Line] = []
    i = j = 0
    while i < len(ours) or j < len(theirs):
        if i < len(ours) and j < len(theirs) and likeness[i][j] >= ALIKE and best[i][j] == likeness[i][j] + best[i + 1][j + 1]:
            found.append(_pair(i, j, ours[i], theirs[j]))
            i, j = i + 1, j + 1
        elif i < len(ours) and (j == len(theirs) or best[i][j] == best[i + 1][j]):
            found.append(Line("left", i, None))
            i += 1
        else:
            found.append(Line("right", None, j))
            j += 1
    return found


def words(sentence: str) -> list[str]:
    """Words that count, in lower case: neither spaces nor punctuation."""
    return [w.casefold() for w in WORD.findall(sentence) if re.match(r"\w", w)]


def _dice(one: Counter[str], two: Counter[str]) -> float:
    total = one.total() + two.total()
    return 2 * (one & two).total() / total if total else 1.0


def _pair(i: int, j: int, left: str, right: str) -> Line:
    if words(left) == words(right):
        return Line("same", i, j)
    ours, theirs = WORD.findall(left), WORD.findall(right)
    matcher = SequenceMatcher(None, [w.casefold() for w in ours], [w.casefold() for w in theirs], autojunk=False)
    codes = matcher.get_opcodes()
    return Line(
        "changed",
        i,
        j,
        _pieces(("".join(ours[a:b]), tag != "equal") for tag, a, b, _, _ in codes),
        _pieces(("".join(theirs[a:b]), tag != "equal") for tag, _, _, a, b in codes),
    )


def _pieces(found: Iterable[Piece]) -> tuple[Piece, ...]:
    return tuple(piece for piece in found if piece[0])
