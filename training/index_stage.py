"""What an index job has read so far, kept in its run folder: a restart goes on after the last whole document.

    stage/documents.jsonl   one line per document read: name, size and time of its file, hash, problem, what was left out,
                            and where its chunks end
    stage/chunks.jsonl      the chunks, one per line
    stage/marks.bin         their marks (core.retrieval.repetitions)

Invariant: a line of documents.jsonl is written after its chunks, so whatever lies behind the last whole line is cut off. A file
that changed while the job was away makes the stage start anew. Called by training.index.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.privacy_doors import kinds_in_document
from core.retrieval.chunk import Chunk, Document, as_row, chunk_document
from core.retrieval.documents import Problem, read_file
from core.retrieval.index import Index
from core.retrieval.index_build import Source
from core.retrieval.repetitions import MARK, Marks, Repetitions, mark


@dataclass(frozen=True, slots=True)
class Chunking:
    """How documents are cut; stored in the manifest, so that an update cuts alike."""

    unit: str = "token"
    limit: int = 256
    overlap: int = 64
    #: least similarity of a chunk that is left out as a repetition; 0 leaves all in
    similarity: float = 0.9

    def cut(self, document: Document) -> list[Chunk]:
        return chunk_document(document, self.limit, self.overlap, unit="character" if self.unit == "character" else "token")


@dataclass(frozen=True, slots=True)
class Staged:
    """A file that was read. `problem` says why it holds no chunks; `end` is the number of chunks after it."""

    file: str
    size: int
    changed_ns: int
    hash: str
    end: int
    problem: dict[str, str] | None = None
    repeats: list[str] = field(default_factory=list)
    num_exact: int = 0
    num_near: int = 0


class Stage:
    """The documents read, and their chunks by number."""

    def __init__(self, folder: Path, root: Path) -> None:
        """`root` is the folder of the documents."""
        folder.mkdir(parents=True, exist_ok=True)
        self._root = root
        self._log, self._lines, self._marks = folder / "documents.jsonl", folder / "chunks.jsonl", folder / "marks.bin"
        for path in (self._log, self._lines, self._marks):
            path.touch()
        self.documents = self._whole_lines()
        self._starts = array("Q", [0])
        self._recover()
        self._out = self._lines.open("ab")
        self._marks_out = self._marks.open("ab")
        self._log_out = self._log.open("a", encoding="utf-8")
        self._in = self._lines.open("rb")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def chunk(self, number: int) -> Chunk:
        self._out.flush()
        self._in.seek(self._starts[number])
        return Chunk(**json.loads(self._in.read(self._starts[number + 1] - self._starts[number])))

    def chunks(self) -> Iterator[Chunk]:
        """All of them, in order."""
        self._out.flush()
        with self._lines.open("rb") as lines:
            for line in lines:
                yield Chunk(**json.loads(line))

    def marks(self) -> Marks:
        self._marks_out.flush()
        return np.fromfile(self._marks, MARK)

    def problems(self) -> list[dict[str, str]]:
        return [document.problem for document in self.documents if document.problem]

    def sources(self) -> dict[str, Source]:
        return {d.file: Source(d.hash, tuple(d.repeats)) for d in self.documents if d.problem is None}

    def read(
        self, files: Iterable[Path], chunking: Chunking, base: Index | None, leaving: Collection[str], on_file: Callable[[int], None]
    ) -> None:
        """Read what is not staged yet. `base`, without the documents `leaving` it, is looked through for repetitions too.
        `on_file(num_done)` is called after each file is safe on disk, and may raise."""
        known = Repetitions(self._any_chunk(base), chunking.similarity)
        if base is not None:
            numbers, rows = base.store.marks()
            gone = [base.documents[file].number for file in leaving if file in base.documents]
            stays = ~np.isin(base.store.chunks["document"][numbers], gone)
            known.add_all([-1 - number for number, is_kept in zip(numbers, stays, strict=True) if is_kept], rows[stays])
        known.add_all(range(len(self)), self.marks())
        staged = {document.file for document in self.documents}
        for done, path in enumerate(files, start=1):
            name = path.relative_to(self._root).as_posix()
            if name not in staged:
                self._add(path, name, chunking, known, base)
            on_file(done)

    def close(self) -> None:
        for file in (self._out, self._marks_out, self._log_out, self._in):
            file.close()

    def _add(self, path: Path, name: str, chunking: Chunking, known: Repetitions, base: Index | None) -> None:
        item = read_file(path, name)
        if isinstance(item, Document) and (kinds := kinds_in_document(item.text)):
            item = Problem(name, "privacy.in_document", {"file": name, "kinds": ", ".join(kinds)})
        problem, repeats, dropped = None, set[str](), {"exact": 0, "near": 0}
        if isinstance(item, Document):
            for chunk in chunking.cut(item):
                row = mark(chunk.text)
                repeat = known.find(chunk, row) if chunking.similarity else None
                if repeat:
                    dropped[repeat.kind] += 1
                    holder = self._any_chunk(base)(repeat.number).file
                    repeats |= {holder} - {name}
                    continue
                known.add(len(self), row)
                self._put(chunk, row)
        else:
            problem = {"file": item.file, "code": item.code, **{k: str(v) for k, v in item.params.items()}}
            print(f"left out {item.file}: {item.code}", flush=True)
        state = path.stat()
        staged = Staged(
            name, state.st_size, state.st_mtime_ns, file_hash(path), len(self), problem, sorted(repeats), dropped["exact"], dropped["near"]
        )
        self.documents.append(staged)
        self._out.flush()
        self._marks_out.flush()
        self._log_out.write(json.dumps(asdict(staged), ensure_ascii=False) + "\n")
        self._log_out.flush()

    def _put(self, chunk: Chunk, row: Marks) -> None:
        line = json.dumps(as_row(chunk), ensure_ascii=False).encode() + b"\n"
        self._out.write(line)
        self._marks_out.write(row.tobytes())
        self._starts.append(self._starts[-1] + len(line))

    def _any_chunk(self, base: Index | None) -> Callable[[int], Chunk]:
        """Chunks of this stage by number, chunks of `base` by -1 - number."""

        def chunk(number: int) -> Chunk:
            if number >= 0 or base is None:
                return self.chunk(number)
            return base.chunk(-1 - number)

        return chunk

    def _whole_lines(self) -> list[Staged]:
        """What was staged completely, if the files are still the same."""
        found: list[Staged] = []
        for line in self._log.read_bytes().splitlines(keepends=True):
            try:
                staged = Staged(**json.loads(line))
                state = (self._root / staged.file).stat()
            except (ValueError, TypeError, OSError):
                break
            if not line.endswith(b"\n") or (state.st_size, state.st_mtime_ns) != (staged.size, staged.changed_ns):
                break
            found.append(staged)
        return found

    def _recover(self) -> None:
        """Cut the three files back to the last whole document."""
        num_chunks = self.documents[-1].end if self.documents else 0
        with self._lines.open("rb") as lines:
            for _, line in zip(range(num_chunks), lines, strict=False):
                self._starts.append(self._starts[-1] + len(line))
        _cut(self._lines, self._starts[-1])
        _cut(self._marks, num_chunks * MARK.itemsize)
        text = "".join(json.dumps(asdict(document), ensure_ascii=False) + "\n" for document in self.documents)
        _cut(self._log, len(text.encode()))


def file_hash(path: Path) -> str:
    """SHA-256 of a document's bytes; "" when it cannot be read (its problem is reported by the reader)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _cut(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def settings_of(manifest: dict[str, Any]) -> Chunking:
    """How the documents of a version were cut."""
    return Chunking(**manifest["chunking"])
