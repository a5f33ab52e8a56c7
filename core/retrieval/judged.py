"""A judged set: questions with the documents that answer them, read from a folder in BEIR form. Pure but for reading files.

    corpus.jsonl[.gz]    {"_id", "title", "text"}
    queries.jsonl[.gz]   {"_id", "text"}
    qrels.tsv            query-id, corpus-id, score (a heading line; also as qrels/test.tsv); above 0 is relevant
    pseudo_docs.jsonl    optional: {"_id", "text"}, what a model wrote about each query (Query2Doc), made beforehand
    thresholds.json      optional: {"recall@10": 0.3, ...}, what this set must reach
    train_pairs.jsonl[.gz]   optional: {"query", "pos"}: other questions with a known answer

Judgements name documents; `unit` "section" names a part of one as "file#section". Called by training.evaluate_retrieval.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.errors import UserError
from core.retrieval.chunk import Chunk, Document
from core.retrieval.metrics import METRICS

Unit = Literal["document", "section"]


@dataclass(frozen=True, slots=True)
class Question:
    """One judged question. `qrels`: document (or "file#section") -> grade, above 0 is relevant."""

    id: str
    text: str
    qrels: Mapping[str, float]
    pseudo_doc: str = ""

    @property
    def relevant(self) -> set[str]:
        return {key for key, grade in self.qrels.items() if grade > 0}


@dataclass(frozen=True, slots=True)
class JudgedSet:
    """Questions with at least one relevant document. `thresholds`: metric -> value, brought by the set itself."""

    name: str
    questions: tuple[Question, ...]
    unit: Unit = "document"
    thresholds: Mapping[str, float] = field(default_factory=dict)


def key_of(chunk: Chunk, unit: Unit) -> str:
    """What judgements call the place of a chunk."""
    return f"{chunk.file}#{chunk.section}" if unit == "section" and chunk.section else chunk.file


def read_beir(folder: Path, *, min_grade: float = 1, limit: int = 0) -> JudgedSet:
    """The set in `folder`; grades below `min_grade` count as not relevant. `limit` > 0 keeps the first so many questions.

    Raises UserError("retrieval.no_beir" / "retrieval.bad_line" / "retrieval.nothing_judged" / "retrieval.bad_threshold").
    """
    texts = {str(row["_id"]): str(row["text"]) for row in _rows(folder, "queries", ("_id", "text"))}
    pseudo = {str(row["_id"]): str(row["text"]) for row in _rows(folder, "pseudo_docs", ("_id", "text"), is_needed=False)}
    qrels: dict[str, dict[str, float]] = {}
    path = next((p for p in (folder / "qrels.tsv", folder / "qrels" / "test.tsv") if p.is_file()), None)
    if path is None:
        raise UserError("retrieval.no_beir", path=folder, file="qrels.tsv")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        cells = line.split("\t")
        try:
            query, document, grade = cells[0], cells[-2], float(cells[-1])  # trec's four columns have an unused second one
        except (IndexError, ValueError) as error:
            if number == 1 or not line.strip():
                continue
            raise UserError("retrieval.bad_line", file=path.name, line=number) from error
        qrels.setdefault(query, {})[document] = grade if grade >= min_grade else 0.0
    questions = [
        Question(i, text, qrels[i], pseudo.get(i, "")) for i, text in texts.items() if any(g > 0 for g in qrels.get(i, {}).values())
    ]
    if not questions:
        raise UserError("retrieval.nothing_judged", name=folder.name)
    return JudgedSet(folder.name, tuple(questions[: limit or None]), "document", _thresholds(folder))


def read_corpus(folder: Path) -> Iterator[Document]:
    """The documents of a BEIR folder, in order."""
    for row in _rows(folder, "corpus", ("_id", "text")):
        yield Document(str(row["_id"]), str(row.get("title") or ""), str(row["text"]))


def read_train_questions(folder: Path) -> dict[str, list[str]]:
    """Document -> questions with a grade above 0 that are known to be answered by it, from train_pairs; never a test question."""
    test = {str(row["text"]) for row in _rows(folder, "queries", ("_id", "text"))}
    found: dict[str, list[str]] = {}
    for row in _rows(folder, "train_pairs", ("query", "pos"), is_needed=False):
        if float(row.get("grade", 1)) > 0 and row["query"] not in test:
            found.setdefault(str(row["pos"]), []).append(str(row["query"]))
    return {document: list(dict.fromkeys(questions)) for document, questions in found.items()}


def _thresholds(folder: Path) -> dict[str, float]:
    path = folder / "thresholds.json"
    if not path.is_file():
        return {}
    try:
        found = {str(name): float(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError("retrieval.bad_threshold", file=path.name, known=", ".join(METRICS)) from error
    if not set(found) <= set(METRICS) or not all(0 < value <= 1 for value in found.values()):
        raise UserError("retrieval.bad_threshold", file=path.name, known=", ".join(METRICS))
    return found


def _rows(folder: Path, name: str, fields: tuple[str, ...], *, is_needed: bool = True) -> Iterator[dict[str, Any]]:
    path = next((p for p in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz") if p.is_file()), None)
    if path is None:
        if is_needed:
            raise UserError("retrieval.no_beir", path=folder, file=f"{name}.jsonl")
        return
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                missing = [field for field in fields if field not in row]
            except (ValueError, TypeError) as error:
                raise UserError("retrieval.bad_line", file=path.name, line=number) from error
            if missing:
                raise UserError("retrieval.bad_line", file=path.name, line=number)
            yield row
