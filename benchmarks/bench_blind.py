"""Is the left side chosen evenly? 10,000 blind pairs by the bench's own `open_pair` on a real database, several people and versions.

python -m benchmarks.bench_blind [num_pairs]      (figures: docs/benchmarks_bench.md)
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path

from sqlalchemy import select

from core.home import open_home
from core.preference import Ballot, Decoding, Produced, cast, close_pair, open_pair, void_pair
from core.records import Vote
from core.settings import load_settings
from db import tables as t
from db.engine import database, read_session, write_session
from tests import factories

PEOPLE, VERSIONS = 8, 4


def main() -> None:
    """Print the share of pairs in which the older version stood left, over all and for the worst person and pair of versions."""
    num = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        open_home(load_settings({"CONSILIUM_HOME": str(Path(folder) / "home")}), with_migration=True)
        with write_session() as session:
            people = [factories.user(session, "product").id for _ in range(PEOPLE)]
            names = [factories.version(session).name for _ in range(VERSIONS)]
            sample = factories.sample(session).id
        meetings = list(combinations(names, 2))
        started = time.perf_counter()
        for i in range(num):
            user, pair = people[i % PEOPLE], meetings[(i // PEOPLE) % len(meetings)]
            made = open_pair(user, *(pair if i % 3 else pair[::-1]), sample, mode="blind", decoding=Decoding(0.2, 7))
            if i % 10 == 9:
                void_pair(user, made.id, "left")
            elif i % 50 == 0:  # some are voted on: nothing of a vote may move the next side
                close_pair(user, made.id, *(Produced(f"Answer {made.id} {side}.", "stop", 1.0) for side in ("a", "b")))
                cast(user, made.id, Ballot(f"vote-{made.id}", Vote.LEFT))
        seconds = time.perf_counter() - started
        with read_session() as session:
            rows = session.execute(select(t.BenchPair.user_id, t.BenchPair.left_version_id, t.BenchPair.right_version_id)).all()
        database().dispose()
    is_old_left = [left < right for _, left, right in rows]
    groups: dict[tuple[int, int, int], list[bool]] = {}
    for (user, left, right), is_left in zip(rows, is_old_left, strict=True):
        groups.setdefault((user, min(left, right), max(left, right)), []).append(is_left)
    shares = sorted(sum(g) / len(g) for g in groups.values())
    sizes = [len(g) for g in groups.values()]
    print(f"{len(rows)} pairs by {PEOPLE} people over {len(meetings)} pairs of versions in {seconds:.0f} s")
    print(f"older version on the left: {sum(is_old_left) / len(rows):.4f}")
    print(f"per person and pair of versions ({len(shares)} groups of {min(sizes)} to {max(sizes)}): {shares[0]:.3f} to {shares[-1]:.3f}")


if __name__ == "__main__":
    main()
