"""How often does chance get through the gate, and how often does a true gain? Simulated A/B tests on real per-query values.

    python benchmarks/retrieval_gate.py [--values QUESTIONS.jsonl] [--simulations 1000]

Per-query nDCG@10 of a real ladder (questions.jsonl of an evaluation) or, without one, of a set searched by BM25. No true difference: both
arms are the same system, and each query's value is drawn anew around its own (a re-judged, re-indexed or re-trained system
moves that much). A true gain: a share of the failed queries is mended. Results: docs/benchmarks_retrieval_gate.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from core.retrieval.bench import Bench
from core.retrieval.chunk import chunk_document
from core.retrieval.index import build_index, load_index
from core.retrieval.judged import read_beir, read_corpus
from core.retrieval.plans import Plan
from core.retrieval.trial import MIN_EXPOSURES, gate, look
from core.settings import ROOT
from core.statistics import wilson

SIZES = (50, 200, 500, 1000)
GAINS = (0.02, 0.05, 0.10, 0.20)
#: share of the queries whose value changes between two runs of systems that are equally good
MOVED = 0.3


def values_of(folder: Path) -> np.ndarray:
    """nDCG@10 per query of BM25 on a set in BEIR form."""
    judged = read_beir(folder)
    with tempfile.TemporaryDirectory() as scratch:
        build_index((c for d in read_corpus(folder) for c in chunk_document(d)), Path(scratch) / "index")
        bench = Bench(load_index(Path(scratch) / "index"), judged, None, None)
        return np.array([v for v in bench.values(Plan(dense=0.0, pseudo_doc=0.0, expansion=0.0)) if v is not None])


def shuffled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An equally good system: some queries take a value drawn from all of them, so that the expectation stays the mean."""
    moved = rng.random(len(values)) < MOVED
    return np.where(moved, rng.choice(POOL, len(values)), values)


def promoted(num: int, simulations: int, gain: float, seed: int) -> float:
    """Share of simulated A/B tests with `num` queries that the gate accepts. `gain` is the true relative gain."""
    rng = np.random.default_rng(seed)
    mean = float(POOL.mean())
    accepted = 0
    for _ in range(simulations):
        # both sides are drawn with the same expectation on every query; the candidate is then mended on some
        base = rng.choice(POOL, num)
        control, candidate = shuffled(base, rng), shuffled(base, rng)
        room = 1 - candidate
        candidate = candidate + room * (rng.random(num) < gain * mean / max(1e-9, 1 - mean))
        accepted += gate(control.tolist(), candidate.tolist(), rng).is_accepted
    return accepted / simulations


def stopped(simulations: int, loss: float, seed: int) -> float:
    """Share of live trials stopped within ten looks; click success 0.4 in the control, `loss` less in the candidate."""
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(simulations):
        control, candidate = (rng.binomial(1, p, 10 * MIN_EXPOSURES).tolist() for p in (0.4, 0.4 - loss))
        count += any(look(control[: k * MIN_EXPOSURES], candidate[: k * MIN_EXPOSURES], k, rng).action == "stop" for k in range(1, 11))
    return count / simulations


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--values", type=Path, help="questions.jsonl of an evaluation")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "cmedir")
    parser.add_argument("--simulations", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.values:
        rows = map(json.loads, arguments.values.read_text(encoding="utf-8").splitlines())
        POOL = np.array([row["values"]["bm25"] for row in rows])
    else:
        POOL = values_of(arguments.data)
    print(f"{len(POOL)} values, mean {POOL.mean():.3f}, standard deviation {POOL.std():.3f}; {arguments.simulations} simulations each\n")
    print("| queries | no true difference | " + " | ".join(f"true gain {g:.0%}" for g in GAINS) + " |")
    print("|---" * (len(GAINS) + 2) + "|")
    for size in SIZES:
        none = promoted(size, arguments.simulations, 0.0, size)
        high = wilson(none * arguments.simulations, arguments.simulations)[1]
        powers = [promoted(size, arguments.simulations // 4, gain, size + 1) for gain in GAINS]
        print(f"| {size} | {none:.3f} (upper 95 % {high:.3f}) | " + " | ".join(f"{p:.2f}" for p in powers) + " |", flush=True)
    print(
        "\nlive trial stopped within ten looks: "
        + ", ".join(
            f"{name} {stopped(arguments.simulations, loss, 5):.3f}"
            for name, loss in (("no difference", 0.0), ("click success 0.4 -> 0.3", 0.1))
        )
    )
