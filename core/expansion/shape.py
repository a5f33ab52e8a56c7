"""Which rows a training sees: near duplicates out, a balanced or a diverse selection, short wordings of long queries. Pure.

Called by the CLI, the generator and the data page.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from core.errors import UserError
from core.expansion import families, intents, reward, terms
from core.expansion.schema import Row, language_of
from core.importing.duplicates import near_duplicates
from core.retrieval.tokens import query_tokens

#: what a selection can be balanced by
BY: dict[str, Callable[[Row], str]] = {
    "language": lambda row: row.language or language_of(row.query),
    "length": lambda row: families.length_class(row.query),
    "category": lambda row: str(row.extra.get("category", "")),
    "source": lambda row: row.source or "",
}
#: queries from this similarity on are the same query
SAME = 0.85
#: a query of more words than this gets shorter wordings
LONG = 3


def dedupe(rows: Sequence[Row], threshold: float = SAME) -> tuple[list[Row], list[tuple[Row, Row]]]:
    """The rows of which no near duplicate scores better, in order; and (left out, kept) pairs. Alike are queries, MinHash proposes."""
    groups = near_duplicates([row.query for row in rows], families.languages(rows), threshold=threshold).groups
    best: dict[int, int] = {}
    scores = [reward.score(row.query, row.output).reward for row in rows]
    for i, group in enumerate(groups):
        if group not in best or scores[i] > scores[best[group]]:
            best[group] = i
    kept = [row for i, row in enumerate(rows) if best[groups[i]] == i]
    return kept, [(row, rows[best[groups[i]]]) for i, row in enumerate(rows) if best[groups[i]] != i]


def balanced(rows: Sequence[Row], size: int, by: Sequence[str] = ("language", "length"), seed: int = 0) -> list[Row]:
    """At most `size` rows, drawn in turn from every class of `by`; small classes are used up, nothing is repeated.

    Raises UserError("expansion.no_such_class") for a name that is not in BY.
    """
    for name in by:
        if name not in BY:
            raise UserError("expansion.no_such_class", name=name, known=", ".join(BY))
    classes: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i in random.Random(seed).sample(range(len(rows)), len(rows)):
        classes[tuple(BY[name](rows[i]) for name in by)].append(i)
    chosen: list[int] = []
    while len(chosen) < min(size, len(rows)):
        for key in sorted(classes):
            if classes[key] and len(chosen) < size:
                chosen.append(classes[key].pop())
    return [rows[i] for i in sorted(chosen)]


def diverse(rows: Sequence[Row], size: int) -> list[Row]:
    """At most `size` rows whose queries and lines cover as many different words as possible: greedy cover, a word that was covered
    counts half as much each time (monotone and submodular, so greedy is within 1 - 1/e of the best: Nemhauser et al., 1978)."""
    words = [set(query_tokens(f"{row.query} {' '.join(line.text for line in row.lines if line.kind == 'lex')}")) for row in rows]
    frequency = Counter(word for own in words for word in own)
    covered: Counter[str] = Counter()

    def gain(i: int) -> float:
        worth = math.fsum(math.log(1 + len(rows) / frequency[w]) * 0.5 ** covered[w] for w in words[i])
        return worth / math.sqrt(len(words[i]) + 1)

    heap = [(-gain(i), i) for i in range(len(rows))]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < size:
        _, i = heapq.heappop(heap)
        fresh = -gain(i)
        if heap and fresh > heap[0][0]:
            heapq.heappush(heap, (fresh, i))
            continue
        chosen.append(i)
        covered.update(words[i])
    return [rows[i] for i in sorted(chosen)]


def augment_short(rows: Sequence[Row]) -> list[Row]:
    """For every long query a short one, as people type them: the topic and what is asked of it, with the same lines and family.

    Lines that would only echo the short query are left out; a row that would lose its last lex or vec line is not made.
    """
    groups = families.families(rows)
    known = {row.query.lower() for row in rows}
    made: list[Row] = []
    for row, group in zip(rows, groups, strict=True):
        short = _short(row.query)
        if not short or short.lower() in known or reward.ONLY.search(row.query):
            continue
        lines = tuple(line for line in row.lines if not terms.echoes(line.text, short))
        if {"lex", "vec"} <= {line.kind for line in lines}:
            known.add(short.lower())
            family = row.family or f"query:{rows[group].query}"
            made.append(replace(row, query=short, lines=lines, family=family, source="short", extra={**row.extra, "is_short": True}))
    return made


def _short(query: str) -> str:
    if terms.num_words(query) <= LONG:
        return ""
    found = intents.asked(query)
    asks = {"definition": "", "": ""}.get(found.intent, found.intent)
    if terms.has_cjk(query):
        words = {"treatment": "治疗", "symptoms": "症状", "cause": "原因", "diagnosis": "检查", "inheritance": "遗传", "diet": "饮食",
                 "prevention": "预防", "outlook": "严重吗", "complications": "并发症", "hospital": "医院"}  # fmt: skip
        asks = found.detail or words.get(found.intent, "")
    short = " ".join(part for part in (found.topic, asks) if part)
    return short if terms.num_words(short) < terms.num_words(query) else ""
