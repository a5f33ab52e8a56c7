"""One tokeniser for Chinese and English, used for documents and queries alike, so that BM25 means the same in every store.

A run of CJK characters becomes overlapping character pairs (a lone character stays alone); Latin words are lower-cased and
lightly stemmed; numbers keep their decimal point. A second view of the same text holds single characters: pairs carry the
meaning, characters forgive another wording, and their sum beats either alone on both Chinese test sets, without a dictionary
(docs/benchmarks_retrieval.md). Pure; called by the chunker, the index and the highlighting on the page.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from operator import add

CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
UNIT = re.compile(rf"(?P<cjk>[{CJK}]+)|(?P<number>\d+(?:\.\d+)?)|(?P<word>[^\W\d_{CJK}]+(?:['’][^\W\d_{CJK}]+)?)")
APOSTROPHE = re.compile("['’]s?$|['’]")
#: Words that carry a question, not its subject. Dropped from queries only.
QUESTION_WORDS = frozenset(
    word
    for line in (
        "a an and are as at be by can do does for from had has have how i if in is it its me my of on or s should so that",
        "the there this to was what when where which who why will with you your",
    )
    for word in line.split()
)
QUESTION_PHRASES = re.compile(
    "请问|什么时候|何时|怎么办|怎么样|怎么回事|怎么|怎样|如何|是什么|为什么|什么|哪些|哪里|能不能|可不可以|可以|是不是|有没有|要不要|吗|呢"
)


def normalise(text: str) -> str:
    """NFKC, lower case: full-width digits and letters become plain ones. Length may change; never use it for offsets."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).lower()


def tokenise(text: str) -> list[str]:
    """Search tokens of a text, in order. Empty for text without letters, digits or CJK characters."""
    return [token for token, _, _ in _tokens(normalise(text))]


def singles(text: str) -> list[str]:
    """The second view: every CJK character by itself, words and numbers as in `tokenise`."""
    return [t for m in UNIT.finditer(normalise(text)) for t in (m["cjk"] or [_word(m)])]


def both_views(text: str) -> tuple[list[str], list[str]]:
    """`tokenise(text)` and `singles(text)` in one pass, for whoever needs both of a long text."""
    pairs: list[str] = []
    lone: list[str] = []
    for run, number, word in UNIT.findall(normalise(text)):
        if run:
            pairs += map(add, run, run[1:]) if len(run) > 1 else run
            lone += run
        else:
            token = number or _word_token(word)
            pairs.append(token)
            lone.append(token)
    return pairs, lone


def without_question_words(text: str) -> str:
    """A question reduced to its subject, for searching; the question itself when nothing else would be left."""
    subject = QUESTION_PHRASES.sub(" ", normalise(text))
    subject = " ".join(word for word in subject.split() if word.strip("?.,!;:'\"") not in QUESTION_WORDS)
    return subject if tokenise(subject) else normalise(text)


def query_tokens(text: str) -> list[str]:
    """Search tokens of a question without its question words."""
    return tokenise(without_question_words(text))


def units(text: str) -> list[tuple[int, int]]:
    """Offsets [start, end) of what counts as one token of length: each CJK character, each Latin word, each number."""
    found: list[tuple[int, int]] = []
    for match in UNIT.finditer(text):
        if match["cjk"]:
            found += [(i, i + 1) for i in range(match.start(), match.end())]
        else:
            found.append(match.span())
    return found


def count(text: str) -> int:
    """Length of a text in the chunker's tokens (see `units`)."""
    return len(units(text))


def highlights(text: str, terms: Iterable[str]) -> list[tuple[int, int]]:
    """Merged spans [start, end) of `text` whose tokens are among `terms` (as `query_tokens` returns them)."""
    wanted = set(terms)
    spans: list[tuple[int, int]] = []
    # Lower-casing one character at a time keeps offsets; the few characters that NFKC would change are simply not marked.
    lowered = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    for token, start, end in _tokens(lowered):
        if token in wanted:
            if spans and start <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((start, end))
    return spans


def stem(word: str) -> str:
    """A light English stem: plurals, -ing, -ed. Words of three letters and words that are not ASCII stay as they are."""
    if len(word) < 4 or not word.isascii():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        rest = word[: -len(ending)]
        if word.endswith(ending) and not word.endswith("eed") and len(rest) >= 3 and re.search("[aeiouy]", rest):
            # "stopping" -> "stop", but "swelling" -> "swell"
            return rest[:-1] if rest[-1] == rest[-2] and rest[-1] not in "lsz" else rest
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


def _tokens(text: str) -> Iterator[tuple[str, int, int]]:
    for match in UNIT.finditer(text):
        start, end = match.span()
        run = match["cjk"]
        if run and len(run) > 1:
            for i in range(len(run) - 1):
                yield run[i : i + 2], start + i, start + i + 2
        else:
            yield run or _word(match), start, end


def _word(match: re.Match[str]) -> str:
    """The token of a number or a Latin word."""
    return match["number"] or _word_token(match["word"])


@lru_cache(maxsize=100_000)
def _word_token(word: str) -> str:
    """A word without apostrophes and a possessive s, stemmed. Remembered: documents repeat their words."""
    return stem(APOSTROPHE.sub("", word))
