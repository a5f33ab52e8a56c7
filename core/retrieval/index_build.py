"""Making a version: from nothing, or from an older version by links to its files and the difference.

Both write into a scratch folder that nobody reads; `versions_on_disk.publish` shows it afterwards. An update costs what changed
plus the tables and the FAISS file; segments and texts are shared with the old version by hard links. Called by training.index
and the benchmarks.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import UserError
from core.retrieval import dense
from core.retrieval.chunk import Chunk
from core.retrieval.dense import DenseModel, Encoder
from core.retrieval.entries import StoreWriter, searchable
from core.retrieval.lexical import TOKENISER, LexicalWriter, link, link_or_copy
from core.retrieval.repetitions import Marks
from core.retrieval.versions_on_disk import FORMAT, seal

if TYPE_CHECKING:
    from core.retrieval.index import Index

#: texts encoded at a time
BATCH = 512


@dataclass(frozen=True, slots=True)
class Source:
    """The file a document was read from: a hash of its bytes, and the documents that hold what was left out of this one."""

    hash: str
    repeats: tuple[str, ...] = ()


Questions = Mapping[int, Sequence[str]]


def build_index(
    chunks: Iterable[Chunk],
    folder: Path,
    about: dict[str, Any] | None = None,
    *,
    questions: Questions | None = None,
    encoder: Encoder | None = None,
    marks: Sequence[Any] | Marks | None = None,
    sources: Mapping[str, Source] | None = None,
) -> dict[str, Any]:
    """Write a complete index into `folder` (emptied first) and return its manifest; `about` is copied into it.

    `questions`: position of a chunk in `chunks` (from 0) -> its pseudo-questions. Chunks are numbered in the order given.
    `marks`: of each chunk (core.retrieval.repetitions), so that an update can recognise repetitions. `sources`: where each
    document came from, so that an update can tell which have changed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    maker = _Maker(folder, None, encoder)
    maker.add(chunks, questions or {}, marks)
    return maker.finish(about or {}, sources or {})


def update_index(
    base: Index,
    folder: Path,
    *,
    remove: Collection[str] = (),
    chunks: Iterable[Chunk] = (),
    about: dict[str, Any] | None = None,
    questions: Questions | None = None,
    encoder: Encoder | None = None,
    remove_entries: Collection[int] = (),
    more_questions: Questions | None = None,
    marks: Sequence[Any] | Marks | None = None,
    sources: Mapping[str, Source] | None = None,
) -> dict[str, Any]:
    """Write into `folder` (emptied first) what `base` holds without the documents `remove`, with `chunks` added.

    A changed document is named in `remove` and comes again in `chunks`. `questions` as in `build_index`, by position in
    `chunks`; `more_questions`, by chunk number, go to chunks that are there already. `remove_entries` are pseudo-questions to drop.
    Raises UserError("index.other_encoder" / "index.needs_encoder").
    """
    if base.dense_model and encoder:
        base.dense_model.require(encoder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in base.folder.glob("texts-*.jsonl"):
        link_or_copy(path, folder / path.name)
    link(base.folder / "lexical", folder / "lexical")
    maker = _Maker(folder, base, encoder)
    maker.remove(remove, remove_entries)
    for parent, texts in (more_questions or {}).items():
        maker.ask(parent, texts)
    maker.add(chunks, questions or {}, marks)
    # where the base's rows lie says nothing about the new version: core.retrieval.engine_moves puts the difference there
    return maker.finish({**base.manifest, "engine": None, **(about or {})}, sources or {})


class _Maker:
    """One version in the making: every entry goes into the store and into both channels."""

    def __init__(self, folder: Path, base: Index | None, encoder: Encoder | None) -> None:
        self._folder, self._base, self._encoder = folder, base, encoder
        self.store = StoreWriter(folder, base.store if base else None)
        self._lexical = LexicalWriter(folder / "lexical")
        self._model = (base.dense_model if base else None) if base else (DenseModel.of(encoder) if encoder else None)
        self._removed: list[int] = []
        self._numbers: list[int] = []
        self._waiting: list[tuple[int, str, bool]] = []

    def remove(self, files: Collection[str], entries: Collection[int]) -> None:
        self._removed = self.store.remove_documents(files) + self.store.remove_entries(entries)
        self._lexical.remove(self._removed)

    def add(self, chunks: Iterable[Chunk], questions: Questions, marks: Sequence[Any] | Marks | None) -> None:
        for position, chunk in enumerate(chunks):
            number, entry = self.store.add_chunk(chunk, None if marks is None else marks[position])
            self._put(entry, searchable(chunk), is_question=False)
            self.ask(number, questions.get(position, ()))

    def ask(self, parent: int, questions: Iterable[str]) -> None:
        for question in questions:
            self._put(self.store.add_question(parent, question), question, is_question=True)

    def _put(self, entry: int, text: str, *, is_question: bool) -> None:
        """The vector of a question is that of its first line: behind it may stand its passage, whose vector is there already."""
        self._lexical.add(entry, text)
        if self._model:
            self._waiting.append((entry, text.partition("\n")[0] if is_question else text, is_question))
            if len(self._waiting) >= BATCH:
                self._encode()

    def _encode(self) -> None:
        """Encode what waits. A question will be compared with questions, so it is encoded as one."""
        if self._encoder is None:
            raise UserError("index.needs_encoder", encoder=self._model.name if self._model else "")
        for is_question in (False, True):
            rows = [(entry, text) for entry, text, kind in self._waiting if kind is is_question]
            if rows:
                encoded = self._encoder.encode([text for _, text in rows], is_query=is_question)
                with (self._folder / "vectors.f32").open("ab") as vectors:
                    vectors.write(np.ascontiguousarray(encoded, np.float32).tobytes())
                self._numbers += [entry for entry, _ in rows]
        self._waiting.clear()

    def finish(self, about: dict[str, Any], sources: Mapping[str, Source]) -> dict[str, Any]:
        for file, source in sources.items():
            self.store.describe(file, source.hash, source.repeats)
        self.store.finish()
        self._lexical.finish()
        chunks, entries = np.load(self._folder / "chunks.npy"), np.load(self._folder / "entries.npy")
        num_entries = int(entries["is_live"].sum())
        num_syn = int((entries["is_live"] & (entries["kind"] == 1)).sum())
        kind = self._finish_dense() if self._model and num_entries else None
        return seal(
            self._folder,
            {
                **about,
                "format": FORMAT,
                "tokeniser": TOKENISER,
                "channels": ["lexical", "dense"] if kind else ["lexical"],
                "encoder": self._model.asdict() if self._model and kind else None,
                "dense": kind,
                "num_documents": len(self.store.documents),
                "num_chunks": int(chunks["is_live"].sum()),
                "num_entries": num_entries,
                "num_syn": num_syn,
            },
        )

    def _finish_dense(self) -> str:
        """Write dense.faiss; returns its type."""
        if self._waiting:
            self._encode()
        if self._model is None:
            raise AssertionError("no dense channel was begun")
        path, target = self._folder / "vectors.f32", self._folder / "dense.faiss"
        shape = (len(self._numbers), self._model.dimension)
        vectors = np.memmap(path, np.float32, "r", shape=shape) if self._numbers else np.zeros(shape, np.float32)
        numbers = np.array(self._numbers, np.int64)
        if self._base is not None and self._base.manifest["dense"]:
            kind = dense.change(self._base.folder / "dense.faiss", target, self._base.manifest["dense"], self._removed, vectors, numbers)
        else:
            kind = dense.build(vectors, numbers, target)
        del vectors
        path.unlink(missing_ok=True)
        return kind
