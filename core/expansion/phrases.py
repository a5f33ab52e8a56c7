"""Phrases of a corpus: words and word pairs in English, recurring strings between function words in Chinese. Pure.

Chinese has no spaces and we keep no dictionary: what stands between function words and punctuation in several passages is taken
for a word, and longer strings are cut by the longest such words. Called by core.expansion.offline.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

from core.expansion import terms
from core.retrieval.tokens import CJK, stem

WORD = re.compile(r"[A-Za-z][A-Za-z0-9'’\-]*[A-Za-z0-9]|\d+(?:\.\d+)?%?")
SENTENCE = re.compile(r"[^。！？!?；;\n]*?(?:[。！？!?；;\n]|\.(?=\s|$)|$)")
CLAUSE = re.compile(r"[^,，、;；:：()（）\"“”。.!！?？\n]+")
#: passages in which a string must stand to count as a word (Chinese), and as a phrase (English pairs)
LEAST = 4
#: characters of a Chinese word
SIZES = range(2, 7)


def sentences(text: str) -> list[str]:
    """The sentences of a text, without list signs and doubled white space."""
    return [s for s in (" ".join(m[0].split()).lstrip("-•*· ") for m in SENTENCE.finditer(text)) if len(s) > 1]


class Phrases:
    """How often each phrase of a corpus occurs, and which phrases a text holds."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._frequency: Counter[str] = Counter()
        self._size = 0
        for text in texts:
            self._size += 1
            self._frequency.update(set(_english(text)) | set(_strings(text)))
        self._words = {s for s, n in self._frequency.items() if n >= LEAST and terms.has_cjk(s)}

    def rarity(self, phrase: str) -> float:
        """Inverse document frequency, in nats."""
        return math.log(1 + self._size / max(1, self._frequency[phrase]))

    def of(self, text: str) -> Iterator[str]:
        """Phrases of a text that occur in several passages, in order and with repetitions."""
        for phrase in _english(text):
            if self._frequency[phrase] >= LEAST:
                yield phrase
        for string in _strings(text):
            yield from self._cut(string)

    def _cut(self, string: str) -> Iterator[str]:
        start = 0
        while start < len(string) - 1:
            size = next((n for n in reversed(SIZES) if string[start : start + n] in self._words and start + n <= len(string)), 0)
            if size and string[start : start + size] not in terms.lists().common_zh:
                yield string[start : start + size]
            start += size or 1


@cache
def _stop() -> frozenset[str]:
    with (terms.ASSETS / "lexicons" / "content.toml").open("rb") as file:
        words = tomllib.load(file)["stop"]["en"]["words"].split()
    common = (
        "patient patients people person condition conditions disease diseases disorder medical doctor information called known many often"
    )
    also = "usually may include includes including used use using one two three help helps caused cause causes different types type common"
    return frozenset({*words, *common.split(), *also.split(), *terms.lists().key_term_stop})


def _english(text: str) -> Iterator[str]:
    """Lower-cased content words, and pairs of neighbours among them."""
    for clause in CLAUSE.findall(text):
        last = ""
        for word in WORD.findall(clause):
            lower = word if word.isupper() and len(word) > 1 else word.lower()
            if lower.lower() in _stop() or len(lower) < 3 or lower[0].isdigit():
                last = ""
                continue
            yield lower
            if last and stem(last) != stem(lower):
                yield f"{last} {lower}"
            last = lower


def _strings(text: str) -> Iterator[str]:
    """Chinese strings between punctuation, other scripts, and function words."""
    found = terms.lists()
    for run in re.findall(f"[{CJK}]+", text):
        for part in re.split(f"[{''.join(sorted(found.stop_zh))}]", found.between_zh.sub(" ", run).replace(" ", "的")):
            if len(part) > 1:
                yield part
