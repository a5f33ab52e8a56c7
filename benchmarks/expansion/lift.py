"""Do the lines of a term model lift recall@10 over the plain query? Train it on a public set's pairs, then ask the test queries once.

    python -m benchmarks.expansion.lift SET --out DIR [--data ../shared/data] [--steps train measure]

SET is medquad-qa, zhmedqa or cmedir. DIR holds a home with the model and report.json. The job itself leaves out every training pair that
shares its wording with a test query, and chooses how lines are written and what they weigh on questions kept aside; this script only
applies that to the test queries, with the product's own search over the whole corpus (lexical, plan with that line weight). Intervals:
95 % paired bootstrap, 2,000 draws. Results: docs/benchmarks_expansion_training.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from core.expansion.term_model import load
from core.home import Home, open_home
from core.jobs.configs_expansion_training import ExpansionTermsConfig
from core.retrieval import retrieval_models
from core.retrieval.chunk import chunk_document
from core.retrieval.index import build_index, load_index
from core.retrieval.judged import read_beir, read_corpus
from core.retrieval.metrics import METRICS
from core.retrieval.plans import Plan
from core.retrieval.search import Retriever
from core.settings import ROOT, load_settings
from training.doc2query_trial import interval
from training.expansion_terms import train
from training.run import Run

#: passes over the pairs and the share kept aside, by the size of the set; nothing here was chosen on test queries
CONFIGS: dict[str, dict[str, Any]] = {
    "medquad-qa": {"num_epochs": 1.5, "own_epochs": 3, "eval_share": 0.1},
    "zhmedqa": {"num_epochs": 2, "eval_share": 0.16},
    "cmedir": {"num_epochs": 2, "eval_share": 0.3},
}
REPORTED = ("recall@10", "mrr@10", "ndcg@10")
DEPTH = 50


def learn(name: str, home: Home, data: Path) -> None:
    """Run the job in the foreground."""
    folder = data / name
    config = ExpansionTermsConfig(name=f"terms-{name}", pairs=str(folder), exclude=str(folder / "queries.jsonl"), **CONFIGS[name])
    run_dir = home.runs / f"terms-{name}"
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    train(Run(run_dir, 0, home))


def measure(model_name: str, folder: Path, home: Home) -> dict[str, Any]:
    """All figures of the test queries."""
    row = retrieval_models.get(model_name, "expander")
    model, weight = load(retrieval_models.weights_of(row, home)), float(row.metrics["line_weight"])
    judged = read_beir(folder)
    values: dict[str, dict[str, list[float | None]]] = {side: {m: [] for m in REPORTED} for side in ("plain", "expanded")}
    expand_ms: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        build_index((c for d in read_corpus(folder) for c in chunk_document(d)), Path(scratch) / "index", {})
        index = load_index(Path(scratch) / "index")
        retriever = Retriever(index, plan=Plan(expansion=weight))
        for question in judged.questions:
            started = time.perf_counter()
            lines = [f"lex: {line.text}" for line in model.expand(question.text)]
            expand_ms.append((time.perf_counter() - started) * 1000)
            for side, of in (("plain", []), ("expanded", lines)):
                hits = retriever.search(question.text, DEPTH, expansions=of).hits
                ranking = list(dict.fromkeys(hit.chunk.file for hit in hits))
                for metric in REPORTED:
                    values[side][metric].append(METRICS[metric](ranking, question.qrels))
    report: dict[str, Any] = {"set": folder.name, "queries": len(judged.questions), "line_weight": weight, "held_out": row.metrics}
    for metric in REPORTED:
        plain, expanded = values["plain"][metric], values["expanded"][metric]
        means = [round(float(np.mean([v for v in side if v is not None])), 4) for side in (plain, expanded)]
        report[metric] = {"plain": means[0], "expanded": means[1], "gain": interval(expanded, plain)}
        print(f"{folder.name} {metric}: {means[0]:.4f} -> {means[1]:.4f} {report[metric]['gain']}", flush=True)
    report["expand_ms"] = {"median": round(float(np.median(expand_ms)), 2), "p95": round(float(np.percentile(expand_ms, 95)), 2)}
    report["examples"] = [{"query": q.text, "lines": [line.text for line in model.expand(q.text)]} for q in judged.questions[:5]]
    print(report["expand_ms"], report["examples"][:3], flush=True)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("set", choices=sorted(CONFIGS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--model", default="", help="a term model that is registered in DIR/home already")
    parser.add_argument("--steps", nargs="*", default=["train", "measure"], choices=["train", "measure"])
    options = parser.parse_args()
    out: Path = options.out.resolve()
    os.environ["CONSILIUM_HOME"] = str(out / "home")
    home = open_home(load_settings(), with_migration=True)
    if "train" in options.steps:
        learn(options.set, home, options.data)
    if "measure" in options.steps:
        found = measure(options.model or f"terms-{options.set}", options.data / options.set, home)
        (out / f"report-{options.set}.json").write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
