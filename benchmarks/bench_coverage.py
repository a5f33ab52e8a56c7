"""Do the bench's intervals hold what they say? Share of simulated experiments whose nominal 95 % interval holds the truth.

Win rate: independent votes with a share of ties. Bradley-Terry: votes with a leaning of every voter and of every question towards
certain versions; the truth is the strength that endless votes of endless voters on endless questions would give.

    python -m benchmarks.bench_coverage [num_win_rate] [num_ranking]      (figures: docs/benchmarks_bench.md)
"""

from __future__ import annotations

import sys
import time
from itertools import combinations

import numpy as np

from core.ranking import Battle, fit, rank, win_rate
from core.statistics import wilson

NAMES = ("a", "b", "c", "d")
STRENGTHS = np.array([0.6, 0.2, -0.2, -0.6])
#: (votes, questions, voters, spread of a voter's leaning, spread of a question's, how much voters like length)
SETTINGS = (
    (300, 100, 12, 0.0, 0.0, 0.0),
    (300, 100, 12, 0.5, 0.5, 0.0),
    (300, 100, 12, 0.5, 0.5, 0.6),
    (600, 60, 20, 0.5, 0.5, 0.0),
    (200, 200, 5, 0.3, 0.3, 0.0),
    (200, 40, 1, 0.0, 0.5, 0.0),
)


def cover_win_rate(num: int) -> None:
    """Tables of coverage over rates and shares of ties, with Wilson's own interval beside ours."""
    rng = np.random.default_rng(1)
    print("| votes | share of ties | coverage, ours | worst rate | coverage, Wilson with halves | mean width, ours | Wilson |")
    print("|---|---|---|---|---|---|---|")
    for n in (30, 100, 400):
        for ties in (0.0, 0.15, 0.3, 0.5):
            ours, old, wide, wide_old = [], [], [], []
            for rate in np.linspace(0.3, 0.7, 9):  # the true rate, ties included
                wins = rate - ties / 2
                drawn = rng.multinomial(n, [wins, ties, 1 - wins - ties], num)
                found = np.array([win_rate(int(w), int(d), n)[1:] for w, d, _ in drawn])
                plain = np.array([wilson(w + d / 2, n) for w, d, _ in drawn])
                ours.append(np.mean((found[:, 0] <= rate) & (rate <= found[:, 1])))
                old.append(np.mean((plain[:, 0] <= rate) & (rate <= plain[:, 1])))
                wide.append(np.mean(found[:, 1] - found[:, 0]))
                wide_old.append(np.mean(plain[:, 1] - plain[:, 0]))
            print(
                f"| {n} | {ties:.2f} | {np.mean(ours):.3f} | {min(ours, key=lambda x: abs(x - 0.95) * -1):.3f} | {np.mean(old):.3f} "
                f"| {np.mean(wide):.3f} | {np.mean(wide_old):.3f} |",
                flush=True,
            )


def truth(spread: float, liking: float, tie_share: float, with_style: bool) -> np.ndarray:
    """Strengths of the endless experiment, by the same fit on a very large sample without clusters."""
    rng = np.random.default_rng(99)
    design, won = draw_rows(rng, 400_000, spread * rng.normal(size=(400_000, 4)), liking, tie_share, with_style)
    return fit(design, won, np.ones(len(won)), 4, prior=0.0)[:4]


def draw_rows(
    rng: np.random.Generator, num: int, leaning: np.ndarray, liking: float, tie_share: float, with_style: bool
) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(list(combinations(range(4), 2)))[rng.integers(0, 6, num)]
    flip = rng.random(num) < 0.5
    left, right = np.where(flip, pairs[:, 1], pairs[:, 0]), np.where(flip, pairs[:, 0], pairs[:, 1])
    rows = np.arange(num)
    longer = 0.8 * rng.normal(size=num) + 0.5 * (np.array([1.0, 0.0, 0.0, -1.0])[left] - np.array([1.0, 0.0, 0.0, -1.0])[right])
    utility = STRENGTHS[left] - STRENGTHS[right] + leaning[rows, left] - leaning[rows, right] + liking * longer
    won = (rng.random(num) < 1 / (1 + np.exp(-utility))).astype(float)
    won[rng.random(num) < tie_share] = 0.5
    design = np.zeros((num, 4 + with_style))
    design[rows, left] += 1
    design[rows, right] -= 1
    if with_style:
        design[:, 4] = longer
    return design, won


def cover_ranking(num: int) -> None:
    """Coverage of every version's strength, over `num` experiments of each setting."""
    print("| votes | questions | voters | voter, question leaning | liking of length | coverage of four strengths | mean half width |")
    print("|---|---|---|---|---|---|---|")
    for votes, questions, voters, by_voter, by_question, liking in SETTINGS:
        spread, ties, with_style = float(np.hypot(by_voter, by_question)), 0.2, liking > 0
        # one voter alone is no sample of voters: the truth is that person's
        real = truth(by_question if voters == 1 else spread, liking, ties, with_style)
        rng = np.random.default_rng(votes + voters)
        hits, widths = [], []
        for experiment in range(num):
            question, voter = rng.integers(0, questions, votes), rng.integers(0, voters, votes)
            leaning = by_voter * rng.normal(size=(voters, 4))[voter] + by_question * rng.normal(size=(questions, 4))[question]
            design, won = draw_rows(rng, votes, leaning, liking, ties, with_style)
            battles = [
                Battle(
                    NAMES[int(np.argmax(row[:4]))],
                    NAMES[int(np.argmin(row[:4]))],
                    float(w),
                    int(q),
                    int(v),
                    (float(row[4]),) if with_style else (),
                )
                for row, w, q, v in zip(design, won, question, voter, strict=True)
            ]
            found = {s.name: s for s in rank(battles, with_style=with_style, resamples=150, seed=experiment).standings}
            hits.append([found[n].low <= real[i] <= found[n].high for i, n in enumerate(NAMES)])
            widths.append([(found[n].high - found[n].low) / 2 for n in NAMES])
        print(
            f"| {votes} | {questions} | {voters} | {by_voter}, {by_question} | {liking} | {np.mean(hits):.3f} "
            f"({', '.join(f'{x:.3f}' for x in np.mean(hits, 0))}) | {np.mean(widths):.2f} |",
            flush=True,
        )


def main() -> None:
    """Print both tables."""
    num_win, num_rank = (int(a) for a in (sys.argv[1:3] if len(sys.argv) > 2 else ("10000", "1000")))
    started = time.perf_counter()
    cover_win_rate(num_win)
    print(f"win rate: {time.perf_counter() - started:.0f} s\n", flush=True)
    started = time.perf_counter()
    cover_ranking(num_rank)
    print(f"ranking: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
