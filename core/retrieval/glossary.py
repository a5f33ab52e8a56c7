"""The words of a field in two languages: a question that says "SG 比例" also finds what is written about the superannuation guarantee.

A glossary is a TOML file of terms, each with its names in English and Chinese, abbreviations among them (assets/glossaries; a
team's own in glossaries/INDEX.toml of the home). A name is found by its letters (whole words, any case) or characters; a
Chinese name of four or more characters also with one character wrong, when the index does not know what was written. Pure;
called by core.retrieval.rewrite.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from core.errors import UserError
from core.retrieval.tokens import CJK, QUESTION_WORDS, normalise, tokenise

#: one wrong character is forgiven in Chinese names of at least so many
FUZZY_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Term:
    """One thing and everything it is called. The first name of a language is the one that is searched and shown."""

    en: tuple[str, ...]
    zh: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.en + self.zh

    def shown(self, language: str) -> str:
        """Its name for a reader of that language, in the other one when it has none."""
        first, second = (self.zh, self.en) if language == "zh" else (self.en, self.zh)
        return (first or second)[0]


@dataclass(frozen=True, slots=True)
class Mention:
    """Characters [start, end) of the normalised question name `term`; `written` is what stands there."""

    start: int
    end: int
    written: str
    term: Term
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class Glossary:
    """Terms by name. Make it with `Glossary.of`."""

    terms: tuple[Term, ...] = ()
    _by_name: Mapping[str, Term] = field(default_factory=dict)
    _pattern: re.Pattern[str] | None = None

    @classmethod
    def of(cls, terms: tuple[Term, ...]) -> Glossary:
        """A glossary; where two terms share a name, the first keeps it."""
        by_name: dict[str, Term] = {}
        for term in terms:
            for name in term.names:
                by_name.setdefault(_key(name), term)
        longest_first = sorted(by_name, key=len, reverse=True)
        pattern = re.compile("|".join(_name_pattern(name) for name in longest_first)) if by_name else None
        return cls(terms, by_name, pattern)

    def __len__(self) -> int:
        return len(self.terms)

    def words(self) -> frozenset[str]:
        """Search tokens of the Latin names: spelling mistakes are looked for among them too."""
        return frozenset(token for name in self._by_name if name.isascii() for token in tokenise(name))

    def mentions(self, question: str, is_known: Callable[[str], bool] | None = None) -> list[Mention]:
        """Terms named in a question, in order, the longest name where several fit.

        `is_known` says whether the index knows a token; given it, Chinese names with one wrong character are found as well.
        """
        text = normalise(question)
        found = []
        for match in self._pattern.finditer(text) if self._pattern else ():
            term = self._by_name[_key(match[0])] if _key(match[0]) in self._by_name else self._by_name[_key(match[0]).removesuffix("s")]
            found.append(Mention(match.start(), match.end(), match[0], term))
        if is_known is not None:
            found += self._misspelt(text, found, is_known)
        return sorted(found, key=lambda mention: mention.start)

    def _misspelt(self, text: str, found: list[Mention], is_known: Callable[[str], bool]) -> list[Mention]:
        taken = {i for mention in found for i in range(mention.start, mention.end)}
        more: list[Mention] = []
        for name, term in self._by_name.items():
            size = len(name)
            if size < FUZZY_LENGTH or not re.fullmatch(f"[{CJK}]+", name):
                continue
            for start in range(len(text) - size + 1):
                written = text[start : start + size]
                wrong = [i for i in range(size) if written[i] != name[i]]
                if len(wrong) != 1 or taken & set(range(start, start + size)) or not re.fullmatch(f"[{CJK}]+", written):
                    continue
                pairs = [a + b for i, (a, b) in enumerate(pairwise(written)) if wrong[0] in (i, i + 1)]
                if not any(is_known(pair) for pair in pairs):
                    more.append(Mention(start, start + size, written, term, is_exact=False))
                    taken |= set(range(start, start + size))
        return more


@lru_cache(maxsize=16)
def _loaded(path: Path, _changed_ns: int) -> Glossary:
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8")).get("term", [])
        terms = tuple(Term(tuple(map(str, row.get("en", ()))), tuple(map(str, row.get("zh", ())))) for row in rows)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise UserError("ask.bad_glossary", path=path, reason=error) from error
    for term in terms:
        bad = next((name for name in term.names if not tokenise(name) or name.lower() in QUESTION_WORDS), None)
        if bad is not None or not term.names:
            raise UserError("ask.bad_glossary", path=path, reason=f"term without a usable name: {bad or term}")
    return Glossary.of(terms)


def load_glossary(path: Path) -> Glossary:
    """Read a glossary file; an absent one is empty. It is read again when it changes. Raises UserError("ask.bad_glossary")."""
    return _loaded(path, path.stat().st_mtime_ns) if path.is_file() else Glossary()


def _key(name: str) -> str:
    return re.sub(r"[\s\-]+", " ", normalise(name)).strip()


def _name_pattern(name: str) -> str:
    body = r"[\s\-]+".join(re.escape(part) for part in name.split(" "))
    if re.search(f"[{CJK}]", name):
        return body
    return rf"(?<![a-z0-9]){body}s?(?![a-z0-9])"
