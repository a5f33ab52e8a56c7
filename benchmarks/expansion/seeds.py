"""Does GRPO raise the mean reward over its SFT on held-out queries? The same training from several seeds, one evaluation of all.

    python -m benchmarks.expansion.seeds --home HOME --sft NAME --data ROWS --corpus DIR [--seeds 0 1 2] [--steps 200]
        [--learning-rate R] [--temperature T] [--batch 64] [--generations 8] [--tokens 110] [--beta 0.04] [--prefix grpo]

HOME holds the SFT version. Every arm starts from it. The queries are the whole test split of ROWS: families of which neither the SFT nor
GRPO saw a wording. They are answered as in training (what GRPO raises is the mean over samples) and greedily (what Ask asks for), freely:
nothing constrains what is written. Differences are paired by query, with
95 % bootstrap intervals; the mean over the seeds is bootstrapped over queries (each query's mean over the seeds). Begun again, it goes on
where it was. `--beta 0` is an experiment only: the job's config refuses it, this script goes past that to show what becomes of GRPO
without its KL to the SFT. Results: docs/benchmarks_expansion_training.md.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import NotFound
from core.expansion import compare
from core.expansion.runs import REPORT, Report
from core.home import Home, open_home
from core.jobs.configs_expansion_training import ExpansionEvaluateConfig, ExpansionGRPOConfig
from core.jobs.fields import JobConfig
from core.models import get_version
from core.settings import load_settings
from core.statistics import bootstrap
from db.engine import read_session
from training.expansion_evaluate import evaluate
from training.expansion_grpo import learn
from training.run import Run

#: trl builds no reference at exactly 0, and without one the KL could not be measured
NONE = 1e-9


def is_made(name: str) -> bool:
    try:
        with read_session() as session:
            get_version(session, name)
    except NotFound:
        return False
    return True


def opened(home: Home, name: str, config: JobConfig) -> Run:
    folder = home.runs / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    return Run(folder, 0, home)


def curve(folder: Path) -> None:
    """Every tenth of the training, as it was sampled."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    print("updates: reward, finished, valid lines, KL in nats per answer, seconds per update")
    for start in range(0, len(rows), max(1, len(rows) // 10)):
        part = rows[start : start + max(1, len(rows) // 10)]
        means = [
            float(np.mean([row.get(name, np.nan) for row in part]))
            for name in ("objective/scores", "val/finished_ratio", "reward/valid_lines", "objective/kl", "seconds")
        ]
        print(f"{part[0]['step']:>4}-{part[-1]['step']:<4} " + " ".join(f"{mean:.3f}" for mean in means), flush=True)


def table(report: Report, sft: str, names: list[str]) -> list[dict[str, Any]]:
    """One row per model, and the mean of the seeds."""
    rows = []
    for name in (sft, *names):
        one = report["models"][name]["summary"]
        row: dict[str, Any] = {"model": name, "reward": one["reward"], "valid_lines": one["valid_lines"], "finished": one["finished"]}
        row |= {"valid_outputs": one["valid_outputs"], "drift": one["drift"], "retrieval": one["retrieval"]}
        if name != sft:
            of = compare.compare(report, sft, name).measures["reward"]
            row["difference"] = [of.difference, of.ci_low, of.ci_high, of.p_value]
        rows.append(row)
    before = {one["query"]: one["reward"] for one in report["models"][sft]["outputs"]}
    after = [{one["query"]: one["reward"] for one in report["models"][name]["outputs"]} for name in names]
    gains = [float(np.mean([of[query] for of in after])) - value for query, value in before.items()]
    low, high = bootstrap(gains, np.random.default_rng(0))
    rows.append({"model": "mean of the seeds", "difference": [float(np.mean(gains)), low, high]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--home", type=Path, required=True)
    for name in ("sft", "data", "corpus"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=110)
    parser.add_argument("--learning-rate", type=float, default=0.0015)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--beta", type=float, default=0.04)
    parser.add_argument("--prefix", default="grpo")
    options = parser.parse_args()
    os.environ["CONSILIUM_HOME"] = str(options.home.resolve())
    home = open_home(load_settings(), with_migration=True)
    names = [f"{options.prefix}-{seed}" for seed in options.seeds]
    for seed, name in zip(options.seeds, names, strict=True):
        config = ExpansionGRPOConfig(
            name=name, sft_model=options.sft, data=options.data, corpus=options.corpus, num_steps=options.steps,
            batch_size=options.batch, num_generations=options.generations, max_new_tokens=options.tokens, max_samples=0,
            learning_rate=options.learning_rate, temperature=options.temperature, seed=seed,
        )  # fmt: skip
        if not is_made(name):
            learn(opened(home, name, config), config.model_copy(update={"beta": options.beta or NONE}))
        print(name)
        curve(home.runs / name)
    for temperature in (options.temperature, 0.0):
        asked = ExpansionEvaluateConfig(
            name=f"{options.prefix} at {temperature:g}", models=[options.sft, *names], queries=options.data, corpus=options.corpus,
            num_queries=0, max_new_tokens=options.tokens, temperature=temperature,
        )  # fmt: skip
        run = opened(home, f"{options.prefix}-at-{temperature:g}", asked)
        evaluate(run)
        report: Report = json.loads((run.dir / REPORT).read_text(encoding="utf-8"))
        rows = table(report, options.sft, names)
        (run.dir / "table.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        print(f"temperature {temperature:g}, {len(report['models'][options.sft]['outputs'])} queries")
        for row in rows:
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
