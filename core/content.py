"""What a text says, as a set of units that can be compared: CJK bigrams and English word stems. Pure.

Function words carry nothing (assets/lexicons/content.toml). Used by the chain rule (does a step say something, and something
about this question?) and by the offline teacher (is a key point covered?).
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

from core.lexicons import canonical, load_lexicons

WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[\u3400-\u9fff]")
RUN = re.compile(r"[\u3400-\u9fff]+|[a-z0-9]+(?:'[a-z]+)?")
_SUFFIX = re.compile(r"(?:ations?|ings?|ed|es|s|ly|ies|ness|y|e)$")


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """A crude English stem: the common endings off, never shorter than three letters. Numbers stay as they are."""
    if len(word) <= 4 or not word.isalpha():
        return word[:-1] if len(word) == 4 and word.endswith("s") and not word.endswith("ss") else word
    cut = _SUFFIX.sub("", word)
    return cut if len(cut) >= 3 else word


def units(text: str) -> frozenset[str]:
    """Content units of `text`: every pair of neighbouring CJK characters that are not function characters, every English stem."""
    return units_of(canonical(text))


@lru_cache(maxsize=4096)
def units_of(text: str) -> frozenset[str]:
    """`units` of a canonical text. Remembered, because references and prompts are looked at again and again."""
    lexicons = load_lexicons()
    stop_chars, stop_words = lexicons.stop_chars, lexicons.stop_words
    found: set[str] = set()
    for run in RUN.findall(text):
        if run[0] >= "\u3400":
            kept = [char for char in run if char not in stop_chars]
            found.update(first + second for first, second in pairwise(kept))
            if len(kept) == 1:
                found.add(kept[0])
        elif run not in stop_words and (len(run) > 1 or run.isdigit()):
            found.add(stem(run))
    return frozenset(found)


def substance(text: str) -> int:
    """How much a canonical piece of text says: distinct CJK content characters, plus two for every distinct English content word."""
    lexicons = load_lexicons()
    words = set(WORD.findall(text))
    return sum(
        (word not in lexicons.stop_chars) if word >= "\u3400" else 2 * (len(word) > 2 and word not in lexicons.stop_words) for word in words
    )
