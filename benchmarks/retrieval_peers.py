"""100,000 chunks indexed, updated and searched by us, LlamaIndex and Haystack: the same chunks, vectors, questions and process limits.

    python -m venv peers && peers/bin/pip install llama-index-core==0.14.25 llama-index-retrievers-bm25 llama-index-vector-stores-faiss \
        haystack-ai==3.4.1 faiss-cpu==1.15.1 tantivy==0.27.0 psutil
    export PYTHONPATH=. OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
    peers/bin/python benchmarks/retrieval_peers.py prepare --work DIR [--data ../shared/data]
    peers/bin/python benchmarks/retrieval_peers.py run --work DIR --repeats 3
    peers/bin/python benchmarks/retrieval_peers.py million --work DIR

Chunks of at most 300 characters of three public sets (English and Chinese). Vectors come from a hashing encoder, are computed once
and given to all, so that encoding does not decide. Every engine runs in a process of its own, one thread, engines in turn within
each repeat: both channels made searchable and saved, 1,000 chunks added, questions answered by both channels and RRF. What each
does is what its own documentation shows; LlamaIndex gets a token pattern that cuts Chinese into characters, because its own finds
next to nothing there. Results: docs/benchmarks_retrieval.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from core.retrieval.chunk import Chunk, Document, as_row, chunk_document
from core.retrieval.entries import searchable
from core.retrieval.fuse import rrf
from core.retrieval.index import build_index, load_index, update_index
from core.retrieval.tokens import tokenise

NUM_NEW, DIMENSION, DEPTH, TOP_K = 1_000, 256, 30, 10
#: questions per set; Haystack scores every document in Python, so it answers the first SLOW of each set
NUM_QUESTIONS, SLOW = 100, 4
SETS = ("zhmedqa", "cmedir", "medquad-qa")
ENGINES = ("ours", "llama_index", "haystack")
Search = Callable[[str, np.ndarray], list[str]]


class HashEncoder:
    """Sum of a random vector per token, its sign and direction from the token's hash: cheap, and the same everywhere."""

    name, hash, dimension = "hashing", "1", DIMENSION

    def __init__(self) -> None:
        self._table = np.random.default_rng(0).standard_normal((1 << 16, DIMENSION)).astype(np.float32)

    def encode(self, texts: Sequence[str], *, is_query: bool = False) -> np.ndarray:
        rows = np.zeros((len(texts), DIMENSION), np.float32)
        for row, text in zip(rows, texts, strict=True):
            numbers = [zlib.crc32(token.encode()) & 0xFFFF for token in tokenise(text)]
            if numbers:
                row[:] = self._table[numbers].sum(0)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


class Given:
    """The vectors computed beforehand, by text."""

    name, hash, dimension = HashEncoder.name, HashEncoder.hash, DIMENSION

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self._vectors = vectors

    def encode(self, texts: Sequence[str], *, is_query: bool = False) -> np.ndarray:
        return np.stack([self._vectors[text] for text in texts])


# --- the set --------------------------------------------------------------------------------------------------------------


def prepare(work: Path, data: Path, num_chunks: int) -> None:
    """Chunks (the last NUM_NEW are the update), questions with their relevant documents, and the vectors of both."""
    work.mkdir(parents=True, exist_ok=True)
    documents: list[Document] = []
    for name in SETS:
        with gzip.open(data / name / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
            documents += [Document(f"{name}/{row['_id']}", row["title"], row["text"]) for row in map(json.loads, lines)]
    random.Random(0).shuffle(documents)
    chunks: list[dict[str, Any]] = []
    for document in documents:
        chunks += [as_row(c) for c in chunk_document(document, 300, 0, unit="character")]
        if len(chunks) >= num_chunks + NUM_NEW:
            break
    chunks = chunks[: num_chunks + NUM_NEW]
    if len(chunks) < num_chunks + NUM_NEW:
        raise SystemExit(f"only {len(chunks)} chunks in {data}")
    there = {chunk["file"] for chunk in chunks[:num_chunks]}
    questions: list[dict[str, Any]] = []
    for name in SETS:
        texts = {r["_id"]: r["text"] for r in map(json.loads, (data / name / "queries.jsonl").read_text(encoding="utf-8").splitlines())}
        relevant: dict[str, set[str]] = {}
        for line in (data / name / "qrels.tsv").read_text().splitlines()[1:]:
            query, document_id, grade = line.split("\t")
            if float(grade) > 0 and f"{name}/{document_id}" in there:
                relevant.setdefault(query, set()).add(f"{name}/{document_id}")
        chosen = [q for q in texts if q in relevant][:NUM_QUESTIONS]
        questions += [{"set": name, "text": texts[q], "relevant": sorted(relevant[q])} for q in chosen]
    encoder = HashEncoder()
    np.save(work / "chunks.npy", encoder.encode([searchable(Chunk(**c)) for c in chunks]))
    np.save(work / "questions.npy", encoder.encode([q["text"] for q in questions]))
    (work / "chunks.json").write_text(json.dumps(chunks, ensure_ascii=False), encoding="utf-8")
    (work / "questions.json").write_text(json.dumps(questions, ensure_ascii=False), encoding="utf-8")
    print(f"{len(chunks)} chunks of {len({c['file'] for c in chunks})} documents, {len(questions)} questions")


def read(work: Path) -> tuple[list[Chunk], np.ndarray, list[dict[str, Any]], np.ndarray]:
    chunks = [Chunk(**c) for c in json.loads((work / "chunks.json").read_text(encoding="utf-8"))]
    questions = json.loads((work / "questions.json").read_text(encoding="utf-8"))
    return chunks, np.load(work / "chunks.npy"), questions, np.load(work / "questions.npy")


# --- the engines: each gives (build, save, update, search) ------------------------------------------------------------------


def ours(work: Path, chunks: list[Chunk], vectors: np.ndarray) -> tuple[Callable[[], object], ...]:
    given = Given(dict(zip(map(searchable, chunks), vectors, strict=True)))
    first, second = work / "ours-1", work / "ours-2"
    state: dict[str, Any] = {}

    def build() -> None:  # saved and checksummed on the way; there is no other
        build_index(chunks[:-NUM_NEW], first, encoder=given)
        state["index"] = load_index(first)

    def update() -> None:
        update_index(state["index"], second, chunks=chunks[-NUM_NEW:], encoder=given)
        state["index"] = load_index(second)

    def search(text: str, vector: np.ndarray) -> list[str]:
        index = state["index"]
        lists = [[f.parent for f in index.lexical(text, DEPTH)], [f.parent for f in index.dense(vector, DEPTH)]]
        return [index.chunk(parent).file for parent, _ in rrf(lists)[:DEPTH]]

    return build, lambda: None, update, search


def llama_index(work: Path, chunks: list[Chunk], vectors: np.ndarray) -> tuple[Callable[[], object], ...]:
    import faiss
    from llama_index.core import StorageContext, VectorStoreIndex
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.llms import MockLLM
    from llama_index.core.retrievers import QueryFusionRetriever
    from llama_index.core.schema import TextNode
    from llama_index.retrievers.bm25 import BM25Retriever
    from llama_index.vector_stores.faiss import FaissVectorStore

    asked: dict[str, list[float]] = {}

    class Computed(BaseEmbedding):  # the vectors are there already
        def _get_query_embedding(self, query: str) -> list[float]:
            return asked[query]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return asked[query]

        def _get_text_embedding(self, text: str) -> list[float]:
            raise AssertionError("every node carries its vector")

    state: dict[str, Any] = {}
    pattern = r"(?u)[\u3400-\u9fff]|[^\W\u3400-\u9fff]{2,}"

    def nodes_of(some: range) -> list[Any]:
        return [TextNode(id_=str(i), text=searchable(chunks[i]), metadata={}, embedding=vectors[i].tolist()) for i in some]

    def fuse() -> None:
        lexical = BM25Retriever.from_defaults(nodes=state["nodes"], similarity_top_k=DEPTH, token_pattern=pattern)
        dense = state["index"].as_retriever(similarity_top_k=DEPTH)
        state["bm25"] = lexical
        state["search"] = QueryFusionRetriever(
            [dense, lexical], llm=MockLLM(), similarity_top_k=DEPTH, num_queries=1, mode="reciprocal_rerank", use_async=False
        )

    def build() -> None:
        state["nodes"] = nodes_of(range(len(chunks) - NUM_NEW))
        store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(DIMENSION))
        context = StorageContext.from_defaults(vector_store=store)
        state["index"] = VectorStoreIndex(state["nodes"], storage_context=context, embed_model=Computed(model_name="given"))
        fuse()

    def save() -> None:
        state["index"].storage_context.persist(str(work / "llama"))
        state["bm25"].persist(str(work / "llama-bm25"))

    def update() -> None:
        fresh = nodes_of(range(len(chunks) - NUM_NEW, len(chunks)))
        state["index"].insert_nodes(fresh)
        state["nodes"] += fresh
        fuse()  # its BM25 cannot be added to

    def search(text: str, vector: np.ndarray) -> list[str]:
        asked[text] = vector.tolist()
        return [chunks[int(found.node.node_id)].file for found in state["search"].retrieve(text)]

    return build, save, update, search


def haystack(work: Path, chunks: list[Chunk], vectors: np.ndarray) -> tuple[Callable[[], object], ...]:
    from haystack import Document as HaystackDocument
    from haystack import Pipeline
    from haystack.components.joiners import DocumentJoiner
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore(embedding_similarity_function="dot_product")
    pipeline = Pipeline()
    pipeline.add_component("bm25", InMemoryBM25Retriever(document_store=store, top_k=DEPTH))
    pipeline.add_component("dense", InMemoryEmbeddingRetriever(document_store=store, top_k=DEPTH))
    pipeline.add_component("join", DocumentJoiner(join_mode="reciprocal_rank_fusion", top_k=DEPTH))
    pipeline.connect("bm25", "join")
    pipeline.connect("dense", "join")

    def write(some: range) -> None:
        rows = [
            HaystackDocument(id=str(i), content=searchable(chunks[i]), meta={"file": chunks[i].file}, embedding=vectors[i].tolist())
            for i in some
        ]
        store.write_documents(rows)

    def search(text: str, vector: np.ndarray) -> list[str]:
        found = pipeline.run({"bm25": {"query": text}, "dense": {"query_embedding": vector.tolist()}})
        return [document.meta["file"] for document in found["join"]["documents"]]

    return (
        lambda: write(range(len(chunks) - NUM_NEW)),
        lambda: store.save_to_disk(str(work / "haystack.json")),
        lambda: write(range(len(chunks) - NUM_NEW, len(chunks))),
        search,
    )


# --- measuring ------------------------------------------------------------------------------------------------------------


def measure(name: str, work: Path) -> dict[str, Any]:
    """One engine in this process."""
    chunks, vectors, questions, asked = read(work)
    before = memory()
    build, save, update, search = {"ours": ours, "llama_index": llama_index, "haystack": haystack}[name](work, chunks, vectors)
    row: dict[str, Any] = {"engine": name}
    for step, body in (("build", build), ("save", save), ("update", update)):
        row |= {f"{step}_{kind}": value for kind, value in timed(body)[1].items()}
    numbers = range(len(questions))
    if name == "haystack":
        numbers = [i for i in numbers if i % NUM_QUESTIONS < SLOW]
    walls, found = [], {}
    started = time.process_time()
    for i in numbers:
        begun = time.perf_counter()
        found[i] = search(questions[i]["text"], asked[i])
        walls.append((time.perf_counter() - begun) * 1000)
    row["search_cpu_ms"] = (time.process_time() - started) * 1000 / len(walls)
    row["p50_ms"], row["p95_ms"] = np.percentile(walls, [50, 95]).tolist()
    row["memory_mb"] = memory() - before
    row["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for label, limit in (("recall", NUM_QUESTIONS), ("recall_slow", SLOW)):
        for one in SETS:
            some = [i for i in found if questions[i]["set"] == one and i % NUM_QUESTIONS < limit]
            if some:
                row[f"{label}_{one}"] = statistics.mean(recall(found[i], questions[i]["relevant"]) for i in some)
    return row


def timed(body: Callable[[], object]) -> tuple[object, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    value = body()
    return value, {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def recall(files: Sequence[str], relevant: Sequence[str]) -> float:
    return len(set(list(dict.fromkeys(files))[:TOP_K]) & set(relevant)) / len(relevant)


def memory() -> float:
    """Resident megabytes of this process."""
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20


def run(work: Path, repeats: int, engines: Sequence[str]) -> None:
    """Every engine in a fresh process, in turn, `repeats` times; medians, spread and ratios to ours."""
    rows: list[dict[str, Any]] = []
    for number in range(repeats):
        for name in engines[number % len(engines) :] + engines[: number % len(engines)]:
            command = [sys.executable, __file__, "engine", "--work", str(work), "--name", name]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode:
                raise SystemExit(ended.stderr[-3000:])
            rows.append(json.loads(ended.stdout.splitlines()[-1]))
            print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}), flush=True)
    with (work / "results.jsonl").open("a") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)
    summarise(work)


def summarise(work: Path) -> None:
    """Medians [lowest, highest] of everything in results.jsonl, and how many times ours each is."""
    rows = [json.loads(line) for line in (work / "results.jsonl").read_text().splitlines()]
    by_engine = {name: [row for row in rows if row["engine"] == name] for name in ENGINES}
    keys = [key for key in rows[0] if key != "engine"]
    print("\n| | " + " | ".join(f"{name} (n={len(by_engine[name])})" for name in ENGINES) + " |\n|---" * 1 + "|---" * len(ENGINES) + "|")
    for key in keys:
        base = statistics.median(row[key] for row in by_engine["ours"])
        cells = []
        for name in ENGINES:
            values = [row[key] for row in by_engine[name]]
            middle = statistics.median(values) if values else float("nan")
            ratio = f", x{middle / base:.1f}" if base and name != "ours" and "recall" not in key else ""
            cells.append(f"{middle:.3g} [{min(values):.3g}, {max(values):.3g}]{ratio}" if values else "-")
        print(f"| {key} | " + " | ".join(cells) + " |")


def million(work: Path) -> None:
    """A whole index of a million entries: the chunks, and nine windows of each as further entries; vectors computed, not given."""
    chunks, _, questions, asked = read(work)
    chunks = chunks[:-NUM_NEW]
    windows = {i: [c.text[j : j + 90] for j in range(0, 9 * 24, 24)] for i, c in enumerate(chunks)}
    windows = {i: [w if w.strip() else chunks[i].title for w in some] for i, some in windows.items()}
    folder = work / "million"
    encoder = HashEncoder()
    manifest, built = timed(lambda: build_index(chunks, folder, questions=windows, encoder=encoder))
    index, opened = timed(lambda: load_index(folder))
    walls = []
    for question, vector in zip(questions, asked, strict=True):
        begun = time.perf_counter()
        lists = [[f.parent for f in index.lexical(question["text"], DEPTH)], [f.parent for f in index.dense(vector, DEPTH)]]
        rrf(lists)
        walls.append((time.perf_counter() - begun) * 1000)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 2**20
    p50, p95 = np.percentile(walls, [50, 95])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{manifest['num_entries']} entries, {manifest['dense']}, {size:.0f} MB on disk; build {built}; open {opened}")
    print(f"search p50 {p50:.1f} ms, p95 {p95:.1f} ms; peak {peak:.0f} MB, now {memory():.0f} MB")


@lru_cache(maxsize=1)
def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=["prepare", "run", "engine", "summarise", "million"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", choices=ENGINES)
    parser.add_argument("--engines", nargs="*", default=list(ENGINES))
    return parser.parse_args()


if __name__ == "__main__":
    given = arguments()
    match given.action:
        case "prepare":
            prepare(given.work, given.data, given.chunks)
        case "run":
            run(given.work, given.repeats, given.engines)
        case "summarise":
            summarise(given.work)
        case "million":
            million(given.work)
        case "engine":
            print(json.dumps(measure(given.name, given.work)))
