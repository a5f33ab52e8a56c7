"""The retrieval term of the reward: do the lines of an expansion find the passage that is known to answer the query?

The rubric reads form only, so well-formed nonsense pleases it ("metformin banana"). Two things are measured here on a corpus
with judgements, both without any word list and in either language:

    found     every line is searched by itself (lex by BM25; vec and hyde by an encoder where there is one, else by BM25), the lists
              are fused by reciprocal rank, and the relevant passages should stand near the top (`closeness`). Half of it counts
              as it is, half against what the query alone finds: some queries are hard, and that is not the expansion's fault
    on topic  words that the lines add to the query should live where the answer lives: in the relevant passage, or more often
              than by chance in the passages closest to it. Weighted by inverse document frequency; 1 from ON_TOPIC on

`value` = found x on topic (its third power below ON_TOPIC). Nonsense beside one good keyword still finds the passage by that
keyword, and fails the second. Invariant: a query without a known relevant passage is not judged (None), never zero.
Called through `core.expansion.reward.score`.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from core.errors import UserError
from core.expansion.points import Deduction
from core.expansion.reward import Grounded
from core.expansion.schema import Line, Parsed
from core.retrieval.dense import Encoder, Vectors
from core.retrieval.fuse import rrf
from core.retrieval.judged import read_beir, read_corpus, read_train_questions
from core.retrieval.lexical import Lexical, LexicalWriter
from core.retrieval.tokens import normalise, query_tokens, tokenise

#: how far down a list is looked, and the rank at which a find is worth half
DEPTH = 200
HALF_RANK = 30
LEAST = 1 / (1 + DEPTH / HALF_RANK)
#: share of the added words (by weight) that must belong to the topic; measured on correct and planted expansions of both
#: languages (docs/benchmarks_expansion.md); below it the term falls with the third power
ON_TOPIC = 0.35
STEEP = 3
#: passages closest to the relevant one, and how much more often than by chance a word must stand there
NEIGHBOURS = 50
LIFT = 3.0
#: words of a relevant passage that its neighbours are looked for with
SEED_TERMS = 24
#: weight of a prior that everything is on topic: one odd word in a short expansion is no verdict
PRIOR = 3.0

Search = Callable[[Line], Sequence[str]]
Relevant = Callable[[str], Collection[str]]


@dataclass(frozen=True)
class Grounding:
    """`search` ranks document ids for one line, best first; `relevant` gives those known to answer a query (empty: none known);
    `topic` tells how much a word belongs to what answers a query, `weight` how rare it is."""

    search: Search
    relevant: Relevant
    topic: Callable[[str], Mapping[str, float]]
    weight: Callable[[str], float]

    def judge(self, query: str, parsed: Parsed) -> Grounded | None:
        """The retrieval term of one answer, with a note for each line that misses or strays. None: nothing known about the query."""
        relevant = set(self.relevant(query))
        if not relevant or not parsed.lines:
            return None
        rankings = [self.search(line) for line in parsed.lines]
        fused = [document for document, _ in rrf(rankings)]
        found = self._found(query, fused, relevant)
        shares, strays = zip(*(self._on_topic(query, line.text) for line in parsed.lines), strict=True)
        weights = [sum(pair) for pair in shares]
        share = (sum(good for good, _ in shares) + PRIOR) / (sum(weights) + PRIOR)
        on_topic = min(1.0, share / ON_TOPIC) ** STEEP
        notes = []
        for number, ranking, stray in zip(parsed.numbers, rankings, strays, strict=True):
            rank = first_rank(ranking, relevant)
            if rank is None or rank > HALF_RANK:
                notes.append(Deduction(number, "grounding", -1.0, "reason_misses", {"rank": rank or f">{DEPTH}"}))
            if stray and on_topic < 1:
                notes.append(Deduction(number, "grounding", -1.0, "reason_strays", {"words": ", ".join(stray[:5])}))
        rank = first_rank(fused, relevant)
        if not notes and rank != 1:
            notes.append(Deduction(None, "grounding", -1.0, "reason_found_at", {"rank": rank or f">{DEPTH}"}))
        facts = {"rank": rank, "plain_rank": self.plain_rank(query), "found": found, "on_topic": share, "relevant": len(relevant)}
        return Grounded(found * on_topic, tuple(notes), facts)

    def _found(self, query: str, fused: Sequence[str], relevant: Collection[str]) -> float:
        near = closeness(fused, relevant)
        plain = closeness(self.search(Line("lex", query)), relevant)
        if not near and not plain:
            return 0.25  # beyond what is looked at, with and without the lines: they are neither praised nor blamed
        return 0.5 * near + 0.5 * min(1.0, near / max(plain, LEAST))

    def plain_rank(self, query: str) -> int | None:
        """Rank of the best relevant document under the query alone; None beyond DEPTH."""
        return first_rank(self.search(Line("lex", query)), set(self.relevant(query)))

    def _on_topic(self, query: str, text: str) -> tuple[tuple[float, float], list[str]]:
        """(weight on the topic, weight off it) of the words that a line adds, and the words that stray, rarest first."""
        topic = self.topic(query)
        asked = set(tokenise(query))
        good = bad = 0.0
        stray: list[tuple[float, str]] = []
        for token in dict.fromkeys(query_tokens(text)):
            if token in asked:
                continue
            weight = self.weight(token)
            belongs = topic.get(token, 0.0)
            good += weight * belongs
            bad += weight * (1 - belongs)
            if belongs == 0:
                stray.append((weight, token))
        return (good, bad), [token for _, token in sorted(stray, reverse=True)]


def closeness(ranking: Sequence[str], relevant: Collection[str]) -> float:
    """0..1: how near the top the relevant documents stand, the mean over the (at most five) best; 1 when they are the first."""
    places = [rank for rank, document in enumerate(ranking, 1) if document in relevant][:5]
    wanted = min(len(relevant), 5)
    return sum(1 / (1 + (rank - ideal) / HALF_RANK) for ideal, rank in enumerate(places, 1)) / wanted if wanted else 0.0


def first_rank(ranking: Sequence[str], relevant: Collection[str]) -> int | None:
    return next((rank for rank, document in enumerate(ranking, 1) if document in relevant), None)


def over_corpus(corpus: Iterable[tuple[str, str]], qrels: Mapping[str, Collection[str]], *, encoder: Encoder | None = None) -> Grounding:
    """A grounding in `corpus` (id, text). `qrels`: query text -> ids of the documents that answer it.

    With an `encoder` vec and hyde lines are searched by its vectors. The index lies in a temporary folder and memory: about 1 KB
    and 0.5 ms of CPU per document of 100 words. Raises UserError("expansion.nothing_to_ground") when no judged document is in the
    corpus.
    """
    store = _Store(corpus, encoder)
    relevant = {normal(query): {d for d in documents if d in store.number} for query, documents in qrels.items()}
    if not any(relevant.values()):
        raise UserError("expansion.nothing_to_ground", num=len(store.ids))

    def known(query: str) -> Collection[str]:
        return relevant.get(normal(query), ())

    @lru_cache(maxsize=4096)
    def topic(query: str) -> Mapping[str, float]:
        return store.topic(query, known(query))

    return Grounding(lru_cache(maxsize=20_000)(store.search), known, topic, store.weight)


def over_folder(folder: Path, *, encoder: Encoder | None = None, limit: int = 0) -> Grounding:
    """A grounding in a folder in BEIR form (core.retrieval.judged): its judged questions and its training pairs.

    `limit` > 0 keeps so many documents, the judged ones first. Raises UserError("retrieval...") for a folder that is none.
    """
    qrels: dict[str, set[str]] = {q.text: set(q.relevant) for q in read_beir(folder).questions}
    for document, questions in read_train_questions(folder).items():
        for question in questions:
            qrels.setdefault(question, set()).add(document)
    documents = [(d.file, f"{d.title}\n{d.text}") for d in read_corpus(folder)]
    if limit:
        judged = {document for relevant in qrels.values() for document in relevant}
        documents = sorted(documents, key=lambda pair: pair[0] not in judged)[:limit]
    return over_corpus(documents, qrels, encoder=encoder)


def normal(query: str) -> str:
    """A query as judgements are looked up: without case, width of characters, and white space at its ends or doubled."""
    return " ".join(normalise(query).split())


class _Store:
    """The corpus: its lexical index, its words by document, and its vectors if there are any."""

    def __init__(self, corpus: Iterable[tuple[str, str]], encoder: Encoder | None) -> None:
        folder = Path(tempfile.mkdtemp(prefix="grounding-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        writer = LexicalWriter(folder / "lexical")
        self.ids: list[str] = []
        self._tokens: list[array[int]] = []
        self._vocabulary: dict[str, int] = {}
        texts: list[str] = []
        for document, text in corpus:
            writer.add(len(self.ids), text)
            numbers = (self._vocabulary.setdefault(token, len(self._vocabulary)) for token in dict.fromkeys(tokenise(text)))
            self._tokens.append(array("i", numbers))
            self.ids.append(document)
            if encoder:
                texts.append(text)
        writer.finish()
        self._lexical = Lexical(folder / "lexical")
        self.number = {document: number for number, document in enumerate(self.ids)}
        self._words = list(self._vocabulary)
        self._frequency = Counter(number for tokens in self._tokens for number in tokens)
        self._encoder = encoder
        self._vectors: Vectors | None = encoder.encode(texts, is_query=False) if encoder else None

    def search(self, line: Line) -> tuple[str, ...]:
        """Ids, best first, at most DEPTH."""
        if self._encoder is None or self._vectors is None or line.kind == "lex":
            return tuple(self.ids[number] for number, _ in self._lexical.search(line.text, DEPTH))
        scores = self._vectors @ self._encoder.encode([line.text], is_query=line.kind == "vec")[0]
        return tuple(self.ids[number] for number in np.argsort(-scores, kind="stable")[:DEPTH])

    def weight(self, token: str) -> float:
        """Inverse document frequency; a word of no document weighs as one of a single document."""
        frequency = self._frequency[self._vocabulary[token]] if token in self._vocabulary else 1
        return math.log(1 + len(self.ids) / frequency)

    def topic(self, query: str, relevant: Collection[str]) -> dict[str, float]:
        """Word -> 0..1, how much it belongs to what answers the query: 1 in a relevant document, else by its lift nearby."""
        own: Counter[int] = Counter()
        for document in relevant:
            own.update(self._tokens[self.number[document]])
        seeds = sorted(own, key=lambda n: (-own[n] * self.weight(self._words[n]), n))[:SEED_TERMS]
        text = f"{query} {' '.join(self._words[n] for n in seeds)}"
        near = [number for number, _ in self._lexical.search(text, NEIGHBOURS)]
        counts: Counter[int] = Counter()
        for number in near:
            counts.update(self._tokens[number])
        total, size = len(self.ids), max(1, len(near))
        found = {}
        for n, count in counts.items():
            lift = (count / size) / (self._frequency[n] / total)
            if count > 1 and lift > 1:
                found[self._words[n]] = min(1.0, (lift - 1) / (LIFT - 1))
        found.update((self._words[n], 1.0) for n in own)
        return found
