"""What is asked of a search engine outside: keep rows of one collection, find the best by tokens or by vector, count, forget.

A row is an entry of an index (core.retrieval.entries) reduced to its number, its tokens in both views and its vector. Tokens are
hashed with the collection's salt before they get here: an engine needs to tell them apart, not to read them. Faults are
`EngineDown`, whatever library is underneath. Members: `core.retrieval.engines.milvus`, `core.retrieval.engines.opensearch`; the
test suite runs one contract over both and over the own index (tests/retrieval/test_engines.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from core.errors import Unavailable
from core.retrieval.dense import Vectors

#: the two views of our tokens, in the order of `core.retrieval.tokens.both_views`
VIEWS = ("pairs", "singles")
KINDS = ("milvus", "opensearch")
#: rows sent at a time
BATCH = 500
#: hits that engines give at most by default (OpenSearch's max_result_window)
MOST_HITS = 10_000


class EngineDown(Unavailable):
    """The engine did not do what it was asked: not reached, too slow, or it answered with an error."""

    def __init__(self, engine: str, reason: object) -> None:
        super().__init__("engines.down", engine=engine, reason=" ".join(str(reason).split())[:200])


@dataclass(frozen=True, slots=True)
class Spec:
    """What a collection is made for. `dimension` None: no dense channel. `mean_lengths` are of the two views, over all entries:
    BM25's yardstick, frozen with the collection so that what was put once need not be put again."""

    num_entries: int
    dimension: int | None
    mean_lengths: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Row:
    """An entry as it leaves: per view the hashed tokens in their order. `vector` None where there is no dense channel."""

    number: int
    tokens: tuple[tuple[int, ...], tuple[int, ...]]
    vector: Vectors | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """A hashed token of a question: its view (index into VIEWS), the weight it has in the question, its inverse document frequency."""

    view: int
    token: int
    weight: float
    idf: float


Found = list[tuple[int, float]]


class Engine(Protocol):
    """All methods raise EngineDown, and nothing else, when the engine fails. Safe between threads."""

    @property
    def name(self) -> str:
        """One of KINDS."""

    def __hash__(self) -> int: ...

    def health(self) -> dict[str, Any]:
        """Version and state, for people."""

    def create(self, collection: str, spec: Spec) -> None:
        """Make the collection unless it is there."""

    def exists(self, collection: str) -> bool:
        """Is the collection there?"""

    def put(self, collection: str, spec: Spec, rows: Sequence[Row]) -> None:
        """Add rows, or replace those of the same number."""

    def delete(self, collection: str, numbers: Sequence[int]) -> None:
        """Forget rows; numbers that are not there are passed over."""

    def settle(self, collection: str) -> None:
        """Make all that was put or deleted show in searches and counts."""

    def count(self, collection: str) -> int:
        """Rows in the collection."""

    def lexical(self, collection: str, terms: Sequence[Term], limit: int) -> Found:
        """Numbers with scores, best first, of the rows that hold one of `terms`. The score is BM25 up to a constant factor."""

    def dense(self, collection: str, vector: Vectors, limit: int) -> Found:
        """Numbers with inner products, best first."""

    def drop(self, collection: str) -> None:
        """Forget the collection, if it is there."""
