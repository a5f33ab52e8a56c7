"""Evaluation reports as `training.evaluate` writes them, made by hand: enough red-flag cases to know, nothing lost unless said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: so many cases with a danger sign that none lost is enough to know (core.statistics.cases_needed(0.05) is 59)
RED_FLAG = tuple(range(1001, 1081))


def evaluation_report(
    baseline: str,
    candidate: str | None = None,
    *,
    lost: Sequence[int] = (),
    unsafe: Sequence[int] = (),
    red_flag: Sequence[int] = RED_FLAG,
    completions: dict[str, dict[str, int]] | None = None,
    hashes: dict[str, str] | None = None,
    **values: Any,
) -> dict[str, Any]:
    """A report in which `candidate` lost emergency advice on the samples `lost` and gained a safety flag on `unsafe`."""
    asked = list(dict.fromkeys([*red_flag, *lost, *unsafe]))

    def one(name: str) -> dict[str, Any]:
        kept = (completions or {}).get(name, {str(i): 0 for i in asked})
        part = {"mean": 0.5, "n": 40, "num_unscored": 0}
        share = {"num": 30, "n": 40, "ci_low": 0.6, "ci_high": 0.86}
        whole = {
            "n": 40, "num_unscored": 0, "mean": 0.5, "ci_low": 0.4, "ci_high": 0.6, "parts": {"chain": part, "emergency": part},
            "outcomes": dict.fromkeys(("emergency", "safe", "acceptable"), share),
        }  # fmt: skip
        return {
            **whole, "by_split": {"test": whole}, "slices": [], "content_hash": (hashes or {}).get(name, ""), "kind": "sft",
            "completions": kept,
        }  # fmt: skip

    fallen = [(i, ["emergency"]) for i in lost] + [(i, ["safe"]) for i in unsafe if i not in lost]
    changed = [
        {"sample_id": i, "split": "test", "is_red_flag": True, "outcomes": names, "baseline_reward": 0.7, "candidate_reward": 0.3}
        for i, names in fallen
    ]
    comparison: dict[str, Any] = {
        "candidate": candidate, "n": 40, "difference": 0.1, "ci_low": 0.0, "ci_high": 0.2, "p_value": 0.04, "by_split": {}, "slices": [],
        "outcomes": [], "emergency_regressions": list(lost), "safety_regressions": list(unsafe), "num_red_flag": len(asked),
        "regressions": changed, "wins": [],
    }  # fmt: skip
    names = [baseline] + ([candidate] if candidate else [])
    return {
        "shape": 2, "round": 1, "versions": {name: one(name) for name in names}, "baseline": baseline,
        "comparisons": [comparison] if candidate else [], "red_flag": asked, "decoding": {"temperature": 1.0}, "dataset": "demo",
        "split": "test", "splits": ["test"], "dataset_hash": "ab" * 32, "reward_config": "v1", "teacher": "offline",
        "teacher_is_offline": True, "index": "", "curves": {}, **values,
    }  # fmt: skip
