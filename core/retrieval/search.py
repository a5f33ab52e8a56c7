"""One question through all stages: wordings -> lexical and dense top lists -> weighted rank fusion -> rerank of the first few.

Every stage can be switched off by the plan, says how long it took and what it ranked, and every hit names the doors it came
through: which wording, which leg, and whether the passage itself or one of its pseudo-questions was found. A stage that fails or
is late is left out with a note; the lexical leg alone always answers. Pure but for the encoder and reranker it is given. Called by
core.ask, core.evidence and the evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from core.errors import UserError
from core.retrieval.chunk import Chunk
from core.retrieval.entries import searchable
from core.retrieval.fuse import rrf
from core.retrieval.glossary import Glossary, Mention
from core.retrieval.index import Found
from core.retrieval.plans import Plan
from core.retrieval.rerankers import Reranker, reranked
from core.retrieval.rewrite import Correction, Wording, corrected, language_of, wordings

Note = tuple[str, dict[str, Any]]
Ranking = list[tuple[int, float]]


class Searchable(Protocol):
    """What of an index is used here (core.retrieval.index.Index)."""

    def chunk(self, parent: int) -> Chunk: ...
    def weight(self, token: str) -> float: ...
    def similar(self, token: str, distance: int = 1) -> list[tuple[str, int]]: ...
    def lexical(self, text: str, depth: int = 30, *, with_syn: bool = True) -> list[Found]: ...
    def dense(self, vector: Any, depth: int = 30, *, with_syn: bool = True) -> list[Found]: ...
    def asking(self, texts: Sequence[str]) -> tuple[Searchable, list[Note]]: ...
    def require(self, encoder: Any) -> None: ...


class QueryEncoder(Protocol):
    """What of an encoder is used here (core.retrieval.encoders.Encoder)."""

    def encode(self, texts: Sequence[str], *, is_query: bool) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Door:
    """One way in: `via` is the wording, `leg` the channel, `kind` "original" or "syn", `entry` the pseudo-question (else "")."""

    via: str
    leg: str
    kind: str
    entry: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found. `score` is the fused score, `stages` its (rank, score) in every list it stands in ("lexical:question" ...)."""

    number: int
    chunk: Chunk
    score: float
    doors: tuple[Door, ...]
    stages: dict[str, tuple[int, float]]

    @property
    def via(self) -> tuple[str, ...]:
        """The wordings that found it, each once."""
        return tuple(dict.fromkeys(door.via for door in self.doors))


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Hits best first; what each stage ranked (chunk numbers with scores); milliseconds per stage; what was left out and why."""

    hits: tuple[Hit, ...]
    stages: dict[str, Ranking]
    timings_ms: dict[str, float]
    wordings: tuple[Wording, ...]
    corrections: tuple[Correction, ...] = ()
    mentions: tuple[Mention, ...] = ()
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Retriever:
    """An index with what searches it. Safe between threads when its encoder and reranker are.

    Raises UserError("index.no_dense" / "index.other_encoder") when the encoder is not the one of the index.
    """

    index: Searchable
    encoder: QueryEncoder | None = None
    reranker: Reranker | None = None
    plan: Plan = field(default_factory=Plan)
    glossary: Glossary = field(default_factory=Glossary)

    def __post_init__(self) -> None:
        if self.encoder is not None:
            self.index.require(self.encoder)

    def search(
        self,
        query: str,
        top_k: int = 5,
        *,
        pseudo_doc: str = "",
        expansions: Sequence[str] = (),
        without: Collection[int] = frozenset(),
    ) -> Retrieved:
        """The `top_k` best passages. `expansions` are lines "lex: ...", "vec: ..." or "hyde: ..."; chunks in `without` are not seen
        (calibration asks what happens when the right passage is missing)."""
        watch, notes = Watch(), list[Note]()
        asked, corrections, mentions = wordings(
            query, self.plan, glossary=self.glossary, weight=self.index.weight, similar=self.index.similar,
            pseudo_doc=pseudo_doc, expansions=expansions,
        )  # fmt: skip
        # what is searched, which may stand on another machine, and what it has to say when the search is over
        index, told = self.index.asking([text for wording in asked for text in dict.fromkeys([wording.lexical, wording.dense]) if text])
        watch.lap("wordings")
        lists: dict[str, list[Found]] = {}
        weights: dict[str, float] = {}
        depth = self.plan.depth + len(without)

        def add(leg: str, wording: Wording, weight: float, found: list[Found]) -> None:
            lists[f"{leg}:{wording.name}"] = [f for f in found if f.parent not in without][: self.plan.depth]
            weights[f"{leg}:{wording.name}"] = weight * wording.weight

        for wording in asked if self.plan.lexical else ():
            if wording.lexical:
                add("lexical", wording, self.plan.lexical, index.lexical(wording.lexical, depth, with_syn=self.plan.with_syn))
        watch.lap("lexical")
        for wording, vector in self._encoded(query, asked, notes, watch):
            add("dense", wording, self.plan.dense, index.dense(vector, depth, with_syn=self.plan.with_syn))
        watch.lap("dense")
        notes += told
        stages: dict[str, Ranking] = {name: [(f.parent, f.score) for f in found] for name, found in lists.items()}
        fused = rrf([[f.parent for f in found] for found in lists.values()], list(weights.values()), self.plan.rrf_k)
        stages["fused"] = fused
        watch.lap("fuse")
        order = self._reranked(corrected(query, corrections), fused, stages, notes)
        watch.lap("rerank")
        scores = dict(fused)
        hits = tuple(self._hit(number, scores[number], lists, stages) for number in order[:top_k])
        watch.lap("read")
        return Retrieved(hits, stages, watch.done(), tuple(asked), tuple(corrections), tuple(mentions), tuple(notes))

    def _encoded(self, query: str, asked: Sequence[Wording], notes: list[Note], watch: Watch) -> list[tuple[Wording, np.ndarray]]:
        """Wordings with their vectors; none when the dense leg is off, not for this language, or its encoder does not answer."""
        languages = self.plan.dense_languages
        if self.encoder is None or not self.plan.dense or (languages and language_of(query) not in languages):
            return []
        wanted = [wording for wording in asked if wording.dense]
        try:
            vectors = self.encoder.encode([wording.dense for wording in wanted], is_query=True)
        except UserError as error:
            notes.append(("ask.note_dense_failed", {"reason": error}))
            return []
        finally:
            watch.lap("encode")
        # a text in which the encoder knows nothing is a zero: it is equally far from everything, and must not vote
        return [(wording, vector) for wording, vector in zip(wanted, vectors, strict=True) if np.any(vector)]

    def _reranked(self, question: str, fused: Ranking, stages: dict[str, Ranking], notes: list[Note]) -> list[int]:
        """Chunk numbers in the final order. The reranker sees the first few; what it does not reach in time keeps its place."""
        order = [number for number, _ in fused]
        if self.reranker is None or not order:
            return order
        first = order[: self.plan.rerank_top]
        passages = [searchable(self.index.chunk(number)) for number in first]
        try:
            scores = self.reranker.score(question, passages, budget_ms=self.plan.rerank_budget_ms)
        except UserError as error:
            notes.append(("ask.note_rerank_failed", {"reason": error}))
            return order
        num_late = sum(score is None for score in scores)
        if num_late:
            notes.append(("ask.note_rerank_late", {"num": num_late, "budget": self.plan.rerank_budget_ms}))
        by_reranker = [first[i] for i in reranked(scores)]
        scored = {number: score for number, score in zip(first, scores, strict=True) if score is not None}
        stages["rerank"] = [(number, scored[number]) for number in by_reranker if number in scored]
        share = self.plan.rerank_weight
        if share < 1:
            by_reranker = [number for number, _ in rrf([by_reranker, first], [share, 1 - share], self.plan.rrf_k)]
        return by_reranker + order[len(first) :]

    def _hit(self, number: int, score: float, lists: dict[str, list[Found]], stages: dict[str, Ranking]) -> Hit:
        doors = []
        for name, found in lists.items():
            leg, _, via = name.partition(":")
            for rank, f in enumerate(found, start=1):
                if f.parent == number:
                    question = f.text.partition("\n")[0] if f.kind == "syn" else ""  # its passage may stand behind it
                    doors.append(Door(via, leg, f.kind, question, rank, f.score))
        places = {}
        for name, ranking in stages.items():
            place = next(((rank, s) for rank, (n, s) in enumerate(ranking, start=1) if n == number), None)
            if place:
                places[name] = place
        return Hit(number, self.index.chunk(number), score, tuple(doors), places)


class Watch:
    """Milliseconds per step; a step timed twice counts its sum."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._started = self._last = now()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = self._now()
        self._laps[name] = round(self._laps.get(name, 0.0) + (now - self._last) * 1000, 2)
        self._last = now

    def done(self) -> dict[str, float]:
        """All steps and their total."""
        return {**self._laps, "total": round((self._now() - self._started) * 1000, 2)}
