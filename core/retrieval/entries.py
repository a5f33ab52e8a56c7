"""Chunks and entries of an index on disk: who they are, where their text lies, which document they came from.

    texts-00001.jsonl   chunks (objects) and pseudo-questions (strings), one per line; each update adds a file, none ever changes
    chunks.npy          one row per chunk number: which bytes of which file, its document, the mark of its text, is it alive
    entries.npy         one row per entry number: its chunk, its kind, the bytes of a pseudo-question, is it alive
    documents.jsonl     one line per living document: name, hash of its file, number, the documents it repeats

An entry is one searchable text: the chunk itself ("original") or a question it answers ("syn"). Invariant: numbers are never
given twice within a line of versions, so what was counted for an entry stays true after an update. Texts are read through a
memory map when asked for; only the two tables are in memory (59 and 20 bytes a row). Called by core.retrieval.index.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.retrieval.chunk import Chunk, as_row
from core.retrieval.repetitions import MARK

KINDS = ("original", "syn")
SYN = KINDS.index("syn")
CHUNK_ROW = np.dtype([("file", "u2"), ("start", "u8"), ("size", "u4"), ("document", "u4"), ("mark", MARK), ("is_live", "?")])
ENTRY_ROW = np.dtype([("parent", "u4"), ("kind", "u1"), ("file", "u2"), ("start", "u8"), ("size", "u4"), ("is_live", "?")])
TABLES = ("chunks.npy", "entries.npy", "documents.jsonl")
#: of a chunk that nobody compared with others
NO_MARK = np.zeros((), MARK)
ENCODE = json.JSONEncoder(ensure_ascii=False).encode
Rows = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One searchable text of chunk `parent`."""

    id: int
    parent: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A document as indexed. `hash` is that of its file's bytes ("" when it did not come from a file); `repeats` names the
    documents that hold what was left out of this one."""

    file: str
    hash: str
    number: int
    repeats: tuple[str, ...] = ()


def searchable(chunk: Chunk) -> str:
    """What is searched of a chunk: its title and section belong to it."""
    return "\n".join(filter(None, [chunk.title, chunk.section, chunk.text]))


class Store:
    """The texts and tables of one version, opened. Safe between threads: nothing in it changes."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError or ValueError when something is missing or is not what it should be."""
        self.chunks: Rows = np.load(folder / "chunks.npy")
        self.entries: Rows = np.load(folder / "entries.npy")
        if self.chunks.dtype != CHUNK_ROW or self.entries.dtype != ENTRY_ROW:
            raise ValueError("tables of another layout")
        with (folder / "documents.jsonl").open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        self.documents = {r["file"]: DocumentRow(r["file"], r["hash"], r["number"], tuple(r["repeats"])) for r in rows}
        self._texts = {int(p.stem[6:]): _map(p) for p in sorted(folder.glob("texts-*.jsonl"))}
        self._live = np.flatnonzero(self.chunks["is_live"])
        self.num_entries = int(self.entries["is_live"].sum())

    def __len__(self) -> int:
        return len(self._live)

    @property
    def numbers(self) -> list[int]:
        """The living chunk numbers, ascending."""
        return [int(n) for n in self._live]

    def chunk(self, number: int) -> Chunk:
        """The chunk of that number. Raises KeyError when no living chunk has it."""
        if not 0 <= number < len(self.chunks) or not self.chunks[number]["is_live"]:
            raise KeyError(number)
        return Chunk(**self._read(self.chunks[number]))

    def entry(self, number: int) -> Entry:
        """The entry of that number, dead or alive. Raises KeyError when there never was one."""
        if not 0 <= number < len(self.entries):
            raise KeyError(number)
        row = self.entries[number]
        parent = int(row["parent"])
        text = self._read(row) if row["kind"] == SYN else self._read(self.chunks[parent])["text"]
        return Entry(number, parent, KINDS[row["kind"]], text)

    def questions(self, parent: int) -> list[Entry]:
        """The living pseudo-questions of a chunk."""
        is_asked = (self.entries["parent"] == parent) & (self.entries["kind"] == SYN) & self.entries["is_live"]
        return [self.entry(int(n)) for n in np.flatnonzero(is_asked)]

    def siblings(self, number: int) -> list[int]:
        """Numbers of the other living chunks of the same document, in its order."""
        same = (self.chunks["document"] == self.chunks[number]["document"]) & self.chunks["is_live"]
        return [int(n) for n in np.flatnonzero(same) if n != number]

    def living(self) -> Iterator[tuple[int, Chunk]]:
        """Every living chunk with its number."""
        for number in self._live:
            yield int(number), Chunk(**self._read(self.chunks[number]))

    def living_questions(self) -> list[int]:
        """Entry numbers of all living pseudo-questions."""
        return [int(n) for n in np.flatnonzero(self.entries["is_live"] & (self.entries["kind"] == SYN))]

    def marks(self) -> tuple[list[int], Rows]:
        """Numbers and marks of the living chunks (core.retrieval.repetitions)."""
        return self.numbers, self.chunks["mark"][self._live]

    def _read(self, row: Any) -> Any:
        start = int(row["start"])
        return json.loads(self._texts[int(row["file"])][start : start + int(row["size"])])


class StoreWriter:
    """Writes the texts and tables of a version into `folder`, from nothing or as the continuation of `base`.

    With a base, its text files must already lie in `folder` (linked); what is added goes into a file of its own.
    """

    def __init__(self, folder: Path, base: Store | None = None) -> None:
        self._folder = folder
        self._base_chunks: Rows = base.chunks.copy() if base else np.zeros(0, CHUNK_ROW)
        self._base_entries: Rows = base.entries.copy() if base else np.zeros(0, ENTRY_ROW)
        self.documents = dict(base.documents) if base else {}
        self._next_document = 1 + max((row.number for row in self.documents.values()), default=-1)
        if len(self._base_chunks):  # the numbers of documents that are gone are not given again
            self._next_document = max(self._next_document, 1 + int(self._base_chunks["document"].max()))
        self._chunks: list[tuple[Any, ...]] = []
        self._entries: list[tuple[Any, ...]] = []
        self._file = 1 + max((int(p.stem[6:]) for p in folder.glob("texts-*.jsonl")), default=0)
        self._out = (folder / f"texts-{self._file:05d}.jsonl").open("wb")
        self._at = 0

    def remove_documents(self, files: Iterable[str]) -> list[int]:
        """Forget documents; returns the entry numbers that must leave the channels."""
        gone = [self.documents.pop(file).number for file in files if file in self.documents]
        is_dead = np.isin(self._base_chunks["document"], gone) & self._base_chunks["is_live"]
        self._base_chunks["is_live"][is_dead] = False
        is_dead_entry = np.isin(self._base_entries["parent"], np.flatnonzero(is_dead)) & self._base_entries["is_live"]
        return self._bury(is_dead_entry)

    def remove_entries(self, numbers: Iterable[int]) -> list[int]:
        """Forget pseudo-questions; numbers that are no living pseudo-question are passed over. Returns those that went."""
        wanted = np.zeros(len(self._base_entries), bool)
        wanted[[n for n in numbers if 0 <= n < len(wanted)]] = True
        return self._bury(wanted & (self._base_entries["kind"] == SYN) & self._base_entries["is_live"])

    def add_chunk(self, chunk: Chunk, mark: Rows | None = None) -> tuple[int, int]:
        """Returns the numbers of the new chunk and of its original entry. Chunks of a document come one after the other."""
        row = self.documents.get(chunk.file)
        if row is None:
            row = self.documents[chunk.file] = DocumentRow(chunk.file, "", self._next_document)
            self._next_document += 1
        number = len(self._base_chunks) + len(self._chunks)
        self._chunks.append((*self._write(as_row(chunk)), row.number, NO_MARK if mark is None else mark, True))
        return number, self._add((number, 0, 0, 0, 0, True))

    def add_question(self, parent: int, text: str) -> int:
        """Returns the number of the new entry."""
        return self._add((parent, SYN, *self._write(text), True))

    def describe(self, file: str, file_hash: str, repeats: Iterable[str] = ()) -> None:
        """Say where a document came from; one whose every chunk was a repetition has no chunk and is kept all the same."""
        row = self.documents.get(file)
        number = row.number if row else self._next_document
        self._next_document += row is None
        self.documents[file] = DocumentRow(file, file_hash, number, tuple(sorted(set(repeats))))

    def finish(self) -> None:
        """Write the tables."""
        self._out.close()
        if not self._at:
            (self._folder / f"texts-{self._file:05d}.jsonl").unlink()
        chunks = np.concatenate([self._base_chunks, _table(self._chunks, CHUNK_ROW)])
        entries = np.concatenate([self._base_entries, _table(self._entries, ENTRY_ROW)])
        np.save(self._folder / "chunks.npy", chunks)
        np.save(self._folder / "entries.npy", entries)
        with (self._folder / "documents.jsonl").open("w", encoding="utf-8") as lines:
            for row in self.documents.values():
                lines.write(ENCODE({"file": row.file, "hash": row.hash, "number": row.number, "repeats": row.repeats}) + "\n")

    def _add(self, row: tuple[Any, ...]) -> int:
        self._entries.append(row)
        return len(self._base_entries) + len(self._entries) - 1

    def _bury(self, is_dead: Rows) -> list[int]:
        self._base_entries["is_live"][is_dead] = False
        return [int(n) for n in np.flatnonzero(is_dead)]

    def _write(self, value: Any) -> tuple[int, int, int]:
        line = ENCODE(value).encode() + b"\n"
        start, self._at = self._at, self._at + len(line)
        self._out.write(line)
        return self._file, start, len(line)


def _table(rows: list[tuple[Any, ...]], layout: np.dtype[Any]) -> Rows:
    table = np.zeros(len(rows), layout)
    for column, values in zip(layout.names or (), zip(*rows, strict=True), strict=False):
        table[column] = np.array(list(values), layout[column].base).reshape(len(rows), *layout[column].shape)
    return table


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
