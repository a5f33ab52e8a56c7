"""What a reranker trained by the job adds to the present lexical search: test questions of each set, top 30, paired intervals, ms.

    python benchmarks/rerank.py --out DIR [--data ../shared/data] [--sets cmedir zhmedqa medquad-qa] [--form features] [--set key=value]

Trains on the set's training pairs (`training.reranker`, its home in DIR/home; a model that is there already is only measured),
reranks the first 30 passages of the lexical index for every test question, and writes DIR/SET-FORM.json with every metric per query
before and after, as core.retrieval.trial.gate reads them. Results: docs/benchmarks_rerank.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embedding_gate import test_questions
from core.home import open_home
from core.jobs.configs_embedding import RerankerConfig
from core.retrieval import retrieval_models as registry
from core.retrieval.index import load_index
from core.retrieval.rerankers import open_reranker, reranked
from core.settings import ROOT, load_settings
from training.embedding_measure import compare, means
from training.rerank_lists import candidates, chunk_index, measure_order
from training.retrieval_pairs import read_material


def run_one(out: Path, folder: Path, form: str, options: dict[str, Any], num_test: int) -> None:
    name = f"{folder.name}-{form}" + "".join(f"-{key}{value}".replace("/", "_") for key, value in options.items())
    config = RerankerConfig(name=name, form=form, pairs=str(folder), **options)
    run_dir = out / "home" / "runs" / name
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text(config.model_dump_json())
    home = open_home(load_settings({"CONSILIUM_HOME": str(out / "home")}), with_migration=True)
    indexes = out / "indexes" / folder.name
    chunk_index(read_material(config, home).passages, indexes)
    if not (run_dir / "index").exists():  # one index for all rerankers of a set
        (run_dir / "index").symlink_to(indexes)
    seconds = 0.0
    if name not in {row.name for row in registry.listing("reranker")}:
        started = time.monotonic()
        environment = {**os.environ, "CONSILIUM_HOME": str(home.root), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "training.reranker", "--run-dir", str(run_dir)], cwd=ROOT, env=environment, check=True)
        seconds = time.monotonic() - started
    index = load_index(indexes)
    asked = test_questions(folder)
    if num_test and num_test < len(asked):
        asked = random.Random(0).sample(asked, num_test)
    lists = [candidates(one.query, one.grades, index, config.depth) for one in asked]
    reranker = open_reranker(name, place="here")
    reranker.score(lists[0].query, lists[0].texts)  # weights are loaded at the first use
    orders, cold, warm = [], [], []
    for one in lists:
        for times in (cold, warm):
            started = time.perf_counter()
            scores = reranker.score(one.query, one.texts)
            times.append((time.perf_counter() - started) * 1000)
            if form == "cross":  # nothing is remembered between two calls
                break
        orders.append(reranked(scores))
    before = measure_order(lists, [range(len(one.ids)) for one in lists])
    after = measure_order(lists, orders)
    verdict = compare(before, after)
    clock = {"first_ms": np.percentile(cold, [50, 95]).round(1).tolist()}
    if warm:
        clock["again_ms"] = np.percentile(warm, [50, 95]).round(1).tolist()
    found = {"set": folder.name, "model": name, "depth": config.depth, "queries": [one.query for one in asked]}
    about = {**clock, "training_s": round(seconds), "gate": verdict}
    (out / f"{name}.json").write_text(json.dumps({**found, "control": before, "candidate": after, **about}, ensure_ascii=False))
    said = {"set": folder.name, "model": name, "control": means(before), "candidate": means(after), **about}
    print(json.dumps(said, indent=1), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="*", default=["cmedir", "zhmedqa", "medquad-qa"])
    parser.add_argument("--form", default="features", choices=["features", "cross"])
    parser.add_argument("--num-test", type=int, default=0, help="at most so many test questions; 0 means all")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="options of the job, as JSON values")
    arguments = parser.parse_args()
    chosen = {key: json.loads(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    for one_set in arguments.sets:
        run_one(arguments.out.resolve(), (arguments.data / one_set).resolve(), arguments.form, chosen, arguments.num_test)
