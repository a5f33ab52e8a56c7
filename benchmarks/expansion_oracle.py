"""Do the expansions written offline find more, when the passage is known that they are written from? An upper bound for a model.

    .venv/bin/python -m benchmarks.expansion_oracle FOLDER [--num 500] [--seed 0]

Takes training pairs of a folder in BEIR form, writes their expansions (core.expansion.offline), and searches query and lines as Ask
does (BM25 for every line, reciprocal rank fusion, a line counts half). Prints recall@10 with and without, the paired 95 % interval,
and what the reward says of right expansions and of another question's, put behind this question's topic. Figures:
docs/benchmarks_expansion.md.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np

from core.expansion import generate, reward, schema
from core.expansion.grounding import over_folder
from core.expansion.offline import OfflineWriter
from core.expansion.schema import Line, Row
from core.retrieval.fuse import rrf
from core.retrieval.judged import read_corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    writer = OfflineWriter({d.file: f"{d.title} {d.text}".strip() for d in read_corpus(folder)}, list(generate.pairs_of(folder)))
    rng = random.Random(arguments.seed)
    rows = list(writer.rows(rng.sample(range(len(writer.pairs)), min(arguments.num, len(writer.pairs)))))
    grounding = over_folder(folder)

    def hit(ranking: list[str], row: Row) -> float:
        relevant = set(grounding.relevant(row.query))
        return len(relevant & set(ranking[:10])) / min(10, len(relevant))

    plain, expanded = [], []
    for row in rows:
        query = list(grounding.search(Line("lex", row.query)))
        lines = [list(grounding.search(line)) for line in row.lines]
        plain.append(hit(query, row))
        expanded.append(hit([d for d, _ in rrf([query, *lines], [1.0, *[0.5] * len(lines)])], row))
    gain = np.array(expanded) - np.array(plain)
    draw = np.random.default_rng(0)
    low, high = np.percentile([draw.choice(gain, len(gain)).mean() for _ in range(2000)], (2.5, 97.5))
    found = f"recall@10 plain {np.mean(plain):.3f} expanded {np.mean(expanded):.3f}"
    print(f"{folder.name} n={len(rows)} {found} gain {gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
    foreign = rng.sample(rows, len(rows))
    swapped = [(row, _with_topic(row, other)) for row, other in zip(rows, foreign, strict=True) if row.family != other.family]
    for name, pairs in (("right", [(row, row.output) for row in rows]), ("another's", swapped)):
        scored = [reward.score(row.query, output, grounding=grounding) for row, output in pairs]
        values = [one.reward for one in scored]
        print(
            f"  {name:<10} rubric {np.mean([s.rubric for s in scored]):.3f} with retrieval {np.mean(values):.3f} "
            f"(10 % {np.percentile(values, 10):.3f}, 90 % {np.percentile(values, 90):.3f}); "
            f"below 0.5: {np.mean(np.array(values) < 0.5):.1%}"
        )


def _with_topic(row: Row, other: Row) -> str:
    """Another question's lines with this question's topic in place of its own: in the right domain, and wrong."""
    topic, foreign = OfflineWriter.topic(row.query), OfflineWriter.topic(other.query)
    lines = [Line(line.kind, line.text.replace(foreign, "").strip() or foreign) for line in other.lines]
    return schema.render([Line(line.kind, f"{topic} {line.text}") for line in lines])


if __name__ == "__main__":
    main()
