"""Which search legs pay: BM25 over character pairs, over single characters, their sum (what is shipped), LSA, and RRF with LSA.

    python benchmarks/retrieval.py [--data ../shared/data] [--sets cmedir zhmedqa medquad-qa] [--demo]

Real public sets in BEIR form; one row per system with recall, MRR and nDCG on the test queries, the paired bootstrap interval
of the shipped system's gain over plain pairs, and the latency of the shipped index. `--demo` measures the demo guidelines:
which prompts find their guideline, and how often "unknown" is right. Results: docs/benchmarks_retrieval.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tantivy

from core.demo_world import load_world, prompts
from core.retrieval.chunk import Document, chunk_document
from core.retrieval.documents import read_folder
from core.retrieval.fuse import rrf
from core.retrieval.index import LexicalIndex, build_index, load_index
from core.retrieval.metrics import METRICS, mean, ndcg_at
from core.retrieval.support import THRESHOLD, support
from core.retrieval.tokens import query_tokens, tokenise
from core.settings import ROOT

Queries = list[tuple[str, dict[str, float]]]
Ranking = list[str]
LSA_SIZE, LSA_WORDS, DEPTH = 256, 60_000, 50


def read_set(folder: Path) -> tuple[list[Document], Queries, Queries]:
    """Documents, test queries with their judgements, and 500 of the training pairs as queries."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        documents = [Document(row["_id"], row["title"], row["text"]) for row in map(json.loads, lines)]
    qrels: dict[str, dict[str, float]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query_id, document_id, grade = line.split("\t")
        qrels.setdefault(query_id, {})[document_id] = float(grade)
    texts = {row["_id"]: row["text"] for row in map(json.loads, (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines())}
    pairs: dict[str, dict[str, float]] = {}
    with gzip.open(folder / "train_pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row.get("grade", 1) > 0:
                pairs.setdefault(row["query"], {})[row["pos"]] = row.get("grade", 1)
    train = sorted(pairs.items())
    random.Random(0).shuffle(train)
    return documents, [(texts[i], qrels[i]) for i in texts if i in qrels], train[:500]


def build(documents: Sequence[Document], folder: Path) -> LexicalIndex:
    started = time.perf_counter()
    build_index((c for d in documents for c in chunk_document(d)), folder)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    index = load_index(folder)
    print(f"{len(documents)} documents, {len(index)} chunks, built in {time.perf_counter() - started:.1f} s, {size / 2**20:.0f} MB")
    return index


def ranked_files(index: LexicalIndex, hits: Sequence[tuple[int, float]]) -> Ranking:
    """Documents in the order of their best chunk."""
    return list(dict.fromkeys(index.chunk(number).file for number, _ in hits))


def one_view(index: LexicalIndex, view: str) -> Callable[[str], Ranking]:
    """BM25 over one of the two fields alone."""
    from core.retrieval.tokens import singles, without_question_words

    channel = index._lexical
    split = tokenise if view == "pairs" else singles

    def search(question: str) -> Ranking:
        clauses = [
            (tantivy.Occur.Should, tantivy.Query.term_query(channel._schema, view, t, "freq"))
            for t in split(without_question_words(question))
        ]
        if not clauses:
            return []
        found = channel._searcher.search(tantivy.Query.boolean_query(clauses), DEPTH).hits
        entries = channel._searcher.fast_field_values("entry", [address for _, address in found])
        return ranked_files(index, [(index.entry(int(e)).parent, s) for e, (s, _) in zip(entries, found, strict=True)])

    return search


class Lsa:
    """TF-IDF, truncated SVD (seeded), cosine by FAISS: the dense leg that needs no trained weights."""

    def __init__(self, texts: Sequence[str]) -> None:
        import faiss
        from scipy.sparse.linalg import svds

        tokens = [tokenise(text) for text in texts]
        frequency = Counter(t for row in tokens for t in set(row))
        known = [t for t, n in frequency.most_common() if 3 <= n <= 0.3 * len(texts)][:LSA_WORDS]
        self.column = {t: i for i, t in enumerate(known)}
        self.idf = np.log((len(texts) + 1) / (np.array([frequency[t] for t in known]) + 1)).astype(np.float32)
        matrix = self.matrix(tokens)
        start = np.random.default_rng(0).standard_normal(min(matrix.shape)).astype(np.float32)
        self.projection = svds(matrix, k=LSA_SIZE, v0=start)[2].T.astype(np.float32)
        self.index = faiss.IndexFlatIP(LSA_SIZE)
        self.index.add(self.vectors(matrix))

    def matrix(self, tokens: Sequence[Sequence[str]]) -> object:
        from scipy import sparse

        rows, columns, values = [], [], []
        for row, words in enumerate(tokens):
            counts = Counter(self.column[w] for w in words if w in self.column)
            weights = (1 + np.log(list(counts.values()) or [1])) * self.idf[list(counts)] if counts else np.zeros(0)
            norm = np.linalg.norm(weights) or 1.0
            rows += [row] * len(counts)
            columns += list(counts)
            values += list(weights / norm)
        return sparse.csr_matrix((np.array(values, np.float32), (rows, columns)), shape=(len(tokens), len(self.column)))

    def vectors(self, matrix: object) -> np.ndarray:
        found = np.asarray(matrix @ self.projection, np.float32)  # type: ignore[operator]
        return found / (np.linalg.norm(found, axis=1, keepdims=True) + 1e-9)

    def search(self, questions: Sequence[str]) -> list[list[int]]:
        return self.index.search(self.vectors(self.matrix([query_tokens(q) for q in questions])), DEPTH)[1].tolist()


def row(name: str, rankings: Sequence[Ranking], queries: Queries) -> str:
    values = [mean(metric(r, q) for r, (_, q) in zip(rankings, queries, strict=True))[0] or 0.0 for metric in METRICS.values()]
    return f"| {name} | " + " | ".join(f"{v:.3f}" for v in values) + " |"


def gain(better: Sequence[Ranking], plain: Sequence[Ranking], queries: Queries) -> str:
    """Mean gain in nDCG@10 with its 95 % paired bootstrap interval (2,000 draws, seed 0)."""
    pairs = [(ndcg_at(a, q), ndcg_at(b, q)) for a, b, (_, q) in zip(better, plain, queries, strict=True)]
    differences = np.array([a - b for a, b in pairs if a is not None and b is not None])
    draws = np.random.default_rng(0).choice(differences, (2000, len(differences))).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}], n = {len(differences)}"


def latency(index: LexicalIndex, questions: Sequence[str]) -> str:
    """Whole searches (tokens, BM25, fusion, reading five chunks), one thread."""
    times = []
    for question in questions:
        started = time.perf_counter()
        index.search({"question": question})
        times.append((time.perf_counter() - started) * 1000)
    two = []
    for question in questions[:300]:
        started = time.perf_counter()
        index.search({"question": question, "pseudo_doc": f"{question} " * 5 + questions[0] * 3})
        two.append((time.perf_counter() - started) * 1000)
    text = "one wording p50 {:.2f} ms, p95 {:.2f} ms; with a pseudo-document p50 {:.2f} ms, p95 {:.2f} ms"
    return text.format(*np.percentile(times, [50, 95]), *np.percentile(two, [50, 95]))


def measure(folder: Path) -> None:
    documents, test, train = read_set(folder)
    print(f"\n### {folder.name}: {len(test)} test queries")
    with tempfile.TemporaryDirectory() as scratch:
        index = build(documents, Path(scratch) / "index")
        lsa = Lsa([d.text for d in documents])
        print("\n| system | " + " | ".join(METRICS) + " |\n|---|" + "---|" * len(METRICS))
        for name, queries in (("train", train), ("test", test)):
            questions = [q for q, _ in queries]
            plain = [one_view(index, "pairs")(q) for q in questions]
            loose = [one_view(index, "singles")(q) for q in questions]
            both = [ranked_files(index, index.ranking(q)) for q in questions]
            dense = [[documents[i].file for i in found if i >= 0] for found in lsa.search(questions)]
            print(row(f"{name}: pairs", plain, queries))
            print(row(f"{name}: singles", loose, queries))
            print(row(f"{name}: **pairs + 1.5 singles (shipped)**", both, queries))
            print(row(f"{name}: LSA {LSA_SIZE}", dense, queries))
            for weight in (1.0, 0.3, 0.1):
                fused = [[d for d, _ in rrf([a, b], [1, weight])] for a, b in zip(both, dense, strict=True)]
                print(row(f"{name}: RRF shipped + {weight:g} LSA", fused, queries))
        print(f"\nnDCG@10 of the shipped sum over pairs alone: {gain(both, plain, test)}")
        print(f"Latency: {latency(index, [q for q, _ in test])}")


def measure_demo(data: Path) -> None:
    """Does a held-out demo prompt find its guideline, and is support a fair judge of "unknown"?"""
    print("\n### demo guidelines")
    documents = [d for d in read_folder(ROOT / "assets" / "demo" / "guidelines") if isinstance(d, Document)]
    language = {Path(d.file).stem: "zh" if any("一" <= c <= "龥" for c in d.title) else "en" for d in documents}
    with tempfile.TemporaryDirectory() as scratch:
        index = build(documents, Path(scratch) / "index")
        held_out = [p for p in prompts(load_world(), 0) if p.split not in ("train", "dev")]
        mine = [p for p in held_out if language.get(p.meta["condition"]) == p.language.value]
        ranks = []
        for prompt in mine:
            stems = [Path(h.chunk.file).stem for h in index.search({"question": prompt.text}, 5)]
            ranks.append(stems.index(prompt.meta["condition"]) + 1 if prompt.meta["condition"] in stems else 0)
        first, five = np.mean([r == 1 for r in ranks]), np.mean([r > 0 for r in ranks])
        print(f"{len(mine)} prompts: guideline first {first:.3f}, in the first five {five:.3f}")

        def share(questions: Sequence[str]) -> str:
            values = []
            for question in questions:
                values.append(support(question, [h.chunk for h in index.search({"question": question}, 5)], index.weight))
            return f"{np.mean([v >= THRESHOLD for v in values]):.3f} of {len(values)} reach {THRESHOLD} (median {np.median(values):.2f})"

        print(f"support, prompts with a guideline: {share([p.text for p in mine])}")
        for name in ("zhmedqa", "medquad-qa"):
            print(f"support, questions of {name} (mostly other diseases): {share([q for q, _ in read_set(data / name)[1]][:500])}")
        print(f"Latency: {latency(index, [p.text for p in held_out])}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="*", default=["cmedir", "zhmedqa", "medquad-qa"])
    parser.add_argument("--demo", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.sets:
        measure(arguments.data / name)
    if arguments.demo:
        measure_demo(arguments.data)
