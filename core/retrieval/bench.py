"""A judged set searched under many plans, with the very Retriever that answers people. Pure but for the encoder and reranker.

What a plan does not change is computed once: rankings of a leg, vectors of a text, scores of a reranker are remembered, so trying a
weight costs a fusion. Speed is measured apart, on an index that remembers nothing. Called by training.evaluate_retrieval,
training.learn_retrieval and the benchmarks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import UserError
from core.retrieval.chunk import Chunk
from core.retrieval.index import Found
from core.retrieval.judged import JudgedSet, Question, key_of
from core.retrieval.metrics import METRICS
from core.retrieval.plans import Plan
from core.retrieval.rerankers import Reranker
from core.retrieval.search import Hit, Note, QueryEncoder, Retriever, Searchable

#: documents kept of each ranking
DEPTH = 30
#: questions searched afresh to measure speed
NUM_TIMED = 100


@dataclass(frozen=True, slots=True)
class Place:
    """One document of a ranking with the chunk that stands for it and the door that let that chunk in."""

    key: str
    number: int
    score: float
    via: str
    leg: str
    kind: str
    entry: str

    @classmethod
    def of(cls, key: str, hit: Hit) -> Place:
        door = min(hit.doors, key=lambda d: d.rank, default=None)
        if door is None:
            return cls(key, hit.number, hit.score, "", "", "", "")
        return cls(key, hit.number, hit.score, door.via, door.leg, door.kind, door.entry)


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds per question over `n` questions, one after the other, and questions per second."""

    n: int
    p50_ms: float
    p95_ms: float
    per_s: float


class Bench:
    """An index with a judged set. `rankings` and `values` are remembered per plan."""

    def __init__(self, index: Searchable, judged: JudgedSet, encoder: QueryEncoder | None, reranker: Reranker | None) -> None:
        self.index, self.judged, self.encoder, self.reranker = index, judged, encoder, reranker
        self._index = _Remembering(index)
        self._encoder = _RememberingEncoder(encoder) if encoder else None
        self._reranker = _RememberingReranker(reranker) if reranker else None
        self._rankings: dict[Plan, list[list[Place]]] = {}
        if self._encoder:
            self._encoder.warm_if_it_can([q.text for q in judged.questions])

    def retriever(self, plan: Plan) -> Retriever:
        """The remembering retriever of a plan."""
        return Retriever(self._index, self._encoder if plan.dense else None, self._reranker if plan.reranker else None, plan)

    def rankings(self, plan: Plan) -> list[list[Place]]:
        """Documents per question, best first, under a plan; at most DEPTH."""
        if plan not in self._rankings:
            retriever = self.retriever(plan)
            self._rankings[plan] = [self._search(retriever, q) for q in self.judged.questions]
        return self._rankings[plan]

    def values(self, plan: Plan, metric: str = "ndcg@10") -> list[float | None]:
        """One value per question."""
        measure = METRICS[metric]
        ranked = zip(self.rankings(plan), self.judged.questions, strict=True)
        return [measure([place.key for place in places], question.qrels) for places, question in ranked]

    def speed(self, plan: Plan) -> Speed:
        """Whole searches with nothing remembered, the first few not counted."""
        retriever = Retriever(self.index, self.encoder if plan.dense else None, self.reranker if plan.reranker else None, plan)
        times = []
        for question in self.judged.questions[: NUM_TIMED + 5]:
            started = time.perf_counter()
            retriever.search(question.text, 10, pseudo_doc=question.pseudo_doc if plan.pseudo_doc else "")
            times.append((time.perf_counter() - started) * 1000)
        times = times[5:] or times
        p50, p95 = np.percentile(times, [50, 95])
        return Speed(len(times), float(p50), float(p95), 1000 * len(times) / max(sum(times), 1e-9))

    def _search(self, retriever: Retriever, question: Question) -> list[Place]:
        pseudo_doc = question.pseudo_doc if retriever.plan.pseudo_doc else ""
        places: dict[str, Place] = {}
        for hit in retriever.search(question.text, 2 * retriever.plan.depth, pseudo_doc=pseudo_doc).hits:
            key = key_of(hit.chunk, self.judged.unit)
            if key not in places and len(places) < DEPTH:
                places[key] = Place.of(key, hit)
        return list(places.values())


class _Remembering:
    """An index whose answers are kept."""

    def __init__(self, index: Searchable) -> None:
        self._index = index
        self._lexical: dict[tuple[str, int, bool], list[Found]] = {}
        self._dense: dict[tuple[bytes, int, bool], list[Found]] = {}
        self._chunks: dict[int, Chunk] = {}

    def chunk(self, parent: int) -> Chunk:
        if parent not in self._chunks:
            self._chunks[parent] = self._index.chunk(parent)
        return self._chunks[parent]

    def weight(self, token: str) -> float:
        return self._index.weight(token)

    def similar(self, token: str, distance: int = 1) -> list[tuple[str, int]]:
        return self._index.similar(token, distance)

    def asking(self, texts: Sequence[str]) -> tuple[Searchable, list[Note]]:
        return self, []

    def require(self, encoder: Any) -> None:
        return None  # checked when the bench opened the index with the encoder itself

    def lexical(self, text: str, depth: int = 30, *, with_syn: bool = True) -> list[Found]:
        key = (text, depth, with_syn)
        if key not in self._lexical:
            self._lexical[key] = self._index.lexical(text, depth, with_syn=with_syn)
        return self._lexical[key]

    def dense(self, vector: Any, depth: int = 30, *, with_syn: bool = True) -> list[Found]:
        key = (np.asarray(vector).tobytes(), depth, with_syn)
        if key not in self._dense:
            self._dense[key] = self._index.dense(vector, depth, with_syn=with_syn)
        return self._dense[key]


class _RememberingEncoder:
    def __init__(self, encoder: QueryEncoder) -> None:
        self._encoder = encoder
        self._vectors: dict[str, np.ndarray] = {}

    def warm_if_it_can(self, texts: Sequence[str]) -> None:
        """An encoder may refuse single texts (English only): then every question meets that by itself, as it does when served."""
        with suppress(UserError):
            self.warm(texts)

    def warm(self, texts: Sequence[str]) -> None:
        """Encode at once what will be asked one by one."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if missing:
            self._vectors.update(zip(missing, self._encoder.encode(missing, is_query=True), strict=True))

    def encode(self, texts: Sequence[str], *, is_query: bool) -> np.ndarray:
        self.warm(texts)
        return np.stack([self._vectors[text] for text in texts])


class _RememberingReranker:
    """Scores without a budget, so that figures do not hang on how busy the machine was; time is measured apart."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker, self.name, self.hash = reranker, reranker.name, reranker.hash
        self._scores: dict[tuple[str, tuple[str, ...]], list[float | None]] = {}

    def score(self, query: str, passages: Sequence[str], *, budget_ms: float | None = None) -> list[float | None]:
        key = (query, tuple(passages))
        if key not in self._scores:
            self._scores[key] = self._reranker.score(query, passages)
        return self._scores[key]
