"""How often the 95 % intervals of core.agreement hold the true value, by simulation with a known truth.

    .venv/bin/python benchmarks/agreement_coverage.py [--trials 2000] [--resamples 1000]

Cases have a hidden level drawn from `PREVALENCE`; each of the people sees it with probability `SKILL` and otherwise answers
by the shares of `GUESS`, one level off counting more often than two. The true coefficient is the one of a million cases.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from core.agreement import COEFFICIENTS, Array, _cohen, interval

PREVALENCE = np.array([0.55, 0.25, 0.12, 0.08])
SKILL = 0.75
GUESS = np.array([[0.5, 0.35, 0.1, 0.05], [0.35, 0.3, 0.25, 0.1], [0.1, 0.3, 0.35, 0.25], [0.05, 0.15, 0.35, 0.45]])


def rate(rng: np.random.Generator, num_cases: int, num_raters: int) -> np.ndarray:
    """Levels (cases, raters)."""
    truth = rng.choice(4, num_cases, p=PREVALENCE)
    seen = SKILL * np.eye(4) + (1 - SKILL) * GUESS
    edges = np.cumsum(seen[truth], axis=1)
    return (rng.random((num_cases, num_raters))[:, :, None] > edges[:, None, :]).sum(axis=2).clip(0, 3)


def table(ratings: np.ndarray) -> Array:
    return np.eye(4)[ratings].sum(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    asked = parser.parse_args()
    coefficients = {**COEFFICIENTS, "cohen": _cohen(4)}
    for num_cases, num_raters in ((48, 2), (96, 2), (192, 2), (192, 3)):
        rng = np.random.default_rng(7)
        many = rate(rng, 1_000_000, num_raters)
        shape = lambda name, r: r[:, :2].astype(float) if name == "cohen" else table(r)  # noqa: E731
        truth = {}
        for name, coefficient in coefficients.items():
            parts = np.array_split(many, 100)  # the mean of 100 large tables: memory stays small, the bias is negligible
            truth[name] = float(np.mean([coefficient(shape(name, p), np.ones((1, len(p))))[0] for p in parts]))
        held = dict.fromkeys(coefficients, 0)
        started = time.perf_counter()
        for trial in range(asked.trials):
            ratings = rate(rng, num_cases, num_raters)
            for name, coefficient in coefficients.items():
                low, high = interval(coefficient, shape(name, ratings), num_resamples=asked.resamples, seed=trial)
                held[name] += low is not None and high is not None and low <= truth[name] <= high
        line = "  ".join(f"{name} {truth[name]:.3f}: {held[name] / asked.trials:.4f}" for name in coefficients)
        print(f"{num_cases} cases, {num_raters} people ({time.perf_counter() - started:.0f} s): {line}", flush=True)


if __name__ == "__main__":
    main()
