"""Does a search engine find what the own index finds? A public set is moved into one, and every query asked in both.

    python benchmarks/retrieval_engines.py --data ../shared/data/cmedir --milvus FILE.db | URL     (needs requirements-scale.txt)
    python benchmarks/retrieval_engines.py --data ../shared/data/cmedir --opensearch URL
    python benchmarks/retrieval_engines.py --data ../shared/data/cmedir --lucene LUCENE_CORE.jar     (needs java; OpenSearch's scorer alone)

Figures stand in docs/scaling.md. With --update a tenth of the documents goes and comes back, as an update would do it. The
vectors are hashed tokens projected at random: they tell whether the engine finds the nearest, not whether near is right.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.retrieval import read_set
from benchmarks.retrieval_peers import HashEncoder
from core.home import open_home
from core.retrieval import engine_moves as moves
from core.retrieval.chunk import Chunk, chunk_document
from core.retrieval.engines.base import VIEWS, Engine
from core.retrieval.engines.bm25 import terms_of
from core.retrieval.engines.remote import remote_of
from core.retrieval.entries import searchable
from core.retrieval.index import Index, build_index, load_index, update_index
from core.settings import load_settings

DEPTH = 10
LUCENE = Path(__file__).with_name("Lucene.java")


def chunks_of(folder: Path) -> list[Chunk]:
    documents, _, _ = read_set(folder)
    return [chunk for document in documents for chunk in chunk_document(document)]


def questions_of(folder: Path, num: int) -> list[str]:
    lines = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines][:num]


def compare(index: Index, engine: Engine, place: moves.Place, questions: Sequence[str]) -> None:
    """Ranks and scores of both legs, and how long each took."""
    remote = remote_of(index, engine, place)
    same, worst, shared, encoder = 0, 0.0, [], HashEncoder()
    times: dict[str, list[float]] = {"own words": [], "engine words": [], "own vector": [], "engine vector": []}

    def timed(name: str, search: object) -> list[tuple[int, float]]:
        began = time.perf_counter()
        found: list[tuple[int, float]] = search()  # type: ignore[operator]
        times[name].append(1000 * (time.perf_counter() - began))
        return found

    for question in questions:
        own = timed("own words", lambda q=question: index.entries_by_words(q, 3 * DEPTH))
        found = timed("engine words", lambda q=question: remote.lexical(q, 3 * DEPTH))
        same += moves.same_ten(own, found)
        pairs = zip(own[:DEPTH], found[:DEPTH], strict=False)
        worst = max([worst, *(abs(a - b) / a for (_, a), (_, b) in pairs)])
        [vector] = encoder.encode([question], is_query=True)
        near = {n for n, _ in timed("own vector", lambda v=vector: index.entries_by_vector(v, DEPTH))}
        shared.append(len(near & {n for n, _ in timed("engine vector", lambda v=vector: remote.dense(v, DEPTH))}) / max(1, len(near)))
    print(f"the same ten by words in {same} of {len(questions)} questions; largest difference of a score {worst:.2g}")
    print(f"shared of the ten nearest vectors: mean {np.mean(shared):.4f}")
    for name, ms in times.items():
        print(f"  {name:<14} p50 {np.percentile(ms, 50):7.2f}  p95 {np.percentile(ms, 95):7.2f} ms")


def with_engine(engine: Engine, folder: Path, num: int, *, with_update: bool) -> None:
    chunks, questions = chunks_of(folder), questions_of(folder, num)
    with tempfile.TemporaryDirectory() as scratch:
        build_index(chunks, Path(scratch) / "a", encoder=HashEncoder())
        index = load_index(Path(scratch) / "a")
        began = time.perf_counter()
        place = moves.new_place(engine.name, index, 1)
        moves.put_all(index, engine, place, Path(scratch) / "notes.json", lambda done: None)
        moves.check_count(index, engine, place, 1)
        print(f"{folder.name}: {index.num_entries} entries put in {time.perf_counter() - began:.1f} s, {engine.health()}")
        compared = moves.compare(index, engine, place)
        print(f"before a switch: {compared.num_equal} of {compared.num} the same, scale {compared.scale:.6f}, vectors {compared.overlap}")
        place = moves.scaled(place, compared)
        compare(index, engine, place, questions)
        if with_update:
            changed = chunks[::10]
            again = [replace(chunk, file=f"new-{chunk.file}") for chunk in changed]
            update_index(index, Path(scratch) / "b", remove={c.file for c in changed}, chunks=again, encoder=HashEncoder())
            newer = load_index(Path(scratch) / "b")
            for rows in moves.batches(newer, place, at_least=len(index.is_live)):
                engine.put(place.collection, place.spec, rows)
            engine.settle(place.collection)
            print(f"after an update of {len(changed)} documents:")
            compare(newer, engine, place, questions)
        engine.drop(place.collection)


def with_lucene(jar: Path, folder: Path, num: int) -> None:
    """Lucene's own BM25 over the tokens as OpenSearch would hold them, beside tantivy's."""
    chunks, questions = chunks_of(folder), questions_of(folder, num)
    with tempfile.TemporaryDirectory() as scratch:
        build_index(chunks, Path(scratch) / "a")
        index = load_index(Path(scratch) / "a")
        place = moves.new_place("opensearch", index, 1)
        with (Path(scratch) / "docs.tsv").open("w") as out:
            for rows in moves.batches(index, place):
                for row in rows:
                    out.write("\t".join([str(row.number), *(" ".join(f"{t:x}" for t in tokens) for tokens in row.tokens)]) + "\n")
        with (Path(scratch) / "queries.tsv").open("w") as out:
            for question in questions:
                terms = terms_of(question, place.salt, index.idf)
                out.write(" ".join(f"{VIEWS[t.view]}:{t.token:x}:{t.weight}" for t in terms) + "\n")
        command = ["java", "-Xmx1g", "-XX:TieredStopAtLevel=1", "-cp", str(jar), str(LUCENE), *map(str, [scratch, 3 * DEPTH])]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        lists = [[(int(n), float(s)) for n, s in (hit.split(":") for hit in line.split())] for line in told]
        owns = [index.entries_by_words(question, 3 * DEPTH) for question in questions]
        scale = float(np.median([a[0][1] / b[0][1] for a, b in zip(owns, lists, strict=True) if a and b]))
        scaled = [[(n, s * scale) for n, s in found] for found in lists]
        same = sum(moves.same_ten(own, found) for own, found in zip(owns, scaled, strict=True))
        worst = max(abs(a - b) / a for own, found in zip(owns, scaled, strict=True) for (_, a), (_, b) in zip(own, found, strict=False))
        print(
            f"{folder.name}: Lucene and tantivy find the same ten in {same} of {len(questions)} questions, scale {scale:.6f}, {worst:.2g}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--update", action="store_true")
    for name in ("milvus", "opensearch", "lucene"):
        parser.add_argument(f"--{name}", default="")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        open_home(load_settings({"CONSILIUM_HOME": home}), with_migration=True)
        texts = [searchable(chunk) for chunk in chunks_of(given.data)]
        held = sum(a != b for a, b in zip(texts, moves.outside_passages(texts), strict=True))
        print(
            f"{given.data.name}: {held} of {len(texts)} passages would leave with parts masked; these sets are public, so all leaves whole"
        )
        moves.outside_passages = list  # type: ignore[assignment]
        if given.milvus:
            from core.retrieval.engines.milvus import MilvusEngine

            key = os.environ.get("CONSILIUM_MILVUS_KEY", "")
            with_engine(MilvusEngine(given.milvus, key, timeout_s=60), given.data, given.questions, with_update=given.update)
        if given.opensearch:
            from core.retrieval.engines.opensearch import OpenSearchEngine

            key = os.environ.get("CONSILIUM_OPENSEARCH_KEY", "")
            with_engine(OpenSearchEngine(given.opensearch, key, timeout_s=60), given.data, given.questions, with_update=given.update)
        if given.lucene:
            with_lucene(Path(given.lucene), given.data, given.questions)


if __name__ == "__main__":
    main()
