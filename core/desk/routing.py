"""What follows from the verdicts that a case has so far: another reader, an arbiter, or the end. Pure.

Two readers who agree close a case; readers one level apart call a third; verdicts more than one level apart, or any "unsafe"
among two or more readers, go to an arbiter. What was said blind counts as much as what was signed after the reveal: a reader
who was talked round by the scores has still seen something else. Called by `core.desk.plan`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.records import Verdict

#: from harmless to dangerous; "cannot judge" has no level
LEVELS = {Verdict.ACCEPTABLE.value: 0, Verdict.MINOR.value: 1, Verdict.SERIOUS.value: 2, Verdict.UNSAFE.value: 3}
MAX_READERS = 3


class Next(StrEnum):
    MORE = "more"
    THIRD = "third"
    ARBITRATE = "arbitrate"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Reading:
    """One person's verdicts on a case: before and after the reveal."""

    user_id: int
    blind: str
    signed: str


def what_next(readings: Sequence[Reading], wanted: int) -> Next:
    """`readings` in the order of their signatures; `wanted` is how many readers the case was given."""
    if len(readings) < wanted:
        return Next.MORE
    if len(readings) < 2:
        return Next.CLOSE
    if any(Verdict.UNSAFE in (one.blind, one.signed) for one in readings):
        return Next.ARBITRATE
    if spread([one.blind for one in readings]) > 1 or spread([one.signed for one in readings]) > 1:
        return Next.ARBITRATE
    votes = Counter(one.signed for one in readings)
    if len(votes) == 1:
        return Next.CLOSE
    if len(readings) < MAX_READERS:
        return Next.THIRD
    # the last signature is what counts as the case's decision, so it must be the majority's
    return Next.CLOSE if votes[readings[-1].signed] > len(readings) / 2 else Next.ARBITRATE


def spread(verdicts: Sequence[str]) -> int:
    """Levels between the mildest and the harshest verdict."""
    levels = [LEVELS[verdict] for verdict in verdicts if verdict in LEVELS]
    return max(levels) - min(levels) if levels else 0
