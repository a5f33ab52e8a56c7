"""What the reward counts in a text: words, width, key terms and named entities, for English and Chinese alike.

English is read exactly as the published rubric reads it (white space, capitals), so that scores agree. Chinese has neither:
its words are overlapping character pairs, one character is as wide as two letters, and a name is found by how it ends, by
quotation marks, by Latin letters in it, or in the glossary. Pure but for reading assets/expansion/terms.toml once.
Called by core.expansion.reward and the data tools.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from core.retrieval.tokens import CJK

ASSETS = Path(__file__).resolve().parents[2] / "assets"
HAS_CJK = re.compile(f"[{CJK}]")
RUN = re.compile(f"[{CJK}]+|[^\\s{CJK}]+")
EDGES = ".,!?:;()[]\"'"
#: what a question ends with is no part of its last word
END_MARKS = "?!.,;:"
#: a name written in Latin letters or with digits inside Chinese text, with a Chinese ending that belongs to it (B超, X光)
LATIN_NAME = re.compile(f"[A-Za-z][A-Za-z0-9+#.\\-]*(?:超|光)?|\\d+(?:\\.\\d+)?(?:羟|型)[{CJK}]{{0,6}}")
QUOTED = re.compile('[《「『“"]([^》」』”"]{2,30})[》」』”"]')
PUNCTUATION = re.compile(f"[^{CJK}]+")
#: a Chinese word carries about as much as two to three letters per character
CJK_WIDTH = 2


@dataclass(frozen=True, slots=True)
class Words:
    """The word lists of assets/expansion/terms.toml."""

    stop: frozenset[str]
    key_term_stop: frozenset[str]
    first_word_stop: frozenset[str]
    filler: frozenset[str]
    generic: tuple[str, ...]
    stop_zh: frozenset[str]
    between_zh: re.Pattern[str]
    endings_zh: tuple[str, ...]
    not_names_zh: frozenset[str]
    filler_zh: tuple[str, ...]
    generic_zh: tuple[str, ...]
    known_zh: tuple[str, ...]
    common_zh: frozenset[str]


@cache
def lists() -> Words:
    """Every list, read once."""
    with (ASSETS / "expansion" / "terms.toml").open("rb") as file:
        found = tomllib.load(file)
    with (ASSETS / "glossaries" / "guidelines.toml").open("rb") as file:
        known = {name for term in tomllib.load(file)["term"] for name in term["zh"] if len(name) > 1}
    en, zh = found["en"], found["zh"]
    between = sorted(zh["between"].split(), key=len, reverse=True)
    known -= {*between, *zh["not_names"].split()}
    return Words(
        stop=frozenset(en["stop"].split()),
        key_term_stop=frozenset(en["key_term_stop"].split()),
        first_word_stop=frozenset(en["first_word_stop"].split()),
        filler=frozenset(en["filler"].split()),
        generic=tuple(en["generic"]),
        stop_zh=frozenset(zh["stop"]),
        between_zh=re.compile("|".join(map(re.escape, between))),
        endings_zh=tuple(sorted(zh["name_ends"].split(), key=len, reverse=True)),
        not_names_zh=frozenset(zh["not_names"].split()),
        filler_zh=tuple(zh["filler"]),
        generic_zh=tuple(sorted(zh["generic"], key=len, reverse=True)),
        known_zh=tuple(sorted(known, key=len, reverse=True)),
        common_zh=frozenset(zh["common"].split()),
    )


def has_cjk(text: str) -> bool:
    return bool(HAS_CJK.search(text))


def width(text: str) -> int:
    """Length in columns: the number of characters of an English text, a Chinese character counted as two."""
    return len(text) if text.isascii() else len(text) + (CJK_WIDTH - 1) * len(HAS_CJK.findall(text))


@lru_cache(maxsize=20_000)
def words(text: str) -> tuple[str, ...]:
    """Lower-cased words by white space; Chinese runs as overlapping character pairs, a lone character as itself."""
    found: list[str] = []
    for word in text.lower().split():
        if not has_cjk(word):
            found.append(word)
            continue
        for run in RUN.findall(word):
            if not has_cjk(run):
                found += [run.strip(EDGES)] if run.strip(EDGES + "，。！？、；：（）《》“”") else []
            else:
                found += [run[i : i + 2] for i in range(len(run) - 1)] or [run]
    return tuple(found)


def key_terms(query: str) -> set[str]:
    """Words of the query that say what it is about."""
    found = lists()
    if not has_cjk(query):
        return {word.rstrip(END_MARKS) for word in words(query)} - found.key_term_stop - {""}
    subject = found.between_zh.sub(" ", query)
    terms = {w for w in words(subject if HAS_CJK.search(subject) else query) if not set(w) <= found.stop_zh}
    return terms - found.key_term_stop


def entities(query: str) -> set[str]:
    """Names of things in the query, lower-cased: what must not get lost in an expansion."""
    return _chinese_entities(query) if has_cjk(query) else _english_entities(query)


def holds_any(text: str, names: set[str]) -> bool:
    """Is one of `names` in the text? True where there are none."""
    lower = text.lower()
    return not names or any(name in lower for name in names)


def holds_key_term(line: str, query: str) -> bool:
    """Is one key term of the query in the line? True for a query without any."""
    terms = key_terms(query)
    return not terms or bool(terms & {word.rstrip(END_MARKS) for word in words(line)})


def has_filler(line: str, query: str) -> bool:
    """Does the line hold a word that templates put in, which the query does not have?"""
    found = lists()
    if set(words(line)) & found.filler - set(words(query)):
        return True
    return any(word in line and word not in query for word in found.filler_zh)


def is_generic(line: str) -> bool:
    """Does the line say nothing but "search for", "how to" and the like?"""
    found = lists()
    lower = line.lower().strip()
    if has_cjk(lower):
        for phrase in found.generic_zh:
            lower = lower.replace(phrase, "")
        return len(HAS_CJK.findall(lower)) < 2 and not re.search("[a-z0-9]{2}", lower)
    for phrase in found.generic:
        parts = phrase.split()
        if phrase in lower or lower.startswith(parts[0]):
            rest = lower
            for part in parts:
                rest = rest.replace(part, "", 1).strip()
            if len(rest) < 3:
                return True
    return False


def are_diverse(a: str, b: str, min_distance: int) -> bool:
    """Do two lines differ by at least `min_distance` words, neither inside the other? Twice as many pairs in Chinese."""
    a, b = a.lower().strip(), b.lower().strip()
    if a in b or b in a:
        return False
    distance = len(set(words(a)) ^ set(words(b)))
    return distance >= min_distance * (2 if has_cjk(a) and has_cjk(b) else 1)


def echoes(line: str, query: str) -> bool:
    """Is the line the query again, with less than ten columns added?"""
    line, query = line.lower().strip(), query.lower().strip()
    return line == query or (query in line and width(line) < width(query) + 10)


def is_natural(line: str) -> bool:
    """A phrase, not keywords: more than 15 columns with a space; in Chinese a run of at least six characters."""
    if not has_cjk(line):
        return " " in line and len(line) > 15
    return width(line) > 15 and max(len(run) for run in PUNCTUATION.split(line)) >= 6


def repetitions(text: str) -> dict[str, int]:
    """Words said three times or more (Chinese pairs four times), with what each costs: two points for every one too many."""
    found = lists()
    if not has_cjk(text):
        counts = Counter(re.findall(r"\b\w+\b", text.lower()))
        return {w: (n - 2) * 2 for w, n in counts.items() if n >= 3 and w not in found.stop and len(w) > 2}
    pairs = Counter(w for w in words(text) if has_cjk(w) and not set(w) & found.stop_zh)
    return {w: (n - 3) * 2 for w, n in pairs.items() if n >= 4}


def num_words(query: str) -> int:
    """Words of a query; two Chinese characters count as one."""
    if not has_cjk(query):
        return len(query.split())
    return sum((len(run) + 1) // 2 if has_cjk(run) else 1 for run in RUN.findall(query))


def _english_entities(query: str) -> set[str]:
    """Acronyms, capitalised words, words with a technical sign, and the word after one of these."""
    found = lists()
    names: set[str] = set()
    follows_name = False
    for position, word in enumerate(query.split()):
        clean = word.strip(EDGES)
        lower = clean.lower()
        if not clean:
            follows_name = False
            continue
        is_plain = lower in found.key_term_stop
        is_opening = position == 0 and lower in found.first_word_stop
        is_name = (
            (clean.isupper() and len(clean) >= 2)
            or (clean[0].isupper() and not is_plain and not is_opening)
            or (len(clean) >= 2 and not (clean[0].isupper() and not is_plain) and any(sign in clean for sign in ".+-#@"))
            or (len(clean) > 1 and clean[0].isupper() and is_plain and any(letter.isupper() for letter in clean[1:]))
        )
        if is_name or (follows_name and not is_plain):
            names.add(lower)
        follows_name = is_name
    return names


def _chinese_entities(query: str) -> set[str]:
    found = lists()
    names = {m.strip().lower() for m in QUOTED.findall(query)}
    names |= {m.lower().rstrip(".-") for m in LATIN_NAME.findall(found.between_zh.sub(" ", query)) if len(m) > 1}
    rest = query
    for name in found.known_zh:
        if name in rest:
            names.add(name)
            rest = rest.replace(name, " ")
    for part in PUNCTUATION.split(found.between_zh.sub(" ", rest)):
        end = max((part.find(e) + len(e) for e in found.endings_zh if e in part), default=0)
        name = part[:end]
        if len(name) > 1 and name not in found.not_names_zh:
            names.add(name)
    return names
