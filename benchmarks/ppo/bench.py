"""Side by side: our PPO learner, the trainers of trl, and the floor, on one small model with one reward.

    bench.py run OUT MODEL NAME=PLUGIN.py[@PYTHON][#JSON] ... [--seeds 0,1,2,3,4] [--steps 15] [--config JSON]
    bench.py report OUT [--goal 0.8]

A plug-in is a file with `train(model_dir, prompts_file, reward_fn, steps, out_dir, cfg)`. It calls
`reward_fn(rows, texts, finished)` once per batch of samples, which is how samples, CPU seconds and rewards are taken down without
its help, and may leave a plain model in out_dir/final, whose answers to unseen prompts are then scored. Runs alternate (A B C,
A B C, ...), so that other work on the machine troubles all alike; each is a process of its own with one thread. CPU seconds are
those of the process from before the plug-in loads its model until `train` returns; imports made by this file are not counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DEFAULTS: dict[str, Any] = {
    "batch": 64, "epochs": 2, "minibatch": 16, "lr": 2e-3, "max_new": 96, "temperature": 1.0, "beta": 0.006, "lam": 1.0, "lora_r": 8,
    "targets": "all-linear", "seed": 0,
}  # fmt: skip
#: two-sided 95 % points of Student's t by degrees of freedom
T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
WINDOW = 256


def child(plugin: str, model: str, out: str, steps: int, cfg: dict[str, Any]) -> None:
    """One run, in a process of its own; leaves OUT/metrics.json."""
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, str(HERE))
    import world

    spec = importlib.util.spec_from_file_location("plugin", plugin)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.time(), time.process_time()
    curve: list[dict[str, float]] = []

    def reward_fn(rows: list[dict[str, Any]], texts: list[str], finished: list[bool]) -> list[float]:
        scored = [world.score(row["facts"], text, end) for row, text, end in zip(rows, texts, finished, strict=True)]
        mean = {key: sum(one[key] for one in scored) / len(scored) for key in ("reward", "unsafe", "emergency", "chain")}
        curve.append({"cpu": time.process_time() - cpu, "wall": time.time() - wall, "n": len(scored), **mean})
        return [one["reward"] for one in scored]

    extra = module.train(model, os.path.join(model, "prompts.jsonl"), reward_fn, steps, out, {**DEFAULTS, **cfg})
    result = {
        "cfg": cfg,
        "cpu": time.process_time() - cpu,
        "wall": time.time() - wall,
        "samples": sum(int(point["n"]) for point in curve),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rss_before_mb": before,
        "load": os.getloadavg()[0],
        "curve": curve,
        "extra": extra,
    }
    Path(out, "metrics.json").write_text(json.dumps(result, indent=1, default=float))


def evaluate(model: str, prompts: str) -> dict[str, float]:
    """Mean reward of two sampled answers (temperature 1) to each prompt that no trainer has seen, by transformers' own generate."""
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(1)
    sys.path.insert(0, str(HERE))
    import lm
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = [json.loads(line) for line in Path(prompts).read_text("utf-8").splitlines()]
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = [lm.evaluate(loaded, tokenizer, rows, max_new=96, greedy=False, seed=seed)[0] for seed in (1, 2)]
    return {key: round(sum(one[key] for one in found) / len(found), 4) for key in found[0]}


def run(out: str, model: str, specs: list[str], seeds: list[int], steps: int, shared: dict[str, Any]) -> None:
    environment = {
        **os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    for seed in seeds:
        for spec in specs:
            name, rest = spec.split("=", 1)
            rest, _, own = rest.partition("#")
            plugin, _, python = rest.partition("@")
            cfg = {**shared, **json.loads(own or "{}"), "seed": seed}
            folder = Path(out) / f"{name}.{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            order = ["child", str(Path(plugin).resolve()), model, str(folder), str(steps), json.dumps(cfg)]
            with (folder / "log.txt").open("w") as log:
                done = subprocess.run([python or sys.executable, __file__, *order], stdout=log, stderr=log, env=environment)
            if done.returncode:
                print("FAILED", folder, flush=True)
                continue
            metrics = json.loads((folder / "metrics.json").read_text())
            if (folder / "final").is_dir():
                asked = [sys.executable, __file__, "eval", str(folder / "final"), os.path.join(model, "heldout.jsonl")]
                answer = subprocess.run(asked, capture_output=True, text=True, env=environment, check=True).stdout
                metrics["heldout"] = json.loads(answer.strip().splitlines()[-1])
                (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
            facts = facts_of(metrics, 0.8)
            print(folder.name, {key: value if value is None else round(value, 4) for key, value in facts.items()}, flush=True)


def facts_of(metrics: dict[str, Any], goal: float) -> dict[str, float | None]:
    """What is compared. `samples_to_goal`: when the mean reward of the last 256 samples first reaches the goal; None: never."""
    reached: tuple[int, float] | None = None
    points: list[tuple[int, float]] = []
    total = 0
    for point in metrics["curve"]:
        total += int(point["n"])
        points.append((int(point["n"]), point["reward"]))
        last, weight, sum_ = 0, 0, 0.0
        while weight < WINDOW and last < len(points):
            last += 1
            weight += points[-last][0]
            sum_ += points[-last][0] * points[-last][1]
        if weight >= WINDOW and sum_ / weight >= goal and reached is None:
            reached = (total, point["cpu"])
    tail = points[-max(1, len(points) // 5) :]
    return {
        "samples_per_cpu_s": metrics["samples"] / metrics["cpu"],
        "cpu_s": metrics["cpu"],
        "last_reward": sum(n * r for n, r in tail) / sum(n for n, _ in tail),
        "heldout_reward": metrics.get("heldout", {}).get("reward"),
        "samples_to_goal": reached[0] if reached else None,
        "cpu_s_to_goal": reached[1] if reached else None,
        "extra_memory_mb": metrics["rss_mb"] - metrics["rss_before_mb"],
        "load": metrics["load"],
    }


def interval(values: list[float]) -> str:
    """Mean and 95 % interval of the mean (Student's t over seeds)."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = T95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.3f} [{mean - half:.3f}, {mean + half:.3f}]"


def report(out: str, goal: float) -> None:
    by_name: dict[str, dict[int, dict[str, float | None]]] = {}
    for path in sorted(Path(out).glob("*/metrics.json")):
        name, seed = path.parent.name.rsplit(".", 1)
        by_name.setdefault(name, {})[int(seed)] = facts_of(json.loads(path.read_text()), goal)
    for name, runs in by_name.items():
        print(f"\n{name}: seeds {sorted(runs)}")
        for key in (
            "samples_per_cpu_s",
            "cpu_s",
            "last_reward",
            "heldout_reward",
            "samples_to_goal",
            "cpu_s_to_goal",
            "extra_memory_mb",
            "load",
        ):
            values = [value for one in runs.values() if (value := one[key]) is not None]
            missed = len(runs) - len(values)
            print(f"  {key:18s} {interval(values) if values else '-'}" + (f"  (not reached by {missed})" if missed else ""))
    first = by_name.get("own", {})
    for name, runs in by_name.items():
        for key in ("samples_per_cpu_s", "heldout_reward", "last_reward", "samples_to_goal"):
            pairs = [
                (a, b) for seed in first.keys() & runs.keys() if (a := first[seed][key]) is not None and (b := runs[seed][key]) is not None
            ]
            if name != "own" and len(pairs) > 1:
                compared = [a / b if key == "samples_per_cpu_s" else a - b for a, b in pairs]
                print(
                    f"own {'/' if key == 'samples_per_cpu_s' else '-'} {name}, {key}, paired by seed: {interval(compared)} (n={len(pairs)})"
                )


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        plugin, model, out, steps, cfg = sys.argv[2:]
        child(plugin, model, out, int(steps), json.loads(cfg))
        return
    if sys.argv[1:2] == ["eval"]:
        print(json.dumps(evaluate(*sys.argv[2:4])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("out")
    parser.add_argument("model", nargs="?")
    parser.add_argument("specs", nargs="*")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--config", default="{}")
    parser.add_argument("--goal", type=float, default=0.8)
    asked = parser.parse_intermixed_args()
    if asked.command == "run":
        run(asked.out, asked.model, asked.specs, [int(s) for s in asked.seeds.split(",")], asked.steps, json.loads(asked.config))
    report(asked.out, asked.goal)


if __name__ == "__main__":
    main()
