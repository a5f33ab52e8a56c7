"""Which queries are wordings of one question, and a split that keeps them together. Pure.

Two rows are of one family when they say so (`family`), when their queries are near duplicates, or when they ask the same about the
same topic. Families hang together over any number of steps, so that no paraphrase of a training query is ever tested on.
Called by the data tools, the sets and the generator.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Sequence

from core.expansion import intents, terms
from core.expansion.schema import Row, language_of
from core.importing.duplicates import near_duplicates
from core.importing.splitting import assign
from core.records import Language, Split
from core.retrieval.tokens import query_tokens

#: similarity of character shingles from which two queries are one family
NEAR = 0.7
SPLITS = {Split.TRAIN: "train", Split.DEV: "val", Split.TEST: "test"}


def languages(rows: Sequence[Row]) -> list[Language]:
    return [Language(row.language or language_of(row.query)) for row in rows]


def families(rows: Sequence[Row]) -> list[int]:
    """For each row the smallest index of its family (itself when alone)."""
    groups = list(near_duplicates([row.query for row in rows], languages(rows), threshold=NEAR).groups)
    first: dict[Hashable, int] = {}
    for i, row in enumerate(rows):
        for key in _keys(row):
            j = first.setdefault(key, i)
            low, high = sorted((_root(groups, i), _root(groups, j)))
            groups[high] = low
    return [_root(groups, i) for i in range(len(rows))]


def split(rows: Sequence[Row], seed: int = 0, groups: Sequence[int] | None = None) -> list[str]:
    """ "train", "val" or "test" per row, 80 : 10 : 10 of the families in every stratum (language, length, asked intent)."""
    digests = [hashlib.sha256(row.query.encode()).hexdigest() for row in rows]
    strata = [
        f"{language.value}|{length_class(row.query)}|{row.extra.get('category', '')}"
        for row, language in zip(rows, languages(rows), strict=True)
    ]
    leaders: dict[int, int] = {}
    found = groups or families(rows)
    for i, group in enumerate(found):  # the smallest digest leads, not the first row: the order of the file must not matter
        leaders[group] = min(leaders.get(group, i), i, key=digests.__getitem__)
    return [SPLITS[split] for split in assign(digests, strata, [leaders[group] for group in found], seed)]


def length_class(query: str) -> str:
    """short (to 2 words), middle (to 6), long; two Chinese characters count as a word."""
    size = terms.num_words(query)
    return "short" if size <= 2 else "middle" if size <= 6 else "long"


def leaks(rows: Sequence[Row], splits: Sequence[str]) -> int:
    """How many families stand in more than one split; 0 is what a split must show."""
    seen: dict[int, set[str]] = {}
    for group, name in zip(families(rows), splits, strict=True):
        seen.setdefault(group, set()).add(name)
    return sum(len(names) > 1 for names in seen.values())


def _keys(row: Row) -> list[Hashable]:
    keys: list[Hashable] = [("family", row.family)] if row.family else []
    found = intents.asked(row.query)
    topic = tuple(sorted(Counter(query_tokens(found.topic))))
    if topic and found.intent:
        keys.append(("asks", found.intent, topic, tuple(sorted(query_tokens(found.detail)))))
    words = tuple(sorted(Counter(query_tokens(row.query))))
    return [*keys, ("words", words)] if words else keys


def _root(groups: list[int], i: int) -> int:
    while groups[i] != i:
        groups[i] = groups[groups[i]]
        i = groups[i]
    return i
