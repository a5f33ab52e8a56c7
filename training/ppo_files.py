"""What PPO writes for people: one row per completion in rewards.csv, one entry per rollout in kl_metrics.json, a sample table."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Sequence
from pathlib import Path

from torch import Tensor

from core.records import Prompt
from core.rewards import PARTS
from core.scoring import Scored
from training.run import write_json

COLUMNS = (
    "rollout", "sample_id", "language", "risk", "score", "reward", *PARTS, "unscored_reason", "finish_reason", "num_tokens", "kl",
)  # fmt: skip


class RewardTable:
    """rewards.csv, appended to; an empty cell is "not scored", never zero. `score` is what PPO saw."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep_until(self, rollout: int) -> None:
        """Drop rows of later rollouts (written after the checkpoint that a resumed run starts from)."""
        rows: list[dict[str, str]] = []
        if self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["rollout"].isdigit() and int(row["rollout"]) <= rollout]
        with self.path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)

    def append(
        self,
        rollout: int,
        prompts: Sequence[Prompt],
        scored: Sequence[Scored],
        scores: Tensor,
        kl: Tensor,
        responses: Sequence[Sequence[int]],
        eos_ids: Collection[int],
    ) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            for i, (prompt, one) in enumerate(zip(prompts, scored, strict=True)):
                score = float(scores[i])
                writer.writerow(
                    {
                        "rollout": rollout,
                        "sample_id": prompt.sample_id,
                        "language": prompt.language.value,
                        "risk": prompt.risk.value,
                        "score": "" if math.isnan(score) else round(score, 6),
                        "reward": one.reward.value,
                        **{name: one.reward.parts.get(name) for name in PARTS},
                        "unscored_reason": one.reward.unscored_reason,
                        "finish_reason": "stop" if responses[i][-1] in eos_ids else "length",
                        "num_tokens": len(responses[i]),
                        "kl": round(float(kl[i]), 6),
                    }
                )


def write_kl_metrics(path: Path, history: Sequence[dict[str, float]]) -> None:
    """The whole history, rewritten atomically: how far the policy drifted, under which coefficient, and what stopped early."""
    write_json(
        path,
        {
            "rollouts": history,
            "max_kl": max((h["objective/kl"] for h in history), default=0.0),
            "num_stopped_early": sum(h["policy/stopped_early"] for h in history),
        },
    )


def print_samples(prompts: Sequence[Prompt], texts: Sequence[str], scores: Tensor, n: int = 4) -> None:
    """A few completions, the worst, the best and two between, for the person who reads the log."""
    order = sorted(range(len(texts)), key=lambda i: float(scores[i].nan_to_num(-1.0)))
    picked = [order[round(k * (len(order) - 1) / max(1, n - 1))] for k in range(n)]
    for i in picked:
        print(f"  [{float(scores[i]):+.3f}] {prompts[i].text}\n      {texts[i]!r}", flush=True)
