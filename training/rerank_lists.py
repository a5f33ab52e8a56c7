"""The lists a reranker learns from and is measured on: what the present search puts first for a question, best chunk per passage.

Long passages are cut as the index job cuts documents, because chunks are what a reranker will see. Lists are kept in the run
folder, so that a resumed run and its measurements use the same ones. Called by training.reranker.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from core.retrieval.chunk import Document, chunk_document
from core.retrieval.entries import searchable
from core.retrieval.index import Index, build_index, load_index
from core.retrieval.metrics import METRICS
from core.retrieval.rerankers import Reranker, reranked
from training.embedding_measure import PerQuery
from training.retrieval_pairs import Judged
from training.run import Run, write_json

#: chunks looked at for each candidate wanted, because several chunks may belong to one passage
CHUNKS_PER_CANDIDATE = 3
STRIDE = 50


@dataclass(frozen=True, slots=True)
class Listed:
    """A question, its candidates in the order of the search (ids and the chunk that was found), and all its judgements."""

    query: str
    ids: list[str]
    texts: list[str]
    grades: dict[str, float]

    @property
    def labels(self) -> np.ndarray:
        """The grade of each candidate; 0 for the wrong and the unjudged."""
        return np.array([max(0.0, self.grades.get(i, 0.0)) for i in self.ids], dtype=np.float32)

    @property
    def has_answer(self) -> bool:
        return bool(self.labels.any())


def chunk_index(passages: Mapping[str, str], folder: Path) -> Index:
    """A lexical index over the chunks of the passages (a chunk's file is the passage's id); built once per folder."""
    if not (folder / "manifest.json").is_file():
        build_index((chunk for i, text in passages.items() for chunk in chunk_document(Document(i, "", text))), folder)
    return load_index(folder)


def lists_of(run: Run, name: str, asked: Sequence[Judged], index: Index, depth: int) -> list[Listed]:
    """The list of each question; questions that find nothing are left out of training but not of `name` "held_out"."""
    kept = run.dir / f"lists-{name}.jsonl"
    if not kept.is_file():
        found = []
        for done, one in enumerate(asked):
            if done % STRIDE == 0:
                run.progress(f"search {name}", done, len(asked))
                run.leave_if_stopped()
            found.append(candidates(one.query, one.grades, index, depth))
        scratch = kept.with_suffix(".tmp")
        scratch.write_text("\n".join(json.dumps(asdict(one), ensure_ascii=False) for one in found), encoding="utf-8")
        scratch.replace(kept)
    return [Listed(**json.loads(line)) for line in kept.read_text(encoding="utf-8").splitlines()]


def candidates(query: str, grades: dict[str, float], index: Index, depth: int) -> Listed:
    """The first `depth` passages of the lexical search, each by its best chunk."""
    best: dict[str, str] = {}
    for found in index.lexical(query, depth * CHUNKS_PER_CANDIDATE):
        chunk = index.chunk(found.parent)
        best.setdefault(chunk.file, searchable(chunk))
        if len(best) == depth:
            break
    return Listed(query, list(best), list(best.values()), grades)


def measure_order(lists: Sequence[Listed], orders: Sequence[Sequence[int]]) -> PerQuery:
    """All of METRICS for each list in the given order."""
    rankings = [[one.ids[i] for i in order] for one, order in zip(lists, orders, strict=True)]
    return {name: [metric(found, one.grades) for found, one in zip(rankings, lists, strict=True)] for name, metric in METRICS.items()}


def measure_reranker(run: Run, lists: Sequence[Listed], reranker: Reranker) -> tuple[PerQuery, dict[str, float]]:
    """Metrics of the reranked lists, and milliseconds per question (median and 95th percentile) in this process."""
    orders, times = [], []
    for done, one in enumerate(lists):
        if done % STRIDE == 0:
            run.progress("measure", done, len(lists))
        started = time.perf_counter()
        orders.append(reranked(reranker.score(one.query, one.texts)))
        times.append((time.perf_counter() - started) * 1000)
    return measure_order(lists, orders), {"p50_ms": float(np.percentile(times, 50)), "p95_ms": float(np.percentile(times, 95))}


def keep_per_query(run: Run, name: str, values: PerQuery) -> None:
    """Write the metrics of every question beside the run's other files."""
    write_json(run.dir / f"{name}.json", values)
