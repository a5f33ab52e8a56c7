"""Do the questions of our own writer raise recall? Train it on a public set, write for every chunk, pool, and compare.

    python -m benchmarks.doc2query.bench SET --out DIR [--data ../shared/data] [--num 5] [--seed 0] [--steps train write measure]

SET is medquad-qa, zhmedqa or cmedir. DIR keeps what each step made (a home with the writer, questions.jsonl, report.json), so a
step can be repeated alone. Test queries are never trained on: pairs that share their wording are excluded by the job itself.
The report has BM25 over the originals against originals and questions pooled in one index (best entry per chunk, best chunk per
document) in every form of entries, with 95 % paired bootstrap intervals, for all test queries and for those none of whose relevant
documents stood in a training pair. Results: docs/benchmarks_doc2query.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.retrieval import Queries, read_set
from core.home import Home, open_home
from core.jobs.configs_doc2query import Doc2QueryConfig
from core.retrieval.chunk import Chunk, chunk_document
from core.retrieval.index import Index, build_index, load_index
from core.retrieval.metrics import METRICS, mean
from core.retrieval.question_filter import finding_their_own, with_passages, with_words
from core.retrieval.writers import open_writer
from core.settings import ROOT, load_settings
from training.doc2query import train_writer
from training.doc2query_trial import interval
from training.run import Run

#: what the sets differ in; found on held-out training pairs, never on the test queries
CONFIGS: dict[str, dict[str, Any]] = {
    "medquad-qa": {"max_source": 64, "vocabulary": 3000, "num_epochs": 3},
    "zhmedqa": {"max_source": 96, "vocabulary": 2500, "num_epochs": 5},
    "cmedir": {"max_source": 32, "vocabulary": 2500, "num_epochs": 5, "min_grade": 2, "tokens_per_batch": 800, "num_spans": 16000},
}
REPORTED = ("recall@10", "ndcg@10", "mrr@10")
SLICE = 1000


def train(name: str, home: Home, data: Path, seed: int) -> dict[str, Any]:
    """Run the job; returns its result."""
    config = Doc2QueryConfig(name=name, pairs=str(data / name), exclude=str(data / name / "queries.jsonl"), seed=seed, **CONFIGS[name])
    folder = home.runs / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    train_writer(Run(folder, 0, home))
    found: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return found


def write(name: str, chunks: Sequence[Chunk], num: int, target: Path) -> dict[str, Any]:
    """Write `num` questions for every chunk into `target` (one JSON list per line)."""
    writer = open_writer(name)
    started, used = time.monotonic(), time.process_time()
    with target.open("w", encoding="utf-8") as lines:
        for start in range(0, len(chunks), SLICE):
            for questions in writer.write([c.text for c in chunks[start : start + SLICE]], num):
                lines.write(json.dumps(questions, ensure_ascii=False) + "\n")
            done = min(start + SLICE, len(chunks))
            print(f"{done}/{len(chunks)} chunks, {done / (time.process_time() - used):.0f} a CPU second", flush=True)
    return {"write_s": round(time.monotonic() - started), "write_cpu_s": round(time.process_time() - used), "chunks": len(chunks)}


def indexed(chunks: Sequence[Chunk], questions: Mapping[int, Sequence[str]], folder: Path) -> tuple[Index, dict[str, Any]]:
    started = time.monotonic()
    build_index(chunks, folder, {}, questions=questions)
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    index = load_index(folder)
    return index, {"entries": index.num_entries, "build_s": round(time.monotonic() - started, 1), "mb": round(size / 2**20, 1)}


def values_of(index: Index, queries: Queries) -> dict[str, list[float | None]]:
    """Each metric's value per query; a document stands where its best chunk stands."""
    values: dict[str, list[float | None]] = {name: [] for name in REPORTED}
    for text, grades in queries:
        ranking = list(dict.fromkeys(index.chunk(found.parent).file for found in index.lexical(text, 50)))
        for name in REPORTED:
            values[name].append(METRICS[name](ranking, grades))
    return values


def row(
    name: str, values: dict[str, list[float | None]], base: dict[str, list[float | None]], keep: Sequence[bool], **more: Any
) -> dict[str, Any]:
    """One line of the report: means, gains with intervals, and the same for the queries marked in `keep`."""
    found: dict[str, Any] = {"system": name, **more}
    for metric in REPORTED:
        unseen = [[v for v, k in zip(side[metric], keep, strict=True) if k] for side in (values, base)]
        found[metric] = mean(values[metric])[0]
        found[f"{metric} gain"] = interval(values[metric], base[metric])
        found[f"{metric} unseen"], found[f"{metric} unseen gain"] = mean(unseen[0])[0], interval(*unseen)
    shown = " ".join(f"{m} {found[m]:.4f} {found[m + ' gain']}" for m in REPORTED)
    print(f"{name}: {shown}; unseen recall@10 {found['recall@10 unseen']:.4f} {found['recall@10 unseen gain']}", flush=True)
    return found


def measure(
    data: Path, chunks: Sequence[Chunk], queries: Queries, out: Path, nums: Sequence[int], passage_nums: Sequence[int]
) -> dict[str, Any]:
    """All figures of one set."""
    trained_on = {pair["pos"] for pair in read_lines(data / "train_pairs.jsonl.gz")}
    keep = [not any(grade > 0 and document in trained_on for document, grade in grades.items()) for _, grades in queries]
    written = [json.loads(line) for line in (out / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    plain, about = indexed(chunks, {}, out / "index-plain")
    base = values_of(plain, queries)
    rows = [row("originals", base, base, keep, **about)]
    started = time.monotonic()
    kept = finding_their_own(plain, dict(enumerate(written)))
    filter_s = round(time.monotonic() - started, 1)
    words = open_writer(data.name).words
    if words is not None:
        pooled, about = indexed(chunks, with_words(dict(enumerate(written)), words, [c.text for c in chunks]), out / "index-pooled")
        rows.append(row("+ 1 with_words", values_of(pooled, queries), base, keep, **about))
    for num in nums:
        first = {i: questions[:num] for i, questions in enumerate(written)}
        good = {i: [q for q in questions if q in set(kept.get(i, ()))] for i, questions in first.items()}
        total, left = (sum(map(len, side.values())) for side in (first, good))
        forms = {"alone": good}
        if num in passage_nums:
            forms["with_passage"] = with_passages(first, [c.text for c in chunks])
        if num == max(nums):
            forms["alone, unfiltered"] = first
        for form, entries in forms.items():
            pooled, about = indexed(chunks, entries, out / "index-pooled")
            about |= {"kept_share": round(left / max(1, total), 4)} if form == "alone" else {}
            rows.append(row(f"+ {num} {form}", values_of(pooled, queries), base, keep, **about))
    for folder in ("index-plain", "index-pooled"):
        shutil.rmtree(out / folder)
    return {"queries": len(queries), "unseen_queries": sum(keep), "filter_s": filter_s, "rows": rows}


def read_lines(path: Path) -> list[dict[str, Any]]:
    import gzip

    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("set", choices=sorted(CONFIGS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--num", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nums", type=int, nargs="*", default=[1, 3, 5])
    parser.add_argument("--passage-nums", type=int, nargs="*", default=[3, 5], help="numbers of questions tried with their passage")
    parser.add_argument("--steps", nargs="*", default=["train", "write", "measure"], choices=["train", "write", "measure"])
    options = parser.parse_args()
    out: Path = options.out.resolve() / options.set
    out.mkdir(parents=True, exist_ok=True)
    os.environ["CONSILIUM_HOME"] = str(out / "home")
    home = open_home(load_settings(), with_migration=True)
    documents, queries, _ = read_set(options.data / options.set)
    chunks = [chunk for document in documents for chunk in chunk_document(document)]
    path = out / "report.json"
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"set": options.set}
    if "train" in options.steps:
        report["training"] = train(options.set, home, options.data, options.seed)
    if "write" in options.steps:
        report["writing"] = write(options.set, chunks, options.num, out / "questions.jsonl")
    if "measure" in options.steps:
        report["measured"] = measure(options.data / options.set, chunks, queries, out, options.nums, options.passage_nums)
    path.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
