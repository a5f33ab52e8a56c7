"""Two fine-tunes that the gate must tell apart: zhmedqa from scratch (helps) and cmedir (hurts), on the test questions of both.

    python benchmarks/embedding_gate.py --out DIR [--data ../shared/data] [--sets zhmedqa cmedir] [--rates 0.01 0.02 0.05]
        [--num-self-pairs 0]

Trains by the job itself (`training.embedding`, its home in DIR/home; a model that is there already is only measured), encodes the
whole collection with the untrained and the trained vectors, and writes DIR/NAME.json:

    {"set": ..., "rate": ..., "queries": [...], "control": {metric: [one value per query]}, "candidate": {...}, "gate": {...}}

`control` and `candidate` are what core.retrieval.trial.gate judges. Results: docs/benchmarks_rerank.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from core.home import open_home
from core.jobs.configs_embedding import EmbeddingConfig
from core.retrieval import retrieval_models as registry
from core.retrieval.encoders import open_encoder
from core.settings import ROOT, load_settings
from training.embedding import StaticStudent
from training.embedding_measure import compare, means, measure
from training.retrieval_pairs import Judged, read_material
from training.run import Run


def test_questions(folder: Path) -> list[Judged]:
    """The test questions with their grades."""
    grades: dict[str, dict[str, float]] = {}
    for line in (folder / "qrels.tsv").read_text().splitlines()[1:]:
        query, passage, grade = line.split("\t")
        grades.setdefault(query, {})[passage] = float(grade)
    rows = map(json.loads, (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines())
    return [Judged(row["text"], grades[row["_id"]]) for row in rows if row["_id"] in grades]


def run_one(out: Path, folder: Path, rate: float, num_self_pairs: int) -> None:
    name = f"{folder.name}-{rate:g}" + ("" if num_self_pairs < 0 else f"-self{num_self_pairs}")
    config = EmbeddingConfig(name=name, pairs=str(folder), learning_rate=rate, save_steps=500, num_self_pairs=num_self_pairs)
    run_dir = out / "home" / "runs" / name
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text(config.model_dump_json())
    home = open_home(load_settings({"CONSILIUM_HOME": str(out / "home")}), with_migration=True)
    if name not in {row.name for row in registry.listing("embedding")}:
        environment = {**os.environ, "CONSILIUM_HOME": str(home.root), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "training.embedding", "--run-dir", str(run_dir)], cwd=ROOT, env=environment, check=True)
    material = read_material(config, home)
    asked = test_questions(folder)
    control = measure(StaticStudent(Run(run_dir, 0, home), config, material).encoder(), asked, material.passages)
    candidate = measure(open_encoder(name), asked, material.passages)
    verdict = compare(control, candidate)
    found = {"set": folder.name, "rate": rate, "queries": [one.query for one in asked], "control": control, "candidate": candidate}
    (out / f"{name}.json").write_text(json.dumps({**found, "gate": verdict}, ensure_ascii=False), encoding="utf-8")
    print(
        json.dumps({"set": folder.name, "rate": rate, "control": means(control), "candidate": means(candidate), "gate": verdict}, indent=1)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--sets", nargs="*", default=["zhmedqa", "cmedir"])
    parser.add_argument("--rates", nargs="*", type=float, default=[0.02])
    parser.add_argument("--num-self-pairs", type=int, default=-1, help="-1: halves of every passage; 0: judged pairs only")
    arguments = parser.parse_args()
    for chosen in arguments.sets:
        for one_rate in arguments.rates:
            run_one(arguments.out.resolve(), (arguments.data / chosen).resolve(), one_rate, arguments.num_self_pairs)
