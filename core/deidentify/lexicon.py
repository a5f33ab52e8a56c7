"""The word list of the name recogniser (assets/deidentify/lexicon.toml), read once per process. Pure but for that."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PATH = Path(__file__).resolve().parents[2] / "assets" / "deidentify" / "lexicon.toml"


@dataclass(frozen=True, slots=True)
class Chinese:
    """Characters and words for Chinese names."""

    surnames: frozenset[str]
    compound: tuple[str, ...]
    given: frozenset[str]
    not_names: frozenset[str]
    followers: frozenset[str]
    ambiguous: frozenset[str]
    #: characters that a name may follow without a pause (与, 对 ...)
    joiners: frozenset[str]
    #: characters of bodies, drugs and grammar that no given name holds
    never: frozenset[str]
    left: re.Pattern[str]
    strong: re.Pattern[str]
    #: either cue at the very end of a text
    cued: re.Pattern[str]
    right: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class English:
    """Words for English names, as written (capitalised)."""

    first_names: frozenset[str]
    surnames: frozenset[str]
    #: surnames that are no common words, fore names or eponyms: they make the capitalised word before them a first name
    plain_surnames: frozenset[str]
    not_names: frozenset[str]
    eponyms: frozenset[str]
    after_eponym: frozenset[str]
    title: re.Pattern[str]
    strong: re.Pattern[str]
    weak: re.Pattern[str]


@cache
def _raw() -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = tomllib.loads(PATH.read_text(encoding="utf-8"))
    return found


def _words(value: object) -> list[str]:
    return value.split() if isinstance(value, str) else [str(v) for v in value] if isinstance(value, list) else []


def _any(words: list[str]) -> str:
    return "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))


@cache
def chinese() -> Chinese:
    raw = {key: _words(value) for key, value in _raw()["zh"].items()}
    return Chinese(
        surnames=frozenset("".join(raw["surnames"])),
        compound=tuple(raw["compound_surnames"]),
        given=frozenset("".join(raw["given"])),
        not_names=frozenset(raw["not_names"]),
        followers=frozenset("".join(raw["followers"])),
        ambiguous=frozenset("".join(raw["ambiguous"])),
        joiners=frozenset("".join(raw["joiners"])),
        never=frozenset("".join(raw["never"])),
        left=re.compile(rf"(?:{_any(raw['left_cues'])})(?:姓名)?\s?(?:[:：是为（(“\"]\s?)?"),
        strong=re.compile(rf"(?:{_any(raw['strong_cues'])})\s?(?:[:：是为叫作（(“\"]\s?)*"),
        cued=re.compile(rf"(?:{_any([*raw['left_cues'], *raw['strong_cues']])})(?:姓名)?\s?[:：是为]?\s?\Z"),
        right=re.compile(rf"(?:{_any(raw['right_cues'])})|[，,（(]\s?(?:男|女)(?:性)?(?:[，,、）)]|\s?\d)|[，,]\s?\d{{1,3}}岁"),
    )


@cache
def english() -> English:
    raw = {key: _words(value) for key, value in _raw()["en"].items()}
    cue = r"(?:\s+is|\s+was|'s name is)?\s*[:,(\"“-]?\s*"
    return English(
        first_names=frozenset(raw["first_names"]),
        surnames=frozenset(raw["surnames"]),
        plain_surnames=frozenset(raw["surnames"]) - {*raw["word_surnames"], *raw["eponyms"], *raw["first_names"]},
        not_names=frozenset(raw["not_names"]),
        eponyms=frozenset(raw["eponyms"]),
        after_eponym=frozenset(raw["after_eponym"]),
        title=re.compile(rf"(?<![A-Za-z])(?:{_any(raw['titles'])})\.?\s+"),
        strong=re.compile(rf"(?<![A-Za-z])(?i:{_any(raw['strong_cues'])}){cue}"),
        weak=re.compile(rf"(?<![A-Za-z])(?i:{_any(raw['weak_cues'])}){cue}"),
    )
