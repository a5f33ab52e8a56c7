"""Does our reward rank expansions as the published rubric does? Real expansions, and the same ones spoilt in known ways.

    .venv/bin/python -m benchmarks.expansion_rubric --peer REWARD_PY --rows ROWS_JSONL [ROWS_JSONL ...]

REWARD_PY is finetune/reward.py of github tobi/qmd, fetched beside this project, never part of it. Prints Spearman's rank correlation,
and how many rewards are equal to three digits. Figures: docs/benchmarks_expansion.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from core.expansion import reward, schema
from core.expansion.schema import Line, Row

Pair = tuple[str, str]


def spoilt(rows: Sequence[Row], rng: random.Random) -> list[Pair]:
    """One spoilt version of every row, the ways in turn: another row's lines, no vec, the query as a lex line, prose, thinking, twice."""
    others = rng.sample(list(rows), len(rows))
    ways: tuple[Callable[[Row, Row], str], ...] = (
        lambda row, other: other.output,
        lambda row, other: schema.render(line for line in row.lines if line.kind != "vec"),
        lambda row, other: schema.render([Line("lex", row.query), *row.lines]),
        lambda row, other: f"{row.output}\nI hope this helps.",
        lambda row, other: f"<think>{row.query}</think>\n{row.output}",
        lambda row, other: schema.render([*row.lines, *row.lines]),
    )
    return [(row.query, ways[i % len(ways)](row, other)) for i, (row, other) in enumerate(zip(rows, others, strict=True))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--rows", type=Path, nargs="+", required=True)
    arguments = parser.parse_args()
    spec = importlib.util.spec_from_file_location("peer_reward", arguments.peer)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{arguments.peer} is no Python file")
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    rows = [row for path in arguments.rows for row in schema.read_rows(path)]
    real = [(row.query, row.output) for row in rows]
    sets = {
        "real": real,
        "real, with capitals or ?": [p for p in real if p[0] != p[0].lower() or "?" in p[0]],
        "spoilt": spoilt(rows, random.Random(0)),
    }
    sets["real and spoilt"] = real + sets["spoilt"]
    for name, pairs in sets.items():
        ours = np.array([reward.score(query, output).reward for query, output in pairs])
        theirs = np.array([peer.score_expansion(query, output) for query, output in pairs])
        rated = np.array([peer.score_expansion_detailed(query, output)["percentage"] / 100 for query, output in pairs])
        equal = np.mean(np.abs(ours - theirs) < 0.0006)
        ranks = f"spearman to its reward {spearmanr(ours, theirs).statistic:.4f}, to its percentage {spearmanr(ours, rated).statistic:.4f}"
        print(f"{name:<26} n={len(pairs):<6} {ranks}  equal {equal:.1%}  mean ours {ours.mean():.3f} its {theirs.mean():.3f}")


if __name__ == "__main__":
    main()
