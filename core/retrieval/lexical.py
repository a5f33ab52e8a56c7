"""The lexical channel: tantivy over the two views of our own tokens, scored by BM25 and summed (docs/benchmarks_retrieval.md).

One tantivy document per entry, originals and pseudo-questions together. Its segment files never change once written, so a new
version is made by hard links to the old ones; only what says which segments count is copied. Called by core.retrieval.index.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tantivy

from core.retrieval.tokens import both_views, without_question_words

#: Changes whenever tokens would differ for the same text: an index built by other tokens is refused.
TOKENISER = "pairs+singles-1"
#: Weight of the single-character view beside the pairs, chosen on the training pairs of two Chinese sets.
SINGLES_WEIGHT = 1.5
WRITER_MEMORY = 96_000_000
#: how many deletions go into one query
BATCH = 1000
#: files of tantivy's that are replaced, not only added
COPIED = ("meta.json", ".managed.json")


class Lexical:
    """The channel of one version, opened. Safe between threads."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError when `folder` holds no readable index."""
        self._schema = _schema()
        self._searcher = tantivy.Index(self._schema, str(folder)).searcher()
        # until segments are merged, tantivy's counts of a token include what was deleted, and so does its BM25
        self._num_counted = sum(int(s["max_doc"]) for s in json.loads((folder / "meta.json").read_text())["segments"])

    def __len__(self) -> int:
        return int(self._searcher.num_docs)

    def weight(self, token: str) -> float:
        """Inverse document frequency of a token among the entries (BM25's)."""
        return self.idf("singles" if len(token) == 1 else "pairs", token)  # inside a document a lone character usually stands in a run

    def idf(self, view: str, token: str) -> float:
        """The same in the view "pairs" or "singles"."""
        frequency = min(self._searcher.doc_freq(view, token), self._num_counted)
        return math.log(1 + (self._num_counted - frequency + 0.5) / (frequency + 0.5))

    def similar(self, token: str, distance: int = 1) -> list[tuple[str, int]]:
        """Words of the index that may be `token` with at most `distance` letters wrong, with the number of entries that hold them.

        They share the first letter, nearly the length and nearly all letters; the caller measures the distance itself.
        """
        letters = Counter(token)
        return [
            (word, times)
            for word, times in self._searcher.terms_with_prefix("pairs", token[:1])
            if abs(len(word) - len(token)) <= distance and (letters - Counter(word)).total() <= distance
        ]

    def search(self, text: str, limit: int) -> list[tuple[int, float]]:
        """Entry numbers with their scores, best first. Empty for a text without a searchable token."""
        pairs, singles = both_views(without_question_words(text))
        clauses = []
        for field, tokens, weight in (("pairs", pairs, 1.0), ("singles", singles, SINGLES_WEIGHT)):
            for token, times in Counter(tokens).items():
                query = tantivy.Query.term_query(self._schema, field, token, "freq")
                clauses.append((tantivy.Occur.Should, tantivy.Query.boost_query(query, weight * times)))
        if not clauses:
            return []
        found = self._searcher.search(tantivy.Query.boolean_query(clauses), limit, count=False).hits
        entries = self._searcher.fast_field_values("entry", [address for _, address in found])
        return [(int(entry or 0), float(score)) for entry, (score, _) in zip(entries, found, strict=True)]


class LexicalWriter:
    """Adds and removes entries in `folder` (empty, or prepared by `link`); `finish` makes it complete."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._schema = _schema()
        self._writer = tantivy.Index(self._schema, str(folder)).writer(heap_size=WRITER_MEMORY, num_threads=1)
        self._folder = folder

    def add(self, entry: int, text: str) -> None:
        pairs, singles = both_views(text)
        self._writer.add_document(tantivy.Document(pairs=" ".join(pairs), singles=" ".join(singles), entry=entry))

    def remove(self, entries: Sequence[int]) -> None:
        for start in range(0, len(entries), BATCH):
            query = tantivy.Query.term_set_query(self._schema, "entry", list(entries[start : start + BATCH]))
            self._writer.delete_documents_by_query(query)

    def finish(self) -> None:
        """Commit, let merges end, and drop files that no longer count."""
        self._writer.commit()
        self._writer.garbage_collect_files()
        self._writer.wait_merging_threads()
        for lock in self._folder.glob("*.lock"):
            lock.unlink()


def link(source: Path, target: Path) -> None:
    """Begin a channel in `target` with what `source` holds, without copying its segments."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix == ".lock" or path.name in (".tantivy-writer.lock", ".tantivy-meta.lock"):
            continue
        link_or_copy(path, target / path.name, must_copy=path.name in COPIED)


def link_or_copy(source: Path, target: Path, *, must_copy: bool = False) -> None:
    """A hard link where the file system has them; a copy where not, or where the file may be rewritten in place."""
    if not must_copy:
        try:
            os.link(source, target)
            return
        except OSError:  # no hard links here, or too many of them: copying is as good, only slower
            target.unlink(missing_ok=True)
    shutil.copy2(source, target)


def _schema() -> tantivy.Schema:
    builder: Any = tantivy.SchemaBuilder()
    builder.add_text_field("pairs", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("singles", tokenizer_name="whitespace", index_option="freq")
    builder.add_integer_field("entry", indexed=True, fast=True)
    built: tantivy.Schema = builder.build()
    return built
