"""What PPO writes for people and pages, in the run folder and beside the weights.

    rewards.csv         one row per completion (kind sample), per verdict that came late (late), per new map (refit)
    kl_metrics.json     one entry per rollout: drift, coefficient, early stops
    teacher_usage.csv   one row per rollout: mode, what was asked, tokens, USD, latency
    samples.jsonl       every `sample_steps` rollouts: prompts, completions, scores, to be read by people
    hack_watch.json     `core.reward_watch` over all of it

Tables are appended to after each rollout and cut back to the checkpoint when a run resumes, so no row stands twice. An empty
cell is "not scored", never zero. Called by training.ppo.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from core.records import Prompt
from core.reward_features import FEATURES
from core.reward_watch import WatchRow, watch
from core.rewards import PARTS, AffineMap
from training.ppo_scoring import Row, ScoredRollout
from training.run import write_json

REWARDS, KL, USAGE, SAMPLES, WATCH = "rewards.csv", "kl_metrics.json", "teacher_usage.csv", "samples.jsonl", "hack_watch.json"
ESTIMATE, ACTUALS = "estimate.json", "actuals.json"
#: `score` is what PPO saw; `reward` the whole reward, `rules_reward` the reward without its teacher; `of_rollout` on late rows
REWARD_COLUMNS = (
    "rollout", "kind", "mode", "row", "sample_id", "language", "risk", "score", "reward", "rules_reward", *PARTS, "unscored_reason",
    "teacher_reason", "finish_reason", "num_tokens", "kl", *FEATURES, "of_rollout", "map_a", "map_b", "map_n",
)  # fmt: skip
USAGE_COLUMNS = (
    "rollout", "mode", "reason", "num_asked", "num_cached", "num_scored", "num_unscored", "num_requests", "prompt_tokens",
    "completion_tokens", "cost_usd", "latency_p50_s", "latency_p95_s",
)  # fmt: skip
#: rows of a samples table, worst to best
TABLE_ROWS = 64


class Table:
    """A CSV file with a `rollout` column."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, columns

    def keep_until(self, rollout: int) -> None:
        """Drop rows of later rollouts (written after the checkpoint that a resumed run starts from), and half a line at the end."""
        rows: list[dict[str, str]] = []
        if self.path.is_file():
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["rollout"].isdigit() and int(row["rollout"]) <= rollout]
        with self.path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def append(self, rows: Iterable[dict[str, Any]]) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns).writerows(rows)

    def read(self) -> list[dict[str, str]]:
        with self.path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


class RunFiles:
    """The tables of one run folder. Only the first of several processes has one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rewards = Table(folder / REWARDS, REWARD_COLUMNS)
        self.usage = Table(folder / USAGE, USAGE_COLUMNS)
        self.samples = folder / SAMPLES

    def keep_until(self, rollout: int) -> None:
        """Cut everything back to what the checkpoint of `rollout` knows."""
        self.rewards.keep_until(rollout)
        self.usage.keep_until(rollout)
        lines = self.samples.read_text("utf-8").splitlines() if self.samples.is_file() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["rollout"] <= rollout]
        self.samples.write_text("".join(line + "\n" for line in kept), "utf-8")

    def append(
        self, rollout: int, prompts: Sequence[Prompt], scored: ScoredRollout, num_tokens: Sequence[int], kl: Sequence[float]
    ) -> None:
        """One rollout, numbered from 1: its rows, verdicts that came late, and the map when it was fitted anew."""
        mark = {"rollout": rollout, "mode": scored.mode}
        rows: list[dict[str, Any]] = [
            {**mark, "kind": "sample", "row": i, **_cells(prompt, row, scored.map), "num_tokens": num_tokens[i], "kl": round(kl[i], 6)}
            for i, (prompt, row) in enumerate(zip(prompts, scored.rows, strict=True))
        ]
        for late in scored.late:
            rows.append({**mark, "kind": "late", "of_rollout": late.pending.rollout, **_cells(late.pending.prompt, late.row, None)})
        if scored.refit is not None:
            rows.append({**mark, "kind": "refit", **_map_cells(scored.refit)})
        self.rewards.append(rows)
        usage = scored.usage
        self.usage.append(
            [
                {
                    **mark,
                    "reason": scored.reason,
                    **{name: getattr(usage, name) for name in USAGE_COLUMNS[3:10]},
                    "cost_usd": None if usage.cost_usd is None else round(usage.cost_usd, 8),
                    "latency_p50_s": usage.latency_s(0.5),
                    "latency_p95_s": usage.latency_s(0.95),
                }
            ]
        )

    def append_samples(self, rollout: int, prompts: Sequence[Prompt], scored: ScoredRollout, kl: Sequence[float]) -> None:
        """At most `TABLE_ROWS` completions, evenly from the worst score to the best."""
        order = sorted(range(len(prompts)), key=lambda i: _rank(scored.rows[i]))
        picked = order if len(order) <= TABLE_ROWS else [order[k * (len(order) - 1) // (TABLE_ROWS - 1)] for k in range(TABLE_ROWS)]
        with self.samples.open("a", encoding="utf-8") as file:
            for i in picked:
                row = scored.rows[i]
                entry = {
                    "rollout": rollout,
                    "row": i,
                    "sample_id": prompts[i].sample_id,
                    "risk": prompts[i].risk.value,
                    "prompt": prompts[i].text,
                    "completion": row.completion.text,
                    "score": _number(row.score),
                    "mode": scored.mode,
                    "parts": row.reward.parts,
                    "critique": row.judgement.critique if row.judgement else "",
                    "kl": round(kl[i], 6),
                }
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def write_kl(self, history: Sequence[dict[str, float]]) -> None:
        """The whole history, rewritten atomically: how far the policy drifted, under which coefficient, and what stopped early."""
        write_json(
            self.folder / KL,
            {
                "rollouts": history,
                "max_kl": max((h["objective/kl"] for h in history), default=0.0),
                "num_stopped_early": sum(h["policy/stopped_early"] for h in history),
            },
        )

    def write_watch(self) -> None:
        """The watch for reward hacking over all rows so far; texts are known for the rows of the samples tables."""
        texts: dict[tuple[str, str], tuple[str, str]] = {}
        for line in self.samples.read_text("utf-8").splitlines():
            entry = json.loads(line)
            texts[str(entry["rollout"]), str(entry["row"])] = entry["prompt"], entry["completion"]
        rows = [
            _watch_row(row, *texts.get((row["rollout"], row["row"]), ("", ""))) for row in self.rewards.read() if row["kind"] == "sample"
        ]
        write_json(self.folder / WATCH, watch(rows).as_dict())

    def teacher_totals(self) -> dict[str, Any]:
        """Sums of teacher_usage.csv under the names of `training.actuals.actuals`; USD is None when one rollout's is not known."""
        rows = self.usage.read()
        costs = [row["cost_usd"] for row in rows]
        return {
            "teacher_calls": sum(int(row["num_asked"]) - int(row["num_cached"]) for row in rows),
            "teacher_cached": sum(int(row["num_cached"]) for row in rows),
            "teacher_prompt_tokens": sum(int(row["prompt_tokens"]) for row in rows),
            "teacher_completion_tokens": sum(int(row["completion_tokens"]) for row in rows),
            "usd": None if "" in costs else sum(map(float, costs)),
        }


def print_samples(prompts: Sequence[Prompt], scored: ScoredRollout, n: int = 4) -> None:
    """A few completions, the worst, the best and two between, for the person who reads the log."""
    order = sorted(range(len(prompts)), key=lambda i: _rank(scored.rows[i]))
    for i in (order[round(k * (len(order) - 1) / max(1, n - 1))] for k in range(n)):
        print(f"  [{scored.rows[i].score:+.3f}] {prompts[i].text}\n      {scored.rows[i].completion.text!r}", flush=True)


def part_means(rows: Sequence[Row]) -> dict[str, float]:
    """Mean of each part over the completions in which it was scored."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.reward.parts.items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def _cells(prompt: Prompt, row: Row, fitted: AffineMap | None) -> dict[str, Any]:
    return {
        "sample_id": prompt.sample_id,
        "language": prompt.language.value,
        "risk": prompt.risk.value,
        "score": _number(row.score),
        "reward": None if row.is_missing else row.reward.value,
        "rules_reward": row.rules_reward,
        **{name: row.reward.parts.get(name) for name in PARTS},
        "unscored_reason": row.reward.unscored_reason,
        "teacher_reason": row.judgement.unscored_reason if row.judgement else None,
        "finish_reason": row.completion.finish_reason,
        **{name: round(value, 4) for name, value in row.features.items()},
        **(_map_cells(fitted) if fitted else {}),
    }


def _map_cells(fitted: AffineMap) -> dict[str, Any]:
    return {"map_a": round(fitted.a, 6), "map_b": round(fitted.b, 6), "map_n": fitted.n}


def _watch_row(row: dict[str, str], prompt: str, text: str) -> WatchRow:
    return WatchRow(
        reward=float(row["score"]) if row["score"] else None,
        parts={name: float(row[name]) if row[name] else None for name in PARTS},
        num_tokens=int(row["num_tokens"]),
        rollout=int(row["rollout"]),
        features={name: float(row[name]) for name in FEATURES if row[name]},
        group=f"{row['language']}/{row['risk']}",
        prompt=prompt,
        text=text,
        sample_id=int(row["sample_id"]) if row["sample_id"] else None,
        is_finished=row["finish_reason"] == "stop" and row["unscored_reason"] != "empty_answer",
    )


def _rank(row: Row) -> float:
    """By score, what has none first."""
    return -math.inf if math.isnan(row.score) else row.score


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
