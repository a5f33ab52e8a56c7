"""A search index: one folder per version, built in a scratch folder and put in place by one rename.

    manifest.json   format, tokeniser, counts, chunking, SHA-256 of every file
    chunks.jsonl    one chunk per line; the line number is the chunk's number
    lexical/        tantivy: the two views of our own tokens (`core.retrieval.tokens`), scored by BM25 and summed

Invariants: a folder without a valid manifest is never opened, a file that differs from its checksum is refused, and a
version once published is never changed. A dense channel is absent on purpose: without trained weights it lowers every
metric (docs/benchmarks_retrieval.md). Called by training.index (build) and core.ask (search).
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tantivy

from core.errors import Unavailable, UserError
from core.retrieval.chunk import Chunk
from core.retrieval.fuse import rrf
from core.retrieval.tokens import singles, tokenise, without_question_words

FORMAT = 1
#: Changes whenever tokens would differ for the same text: an index built by other tokens is refused.
TOKENISER = "pairs+singles-1"
#: Weight of the single-character view beside the pairs, chosen on the training pairs of two Chinese sets.
SINGLES_WEIGHT = 1.5
#: What a model made of the question may help, but must not outvote it.
OTHER_WORDINGS_WEIGHT = 0.5
#: How many hits of each wording go into the fusion.
DEPTH = 50
WRITER_MEMORY = 64_000_000


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk found. `score` is the fused score, `bm25` the score under the first wording that found it.

    `doors` names the wordings that found it (keys of the `search` argument).
    """

    number: int
    chunk: Chunk
    score: float
    bm25: float
    doors: tuple[str, ...]


def build_index(chunks: Iterable[Chunk], folder: Path, about: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write a complete index into `folder` (emptied first) and return its manifest; `about` is copied into it."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "lexical").mkdir(parents=True)
    schema = _schema()
    writer = tantivy.Index(schema, str(folder / "lexical")).writer(heap_size=WRITER_MEMORY, num_threads=1)
    num_chunks, files = 0, set()
    with (folder / "chunks.jsonl").open("w", encoding="utf-8") as lines:
        for number, chunk in enumerate(chunks):
            lines.write(json.dumps(asdict(chunk), ensure_ascii=False) + "\n")
            text = "\n".join(filter(None, [chunk.title, chunk.section, chunk.text]))
            writer.add_document(tantivy.Document(pairs=" ".join(tokenise(text)), singles=" ".join(singles(text)), number=number))
            num_chunks += 1
            files.add(chunk.file)
    writer.commit()
    writer.wait_merging_threads()
    manifest = {
        "format": FORMAT,
        "tokeniser": TOKENISER,
        "channels": ["lexical"],
        "num_chunks": num_chunks,
        "num_documents": len(files),
        **(about or {}),
        "files": {str(p.relative_to(folder)): _sha256(p) for p in _index_files(folder)},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
    return manifest


def publish(scratch: Path, target: Path) -> None:
    """Put a finished scratch folder in its place in one step. A half-written version can therefore not exist.

    Raises FileExistsError when `target` is there already: a published version is never replaced.
    """
    if target.exists():
        raise FileExistsError(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch.rename(target)


class LexicalIndex:
    """An opened version. Safe to share between threads: nothing in it changes."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.manifest = manifest
        self._schema = _schema()
        try:
            self._searcher = tantivy.Index(self._schema, str(folder / "lexical")).searcher()
        except ValueError as error:
            raise Unavailable("ask.index_damaged", file="lexical", path=folder) from error
        self._lines = (folder / "chunks.jsonl").read_bytes().splitlines()
        if not self._searcher.num_docs == len(self._lines) == manifest["num_chunks"]:
            raise Unavailable("ask.index_damaged", file="chunks.jsonl", path=folder)

    def __len__(self) -> int:
        return len(self._lines)

    def chunk(self, number: int) -> Chunk:
        """The chunk of that number."""
        return Chunk(**json.loads(self._lines[number]))

    def siblings(self, number: int) -> list[int]:
        """Numbers of the other chunks of the same document, in its order."""
        file = self.chunk(number).file
        found = []
        for step in (-1, 1):
            other = number + step
            while 0 <= other < len(self) and self.chunk(other).file == file:
                found.append(other)
                other += step
        return sorted(found)

    def weight(self, token: str) -> float:
        """How much finding this token says: its inverse document frequency among the chunks (BM25's)."""
        is_lone = len(token) == 1  # inside a document a lone character usually stands in a run
        frequency = self._searcher.doc_freq("singles" if is_lone else "pairs", token)
        return math.log(1 + (len(self) - frequency + 0.5) / (frequency + 0.5))

    def search(self, wordings: dict[str, str], top_k: int = 5) -> list[Hit]:
        """Search every wording of a question (name -> text) and fuse the rankings by RRF. Best first, at most `top_k`.

        The first wording leads: the others count half. A wording without a searchable token finds nothing.
        """
        rankings = {name: self.ranking(text) for name, text in wordings.items()}
        weights = [1.0] + [OTHER_WORDINGS_WEIGHT] * (len(rankings) - 1)
        fused = rrf([[number for number, _ in ranking] for ranking in rankings.values()], weights[: len(rankings)])
        hits = []
        for number, score in fused[:top_k]:
            found = {name: dict(ranking)[number] for name, ranking in rankings.items() if number in dict(ranking)}
            hits.append(Hit(number, self.chunk(number), score, next(iter(found.values())), tuple(found)))
        return hits

    def ranking(self, text: str, depth: int = DEPTH) -> list[tuple[int, float]]:
        """Chunk numbers with their BM25 scores for one wording, best first."""
        subject = without_question_words(text)
        clauses = []
        for field, tokens, weight in (("pairs", tokenise(subject), 1.0), ("singles", singles(subject), SINGLES_WEIGHT)):
            for token, times in Counter(tokens).items():
                query = tantivy.Query.term_query(self._schema, field, token, "freq")
                clauses.append((tantivy.Occur.Should, tantivy.Query.boost_query(query, weight * times)))
        if not clauses:
            return []
        found = self._searcher.search(tantivy.Query.boolean_query(clauses), depth).hits
        return [(int(self._searcher.doc(address)["number"][0]), float(score)) for score, address in found]


@lru_cache(maxsize=4)
def open_index(folder: Path) -> LexicalIndex:
    """Open a published version and keep it open for the next call. Raises as `load_index`."""
    return load_index(folder)


def load_index(folder: Path) -> LexicalIndex:
    """Open a version after checking every file against its manifest.

    Raises Unavailable("ask.index_missing" / "ask.index_damaged") and UserError("ask.index_other_format").
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        expected = dict(manifest["files"])
    except FileNotFoundError as error:
        raise Unavailable("ask.index_missing", path=folder) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable("ask.index_damaged", file="manifest.json", path=folder) from error
    if (manifest.get("format"), manifest.get("tokeniser")) != (FORMAT, TOKENISER):
        raise UserError("ask.index_other_format", found=f"{manifest.get('format')}/{manifest.get('tokeniser')}", path=folder)
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != digest:
            raise Unavailable("ask.index_damaged", file=name, path=folder)
    return LexicalIndex(folder, manifest)


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("pairs", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("singles", tokenizer_name="whitespace", index_option="freq")
    builder.add_integer_field("number", stored=True, fast=True)
    return builder.build()


def _index_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json" and p.suffix != ".lock")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
