"""What becomes of GRPO without the KL to the SFT: the same training with beta 0.04 and with (as good as) none, an experiment only.

    python -m benchmarks.expansion.drift --home HOME --sft NAME --data ROWS --corpus DIR [--steps 30] [--betas 0.04 0]

HOME holds the SFT version. The config of the job refuses such a beta; this script goes past it (`training.expansion_grpo.learn`).
Prints reward, rubric, KL in nats per answer and the share of valid lines, per update. Results: docs/benchmarks_expansion_training.md.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from core.home import open_home
from core.jobs.configs_expansion_training import ExpansionGRPOConfig
from core.settings import load_settings
from training.expansion_grpo import learn
from training.run import Run

#: trl builds no reference at exactly 0, and without one the KL could not be measured
NONE = 1e-9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--sft", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--corpus", default="")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--betas", type=float, nargs="*", default=[0.04, 0.0])
    options = parser.parse_args()
    os.environ["CONSILIUM_HOME"] = str(options.home.resolve())
    home = open_home(load_settings(), with_migration=True)
    for beta in options.betas:
        name = f"drift-beta-{beta:g}-{os.getpid()}"
        config = ExpansionGRPOConfig(
            name=name,
            sft_model=options.sft,
            data=options.data,
            corpus=options.corpus,
            num_steps=options.steps,
            learning_rate=options.learning_rate,
            max_new_tokens=90,
            max_samples=200,
        )
        run_dir = home.runs / name
        run_dir.mkdir(parents=True)
        (run_dir / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
        learn(Run(run_dir, 0, home), config.model_copy(update={"beta": beta or NONE}))
        rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        print(f"beta {beta:g}: update, reward, rubric, KL, valid lines")
        for row in rows[:: max(1, len(rows) // 10)] + rows[-1:]:
            print(
                f"{row['step']:>5} {row['objective/scores']:.3f} {row['reward/rubric']:.3f} {row['objective/kl']:.2f} "
                f"{row.get('reward/valid_lines', 0):.2%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
