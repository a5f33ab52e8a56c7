"""Word lists as data: loading, hashing and matching `assets/lexicons/*.toml`. Pure but for reading the files once.

A phrase in a lexicon is a regular expression with three conveniences: a space stands for white space or a hyphen, `..` for a
short gap, and neither `..` nor `.{0,4}` ever crosses the end of a clause. English phrases match whole words. Matching runs on
a canonical copy of the text (lower case, half-width digits and letters, straight apostrophes) that has the same length, so
every offset is exact in the original.

`lexicon_version` hashes all files: a score can always be traced to the words that made it. Used by core.rules, core.teacher
and (for its drug and danger names) the desk.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from core.errors import UserError

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "lexicons"
FILES = ("danger_signs", "emergency_advice", "risky_prescriptions", "drugs", "chain_steps", "context", "content")

CJK = re.compile(r"[\u3400-\u9fff]")
_ASCII_RUN = re.compile(r"[!-~]+")
_FULLWIDTH = {
    **{0xFF10 + i: 0x30 + i for i in range(10)},
    **{0xFF21 + i: 0x61 + i for i in range(26)},
    **{0xFF41 + i: 0x61 + i for i in range(26)},
    0x2019: 0x27,
    0x2018: 0x27,
}
#: what a gap may consist of: nothing that ends a clause
_INSIDE = {"en": r"[^\n.;!?,]", "zh": r"[^\n。；！？，,;]"}
_GAP = {"en": rf"(?:\b{_INSIDE['en']}{{1,30}}?\b)", "zh": rf"(?:{_INSIDE['zh']}{{0,8}}?)"}


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """`text` as it is matched: lower case, half-width letters and digits; always as long as `text`."""
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = "".join(low if len(low := char.lower()) == 1 else char for char in text)
    return lowered if lowered.isascii() else lowered.translate(_FULLWIDTH)


@dataclass(frozen=True, slots=True)
class Match:
    """Characters [start, end) matched by the lexicon entry `term`."""

    start: int
    end: int
    term: str


class AnchorIndex:
    """Plain literals of all lexicons. One pass over a text says which of them it holds; matchers then run only what can match.

    Chinese literals are looked up by their first character. English ones never hold a space, so each lies in one word, and
    what a word holds is remembered.
    """

    def __init__(self) -> None:
        self._by_first: dict[str, list[str]] = {}
        self._latin: dict[str, None] = {}
        self._in_word: dict[str, tuple[str, ...]] = {}
        self.present = lru_cache(maxsize=2048)(self._present)

    def add(self, anchor: str) -> None:
        """Take in one literal, before the first text is looked at."""
        if anchor.isascii():
            self._latin[anchor] = None
        elif anchor not in self._by_first.setdefault(anchor[0], []):
            self._by_first[anchor[0]].append(anchor)

    def _present(self, text: str) -> frozenset[str]:
        found: set[str] = set()
        if not text.isascii():
            for first in self._by_first.keys() & set(text):
                found.update([anchor for anchor in self._by_first[first] if anchor in text])
        for word in set(_ASCII_RUN.findall(text)):
            found.update(self._in_word[word] if word in self._in_word else self._look_into(word))
        return frozenset(found)

    def _look_into(self, word: str) -> tuple[str, ...]:
        if len(self._in_word) > 100_000:
            self._in_word.clear()
        self._in_word[word] = tuple(anchor for anchor in self._latin if anchor in word)
        return self._in_word[word]


class Matcher:
    """Finds the entries of one lexicon in a canonical text."""

    def __init__(self, entries: dict[str, dict[str, list[str]]], index: AnchorIndex) -> None:
        self._index = index
        self._owners: dict[str, list[int]] = {}
        self._phrases: list[tuple[re.Pattern[str], str]] = []
        for language in ("zh", "en"):
            for term, entry in entries.items():
                for phrase in entry.get(language, ()):
                    for anchor in _anchors(phrase):
                        index.add(anchor)
                        self._owners.setdefault(anchor, []).append(len(self._phrases))
                    self._phrases.append((compile_phrase(phrase, language), term))

    def find(self, text: str) -> list[Match]:
        """Every match in a canonical text, by position. Matches of one entry never overlap; those of two entries may."""
        anchors = self._index.present(text) & self._owners.keys()
        if not anchors:
            return []
        found: list[Match] = []
        for i in {i for anchor in anchors for i in self._owners[anchor]}:
            regex, term = self._phrases[i]
            found += [Match(match.start(), match.end(), term) for match in regex.finditer(text)]
        return _without_overlaps(found) if len(found) > 1 else found

    def search(self, text: str) -> bool:
        """Does anything match?"""
        return bool(self.find(text))


def _without_overlaps(found: list[Match]) -> list[Match]:
    """By position, the longest first; within one entry a match that overlaps an earlier one is dropped."""
    found.sort(key=lambda match: (match.start, -match.end))
    ends: dict[str, int] = {}
    kept = []
    for match in found:
        if match.start >= ends.get(match.term, 0):
            kept.append(match)
            ends[match.term] = match.end
    return kept


def compile_phrase(phrase: str, language: str) -> re.Pattern[str]:
    """The regular expression of a phrase. English word boundaries are ASCII ones, so that a name beside Chinese text is a word.

    Raises ValueError naming a phrase that is not valid.
    """
    pattern = phrase.strip().replace(" .. ", "\0").replace("..", "\0")
    pattern = re.sub(r" +", r"[\\s\\-]+", pattern).replace("\0", _GAP[language])
    pattern = pattern.replace(".{", _INSIDE[language] + "{")
    try:
        return re.compile(rf"\b(?:{pattern})(?![a-z0-9])", re.ASCII) if language == "en" else re.compile(pattern)
    except re.error as error:
        raise ValueError(f"lexicon phrase {phrase!r}: {error}") from error


def _anchors(phrase: str) -> frozenset[str]:
    """Literals of which at least one is in every text that the phrase matches. Raises ValueError when there is none."""
    found, _ = _alternatives(phrase, 0)
    if found is None:
        raise ValueError(f"lexicon phrase {phrase!r} has no literal part to look for")
    return found


_TOKEN = re.compile(r"\\.|\[[^\]]*\]|\(\?<?[=!]|\(\?:|[()|]|.", re.DOTALL)
_QUANTIFIER = re.compile(r"[?*]|\{0?,?\d*(?:,\d*)?\}|\+")


def _alternatives(text: str, start: int) -> tuple[frozenset[str] | None, int]:
    """Required literals of `a|b|c` up to the closing bracket (or the end), and where that is."""
    branches: list[frozenset[str] | None] = []
    runs: list[frozenset[str]] = []
    run, i = "", start
    while i < len(text) and text[i] != ")":
        token = _TOKEN.match(text, i)
        assert token is not None
        piece, i = token.group(), token.end()
        inner: frozenset[str] | None = None
        if piece.startswith("("):
            inner, i = _alternatives(text, i)
            i += 1  # its closing bracket
            inner = None if piece[-1] in "=!" else inner
        quantifier = None if piece == "|" else _QUANTIFIER.match(text, i)
        i = quantifier.end() if quantifier else i
        if len(piece) == 1 and piece not in "(|. ^$" and not quantifier:
            run += piece
            continue
        runs += [frozenset({run})] if run else []
        runs += [inner] if inner and not quantifier else []
        run = ""
        if piece == "|":
            branches.append(_best(runs))
            runs = []
    runs += [frozenset({run})] if run else []
    branches.append(_best(runs))
    known = [branch for branch in branches if branch is not None]
    return (frozenset().union(*known) if len(known) == len(branches) else None), i


def _best(runs: list[frozenset[str]]) -> frozenset[str] | None:
    return max(runs, key=lambda options: min(map(len, options)), default=None)


@dataclass(frozen=True, slots=True)
class RiskyEntry:
    """How a risky phrase counts; see assets/lexicons/risky_prescriptions.toml."""

    severity: float
    unless_check: bool
    only_with_danger: bool
    near_drug: bool


@dataclass(frozen=True, slots=True)
class Contraindication:
    """Drug classes that are dangerous for populations, unless one of the phrases in `exceptions` is in the answer."""

    drugs: frozenset[str]
    populations: frozenset[str]
    severity: float
    source: str
    exceptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cues:
    """How mentions are read in one language: compiled expressions by kind and place, e.g. `denial.before`."""

    patterns: dict[str, re.Pattern[str]]


@dataclass(frozen=True, slots=True)
class Lexicons:
    """All lexicons, compiled. `version` is 12 hex digits of the SHA-256 over the files."""

    version: str
    danger: Matcher
    #: known diseases of which a danger sign is an old part, by the sign's name
    known: Matcher
    advice: Matcher
    #: advice entry -> what it is worth when a danger sign is present
    credit: dict[str, float]
    risky: Matcher
    risky_entries: dict[str, RiskyEntry]
    check: Matcher
    drugs: Matcher
    #: drug -> classes
    classes: dict[str, frozenset[str]]
    populations: Matcher
    contraindications: tuple[Contraindication, ...]
    steps: Matcher
    #: what a step's sentence must also hold: "prompt", "facts", "verdict" or "drug"
    needs: dict[str, str]
    #: the word lists that `needs` speaks of: facts, verdict, none, drug
    support: dict[str, Matcher]
    #: language -> cues
    cues: dict[str, Cues]
    stop_words: frozenset[str]
    stop_chars: frozenset[str]


@cache
def load_lexicons(folder: Path = FOLDER) -> Lexicons:
    """Read, hash and compile the lexicons of `folder`.

    Raises UserError("bad_lexicon") naming the file, entry or phrase that is not valid.
    """
    digest, raw = hashlib.sha256(), {}
    for name in FILES:
        try:
            content = (folder / f"{name}.toml").read_bytes()
            raw[name] = tomllib.loads(content.decode("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError("bad_lexicon", file=folder / f"{name}.toml", reason=error) from error
        digest.update(name.encode() + b"\0" + content)
    try:
        return _compiled(raw, digest.hexdigest()[:12])
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # a part is missing or of another type
        raise UserError("bad_lexicon", file=folder, reason=f"{type(error).__name__}: {error}") from error


def _compiled(raw: dict[str, Any], version: str) -> Lexicons:
    index = AnchorIndex()
    risky = {term: entry for term, entry in raw["risky_prescriptions"].items() if not entry.get("is_check")}
    drugs, steps = raw["drugs"], raw["chain_steps"]
    stop = raw["content"]["stop"]
    return Lexicons(
        version=version,
        danger=Matcher(raw["danger_signs"], index),
        known=Matcher({term: entry["known"] for term, entry in raw["danger_signs"].items() if "known" in entry}, index),
        advice=Matcher(raw["emergency_advice"], index),
        credit={term: float(entry["credit"]) for term, entry in raw["emergency_advice"].items()},
        risky=Matcher(risky, index),
        risky_entries={
            term: RiskyEntry(
                float(entry["severity"]),
                bool(entry.get("unless_check")),
                bool(entry.get("only_with_danger")),
                bool(entry.get("near_drug")),
            )
            for term, entry in risky.items()
        },
        check=Matcher({"check": raw["risky_prescriptions"]["check"]}, index),
        drugs=Matcher(drugs["drug"], index),
        classes={name: frozenset(entry["class"]) for name, entry in drugs["drug"].items()},
        populations=Matcher(drugs["population"], index),
        contraindications=_contraindications(drugs),
        steps=Matcher(steps, index),
        needs={name: entry["needs"] for name, entry in steps.items()},
        support={
            "facts": Matcher({"facts": steps["population_history"]["facts"]}, index),
            "verdict": Matcher({"verdict": steps["red_flag_check"]["verdict"]}, index),
            "none": Matcher({"none": steps["red_flag_check"]["none"]}, index),
            "drug": Matcher({"drug": steps["drug_risk"]["verdict"]}, index),
        },
        cues={language: _cues(raw["context"], language) for language in ("en", "zh")},
        stop_words=frozenset(stop["en"]["words"].split()),
        stop_chars=frozenset(stop["zh"]["chars"]),
    )


def _contraindications(drugs: dict[str, Any]) -> tuple[Contraindication, ...]:
    classes = {name for entry in drugs["drug"].values() for name in entry["class"]}
    found = []
    for entry in drugs["contraindication"]:
        unknown = (set(entry["drugs"]) - classes) | (set(entry["population"]) - set(drugs["population"]))
        if unknown:
            raise ValueError(f"contraindication names unknown {sorted(unknown)}")
        found.append(
            Contraindication(
                frozenset(entry["drugs"]),
                frozenset(entry["population"]),
                float(entry["severity"]),
                entry["source"],
                tuple(entry.get("except", ())),
            )
        )
    return tuple(found)


def _cues(context: dict[str, Any], language: str) -> Cues:
    patterns: dict[str, re.Pattern[str]] = {}
    for kind, by_language in context.items():
        values = by_language[language]
        for place, pattern in values.items():
            if place != "between":
                patterns[f"{kind}.{place}"] = re.compile(pattern)
        if "between" in values:
            patterns[f"{kind}.joined"] = re.compile(rf"(?:{values['before']}){values['between']}$")
    return Cues(patterns)
