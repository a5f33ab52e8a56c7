"""A search index: entries pooled in one lexical and one dense channel, found entries collapsed to the best per chunk.

    manifest.json   format, tokeniser, counts, chunking, encoder, FAISS type, SHA-256 of every file
    chunks.npy, entries.npy, documents.jsonl, texts-*.jsonl      core.retrieval.entries
    lexical/        core.retrieval.lexical
    dense.faiss     core.retrieval.dense (absent without an encoder)

Pseudo-questions stand in the same channels as the chunks they belong to: measured, pooling beats fusing two lists by a third.
Invariants: a folder without a valid manifest is never opened, a file that differs from its checksum is refused, and a version
once published never changes (core.retrieval.versions_on_disk). Built and updated by core.retrieval.index_build, opened by
whoever searches; safe between threads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.errors import Unavailable, UserError
from core.retrieval.chunk import Chunk
from core.retrieval.dense import Dense, DenseModel, Encoder, Numbers, Vectors, stored
from core.retrieval.engines.remote import Asked, Note, Remote
from core.retrieval.entries import KINDS, SYN, DocumentRow, Entry, Rows, Store
from core.retrieval.fuse import rrf
from core.retrieval.index_build import build_index, update_index
from core.retrieval.lexical import TOKENISER, Lexical
from core.retrieval.versions_on_disk import FORMAT, check_files, publish, read_manifest

__all__ = ["Entry", "Found", "Hit", "Index", "LexicalIndex", "build_index", "load_index", "open_index", "publish", "update_index"]

#: What a model made of the question may help, but must not outvote it.
OTHER_WORDINGS_WEIGHT = 0.5
#: How many hits of each wording go into the fusion.
DEPTH = 50


@dataclass(frozen=True, slots=True)
class Found:
    """A chunk and the entry that let it in: the chunk itself ("original") or a pseudo-question of it ("syn")."""

    parent: int
    score: float
    entry: int
    kind: str
    store: Store = field(repr=False, compare=False)

    @property
    def text(self) -> str:
        """The entry's text, read when asked for: most of what is found is never shown."""
        return self.store.entry(self.entry).text


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk found by several wordings. `score` is the fused score, `bm25` the score under the first wording that found it.

    `doors` names the wordings that found it (keys of the `search` argument).
    """

    number: int
    chunk: Chunk
    score: float
    bm25: float
    doors: tuple[str, ...]


class Index:
    """An opened version. Safe to share between threads: nothing in it changes."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Raises Unavailable("ask.index_damaged") when the parts do not belong together. Checksums are `load_index`'s business."""
        self.folder, self.manifest = folder, manifest
        part = "chunks.npy"
        try:
            self._store = Store(folder)
            part = "lexical"
            self._lexical = Lexical(folder / "lexical")
            part = "dense.faiss"
            model = manifest.get("encoder")
            self.dense_model = DenseModel(model["name"], model["hash"], model["dimension"]) if model else None
            self._dense = Dense(folder / part, manifest["dense"], self.dense_model.dimension) if self.dense_model else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unavailable("ask.index_damaged", file=part, path=folder) from error
        sizes = {self._store.num_entries, len(self._lexical), manifest["num_entries"]} | ({len(self._dense)} if self._dense else set())
        if len(sizes) > 1 or len(self._store) != manifest["num_chunks"]:
            raise Unavailable("ask.index_damaged", file="entries.npy", path=folder)
        self._remote: Remote | None = None
        self._asked: Asked | None = None
        #: how many entries a chunk has on average: so many more must be looked at in order to find so many chunks
        self._crowd = max(1, round(self._store.num_entries / max(1, len(self._store))))

    def __len__(self) -> int:
        """Living chunks. Their numbers have gaps after an update: see `numbers`."""
        return len(self._store)

    @property
    def numbers(self) -> list[int]:
        """The living chunk numbers, ascending."""
        return self._store.numbers

    @property
    def num_entries(self) -> int:
        return self._store.num_entries

    @property
    def documents(self) -> dict[str, DocumentRow]:
        """The documents by name."""
        return self._store.documents

    @property
    def is_live(self) -> Rows:
        """Of each entry number ever given: is it in this version?"""
        return self._store.entries["is_live"]

    @property
    def store(self) -> Store:
        """Texts and tables, for whoever builds the next version."""
        return self._store

    def chunk(self, parent: int) -> Chunk:
        """The chunk of that number. Raises KeyError when no living chunk has it."""
        return self._store.chunk(parent)

    def entry(self, number: int) -> Entry:
        """The entry of that number. Raises KeyError when there never was one."""
        return self._store.entry(number)

    def questions(self, parent: int) -> list[Entry]:
        """The pseudo-questions of a chunk."""
        return self._store.questions(parent)

    def siblings(self, parent: int) -> list[int]:
        """Numbers of the other chunks of the same document, in its order."""
        return self._store.siblings(parent)

    def weight(self, token: str) -> float:
        """How much finding this token says: its inverse document frequency among the entries (BM25's)."""
        return self._lexical.weight(token)

    def similar(self, token: str, distance: int = 1) -> list[tuple[str, int]]:
        """Words of the index that may be meant by a misspelt `token` (core.retrieval.lexical.Lexical.similar)."""
        return self._lexical.similar(token, distance)

    def idf(self, view: str, token: str) -> float:
        """Inverse document frequency of a token in one of the two views of the text."""
        return self._lexical.idf(view, token)

    def through(self, remote: Remote) -> Index:
        """The same version, asked through an engine. Only `asking` reaches it: jobs go on reading the version's own channels."""
        other = copy.copy(self)
        other._remote = remote
        return other

    def asking(self, texts: Sequence[str]) -> tuple[Index, list[Note]]:
        """What to search for one question in these wordings, and what there is to say about it once it was searched."""
        if self._remote is None:
            return self, []
        other = copy.copy(self)
        other._asked = self._remote.asked(texts)
        return other, other._asked.notes

    def lexical(self, text: str, depth: int = 30, *, with_syn: bool = True) -> list[Found]:
        """Chunks by BM25, best first, at most `depth`. A text without a searchable token finds nothing."""
        asked, own = self._asked, self._lexical
        if asked is None:
            return self._collapsed(lambda limit: own.search(text, limit), depth, with_syn)
        return self._collapsed(lambda limit: asked.lexical(text, limit, lambda: own.search(text, limit)), depth, with_syn)

    def dense(self, vector: Vectors, depth: int = 30, *, with_syn: bool = True) -> list[Found]:
        """Chunks by cosine, best first, at most `depth`; none when the index has no dense channel.

        `vector` (d,) must come from the encoder that `require` accepts. Raises UserError("index.other_dimension").
        """
        asked, own = self._asked, self._dense
        if own is None:
            return []
        if asked is None:
            return self._collapsed(lambda limit: own.search(vector, limit), depth, with_syn)
        return self._collapsed(lambda limit: asked.dense(vector, limit, lambda: own.search(vector, limit)), depth, with_syn)

    def entries_by_words(self, text: str, limit: int) -> list[tuple[int, float]]:
        """Entry numbers with BM25 scores from the version's own channel, not collapsed to chunks."""
        return self._lexical.search(text, limit)

    def entries_by_vector(self, vector: Vectors, limit: int) -> list[tuple[int, float]]:
        """Entry numbers with cosines from the version's own channel, not collapsed to chunks; none without a dense channel."""
        return self._dense.search(vector, limit) if self._dense else []

    def stored_vectors(self, at_least: int = 0) -> Iterator[tuple[Numbers, Vectors]]:
        """Living entry numbers from `at_least` on with their vectors, some at a time, always in the same order."""
        if self._dense is not None:
            yield from stored(self.folder / "dense.faiss", self.manifest["dense"], at_least=at_least)

    def require(self, encoder: Encoder) -> None:
        """Raises UserError("index.no_dense" / "index.other_encoder") unless questions encoded by `encoder` can be searched here."""
        if self.dense_model is None:
            raise UserError("index.no_dense", path=self.folder)
        self.dense_model.require(encoder)

    def search(self, wordings: dict[str, str], top_k: int = 5) -> list[Hit]:
        """Search every wording of a question (name -> text) lexically and fuse the rankings by RRF. Best first, at most `top_k`.

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
        return [(f.parent, f.score) for f in self.lexical(text, depth)]

    def _collapsed(self, search: Callable[[int], list[tuple[int, float]]], depth: int, with_syn: bool) -> list[Found]:
        """The best entry of each chunk. Looks deeper until `depth` chunks are found or nothing is left."""
        limit = depth * self._crowd
        while True:
            found = search(limit)
            rows = self._store.entries[[number for number, _ in found]]
            best: dict[int, Found] = {}
            for (number, score), parent, kind in zip(found, rows["parent"].tolist(), rows["kind"].tolist(), strict=True):
                if parent not in best and (with_syn or kind != SYN):
                    best[parent] = Found(parent, score, number, KINDS[kind], self._store)
            if len(best) >= depth or len(found) < limit or limit >= len(self._store.entries):
                return list(best.values())[:depth]
            limit *= 4


@lru_cache(maxsize=4)
def open_index(folder: Path) -> Index:
    """Open a published version and keep it open for the next call. Raises as `load_index`."""
    return load_index(folder)


def load_index(folder: Path) -> Index:
    """Open a version after checking every file against its manifest.

    Raises Unavailable("ask.index_missing" / "ask.index_damaged") and UserError("ask.index_other_format").
    """
    manifest = read_manifest(folder)
    if (manifest.get("format"), manifest.get("tokeniser")) != (FORMAT, TOKENISER):
        raise UserError("ask.index_other_format", found=f"{manifest.get('format')}/{manifest.get('tokeniser')}", path=folder)
    check_files(folder, manifest)
    return Index(folder, manifest)


#: the name it had while there was one channel
LexicalIndex = Index
