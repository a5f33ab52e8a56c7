"""What a run really cost, under the keys of its estimate, so that a page can put the two side by side.

    write_json(run.dir / "estimate.json", estimate_ppo(config, facts_for("ppo", config, run.home)))    # before the first step
    write_json(run.dir / "actuals.json", actuals("ppo", ...))                                          # at the end

Called by training scripts.
"""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch


def peak_memory_bytes() -> float:
    """The most this process has held: CUDA's allocator on a GPU, else the largest resident size."""
    if torch.cuda.is_available() and torch.cuda.memory_allocated():
        return float(torch.cuda.max_memory_allocated())
    scale = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale)


def actuals(
    kind: str,
    *,
    num_samples: int,
    seconds: float,
    prompt_tokens: int = 0,
    generated_tokens: int = 0,
    trained_tokens: int = 0,
    teacher_name: str = "",
    teacher_calls: int = 0,
    teacher_cached: int = 0,
    teacher_prompt_tokens: int = 0,
    teacher_completion_tokens: int = 0,
    usd: float | None = 0.0,
    attempts: int = 1,
) -> dict[str, Any]:
    """The contents of actuals.json. `seconds` is the work of all attempts; `usd` is None when calls were made at an unknown price."""
    on_gpu = torch.cuda.is_available() and torch.cuda.memory_allocated() > 0
    return {
        "kind": kind,
        "num_samples": num_samples,
        "tokens": {
            "prompt": prompt_tokens,
            "generated": generated_tokens,
            "trained": trained_tokens,
            "teacher_prompt": teacher_prompt_tokens,
            "teacher_completion": teacher_completion_tokens,
        },
        "teacher": {"name": teacher_name, "num_calls": teacher_calls, "num_cached": teacher_cached, "usd": usd},
        "seconds": seconds,
        "device": {"kind": "cuda" if on_gpu else "cpu", "name": torch.cuda.get_device_name() if on_gpu else "CPU", "num": 1},
        "device_hours": seconds / 3600,
        "memory": {"peak": peak_memory_bytes()},
        "attempts": attempts,
    }
