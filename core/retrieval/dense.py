"""The dense channel: entry vectors in FAISS, its type chosen by size, entry numbers as ids.

Flat (exact) to 100,000 entries, 8-bit scalar quantisation to 500,000 (recall .994 at a quarter of the size), inverted lists
over 8-bit codes above. All three delete, which HNSW cannot. Vectors are L2-normalised, so the inner product is the cosine. A
published file is read through a memory map. Called by core.retrieval.index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from core.errors import UserError

FLAT_LIMIT = 100_000
SQ_LIMIT = 500_000
#: share of the inverted lists that a search reads: recall@30 of .945 at 1/32 of 300,000 real vectors (docs/benchmarks_retrieval.md)
PROBED_SHARE = 32
#: vectors per list that training looks at
TRAIN_PER_LIST = 40
BLOCK = 16_384
#: vectors read back at a time
STORED_BLOCK = 500
Vectors = np.ndarray[Any, np.dtype[np.float32]]
Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Encoder(Protocol):
    """What turns texts into vectors; `core.retrieval.encoders.open_encoder` makes them."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    def encode(self, texts: Sequence[str], *, is_query: bool) -> Vectors:
        """(n, dimension) float32 rows of length 1; a text in which nothing is known may give a zero row."""
        ...


@dataclass(frozen=True, slots=True)
class DenseModel:
    """The encoder an index was built with: a question must be encoded by the same one."""

    name: str
    hash: str
    dimension: int

    @classmethod
    def of(cls, encoder: Encoder) -> DenseModel:
        return cls(encoder.name, encoder.hash, encoder.dimension)

    def require(self, encoder: Encoder) -> None:
        """Raises UserError("index.other_encoder") when vectors of `encoder` mean something else here."""
        if DenseModel.of(encoder) != self:
            other = DenseModel.of(encoder)
            raise UserError(
                "index.other_encoder",
                wanted=f"{self.name} ({self.hash[:12]}, {self.dimension})",
                given=f"{other.name} ({other.hash[:12]}, {other.dimension})",
            )

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


def kind_for(num_entries: int) -> str:
    """ "Flat", "SQ8" or "IVF<lists>,SQ8"."""
    if num_entries <= FLAT_LIMIT:
        return "Flat"
    if num_entries <= SQ_LIMIT:
        return "SQ8"
    return f"IVF{2 ** round(math.log2(2 * math.sqrt(num_entries)))},SQ8"


def _rank(kind: str) -> int:
    return ("Flat", "SQ8", "IVF").index(kind[:3] if kind.startswith("IVF") else kind)


class Dense:
    """The channel of one version, opened. Safe between threads."""

    def __init__(self, path: Path, kind: str, dimension: int) -> None:
        """Raises ValueError when the file is no index of that dimension."""
        faiss = _faiss()
        is_inverted = kind.startswith("IVF")
        try:
            # whole indexes map their codes, inverted ones their lists: FAISS has a flag for each
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP if is_inverted else faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise ValueError("not a FAISS index") from error
        if self._index.d != dimension:
            raise ValueError(f"{self._index.d} dimensions")
        self._parameters = faiss.SearchParametersIVF(nprobe=max(1, self._index.nlist // PROBED_SHARE)) if is_inverted else None
        self.dimension = dimension

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, vector: Vectors, limit: int) -> list[tuple[int, float]]:
        """Entry numbers with their cosines, best first. Raises UserError("index.other_dimension")."""
        faiss = _faiss()
        row = np.ascontiguousarray(vector, np.float32).reshape(1, -1)
        if row.shape[1] != self.dimension:
            raise UserError("index.other_dimension", wanted=self.dimension, given=row.shape[1])
        faiss.omp_set_num_threads(1)  # one question is too little to share, and waiting threads burn the other core
        scores, numbers = self._index.search(row, min(limit, len(self)), params=self._parameters)
        return [(int(n), float(s)) for n, s in zip(numbers[0], scores[0], strict=True) if n >= 0]


def build(vectors: Vectors, numbers: Numbers, path: Path) -> str:
    """Write an index over `vectors` (may be a memory map) with the ids `numbers`; returns its kind."""
    faiss = _faiss()
    kind = kind_for(len(vectors))
    index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        wanted = min(len(vectors), max(FLAT_LIMIT, TRAIN_PER_LIST * getattr(index, "nlist", 0)))
        sample = np.sort(np.random.default_rng(0).choice(len(vectors), wanted, replace=False))
        index.train(np.ascontiguousarray(vectors[sample]))
    index = index if kind.startswith("IVF") else faiss.IndexIDMap2(index)
    _add(index, vectors, numbers)
    faiss.write_index(index, str(path))
    return kind


def stored(path: Path, kind: str, *, at_least: int = 0) -> Iterator[tuple[Numbers, Vectors]]:
    """Ids from `at_least` on with their vectors as the file holds them (8-bit ones decoded), some at a time, always in the same order."""
    faiss = _faiss()
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP if kind.startswith("IVF") else faiss.IO_FLAG_MMAP_IFC)
    if not kind.startswith("IVF"):
        numbers = faiss.vector_to_array(index.id_map)
        for start in range(0, len(numbers), STORED_BLOCK):
            some = numbers[start : start + STORED_BLOCK]
            if np.any(some >= at_least):
                yield some[some >= at_least], index.index.reconstruct_n(start, len(some))[some >= at_least]
        return
    for number in range(index.nlist):
        ids = faiss.rev_swig_ptr(index.invlists.get_ids(number), index.invlists.list_size(number)).copy()
        offsets = np.flatnonzero(ids >= at_least)
        for start in range(0, len(offsets), STORED_BLOCK):
            some = offsets[start : start + STORED_BLOCK]
            vectors = np.empty((len(some), index.d), np.float32)
            for row, offset in zip(vectors, some.tolist(), strict=True):
                index.reconstruct_from_offset(number, offset, faiss.swig_ptr(row))
            yield ids[some], vectors


def change(source: Path, target: Path, kind: str, removed: Sequence[int], vectors: Vectors, numbers: Numbers) -> str:
    """Write `target` from `source` without the ids `removed` and with `vectors` added; returns the kind, changed when it outgrew it."""
    faiss = _faiss()
    index = faiss.read_index(str(source))
    if removed:
        index.remove_ids(np.array(removed, np.int64))
    total = index.ntotal + len(vectors)
    if _rank(kind_for(total)) > _rank(kind):
        old_numbers, old = _contents(index)
        return build(np.concatenate([old, vectors]), np.concatenate([old_numbers, numbers]), target)
    _add(index, vectors, numbers)
    faiss.write_index(index, str(target))
    return kind


def _add(index: Any, vectors: Vectors, numbers: Numbers) -> None:
    for start in range(0, len(vectors), BLOCK):
        block = np.ascontiguousarray(vectors[start : start + BLOCK], np.float32)
        index.add_with_ids(block, np.ascontiguousarray(numbers[start : start + BLOCK], np.int64))


def _faiss() -> Any:
    """FAISS without its type stubs, which know less than the library."""
    import faiss

    return faiss


def _contents(index: Any) -> tuple[Any, Any]:
    """Ids and vectors of a Flat or SQ8 index under an id map (inverted ones are never left)."""
    numbers = _faiss().vector_to_array(index.id_map)
    return numbers, index.index.reconstruct_n(0, index.ntotal)
