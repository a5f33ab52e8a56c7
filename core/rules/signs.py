"""Danger signs in the patient's question, read with care for "no", "if" and "ten years ago". Pure; shared by the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from core.lexicons import Lexicons, Match, canonical, load_lexicons
from core.mentions import Reading, is_acute, read
from core.records import Prompt


@dataclass(frozen=True, slots=True)
class Signs:
    """What the question holds. `present` are spans of the last user turn; `earlier` names signs of earlier turns."""

    present: tuple[Match, ...]
    #: mentioned but denied, imagined, past, treated or part of a known disease
    discounted: tuple[tuple[Match, Reading], ...]
    earlier: tuple[str, ...]

    @property
    def any(self) -> bool:
        return bool(self.present or self.earlier)


def danger_signs(prompt: Prompt, lexicons: Lexicons) -> Signs:
    """The danger signs of `prompt`. A sign of an earlier user turn counts unless the last turn denies it."""
    turns = tuple(message.content for message in prompt.messages if message.role == "user")
    return _signs_of(turns, lexicons.version) if lexicons is load_lexicons() else _find(turns, lexicons)


@lru_cache(maxsize=8192)
def _signs_of(turns: tuple[str, ...], _version: str) -> Signs:
    return _find(turns, load_lexicons())


def _find(turns: Sequence[str], lexicons: Lexicons) -> Signs:
    if not turns:
        return Signs((), (), ())
    present, discounted = _read_turn(turns[-1], lexicons)
    denied = {match.term for match, reading in discounted if reading in (Reading.DENIED, Reading.TREATED)}
    earlier = {match.term for turn in turns[:-1] for match in _read_turn(turn, lexicons)[0]}
    return Signs(tuple(present), tuple(discounted), tuple(sorted(earlier - denied - {m.term for m in present})))


def _read_turn(text: str, lexicons: Lexicons) -> tuple[list[Match], list[tuple[Match, Reading]]]:
    plain = canonical(text)
    known = {match.term for match in lexicons.known.find(plain)}
    present: list[Match] = []
    discounted: list[tuple[Match, Reading]] = []
    for match in lexicons.danger.find(plain):
        reading = read(plain, match.start, match.end, lexicons)
        if reading is Reading.PRESENT and match.term in known and not is_acute(plain, match.start, match.end, lexicons):
            reading = Reading.KNOWN
        if reading is Reading.PRESENT:
            present.append(match)
        else:
            discounted.append((match, reading))
    return present, discounted
