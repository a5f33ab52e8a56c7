"""How long the desk's list takes with 50,000 cases, 20 readers and a running draw: 25 rows, every order, filter and search.

    .venv/bin/python benchmarks/desk_queue.py [--cases 50000] [--rounds 40]

Builds its own database in a temporary folder. Prints p50 and p95 in milliseconds of the list alone and of a whole answer to the page.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.load.fill import fill
from core.desk import mailbox, queue, search
from core.desk.draw import make_draw
from core.desk.queue import Wish
from core.home import open_home
from core.jobs.configs_review import DrawConfig
from core.settings import load_settings
from db.engine import database, read_session


def timed(name: str, run: Callable[[int], object], readers: list[int], rounds: int) -> None:
    times, busy = [], []
    for n in range(rounds):
        started, worked = time.perf_counter(), time.process_time()
        run(readers[n % len(readers)])
        times.append(1000 * (time.perf_counter() - started))
        busy.append(1000 * (time.process_time() - worked))
    times.sort()
    busy.sort()
    last = min(len(times) - 1, int(0.95 * len(times)))
    print(f"{name:34} p50 {times[len(times) // 2]:7.1f} ms   p95 {times[last]:7.1f} ms   processor p95 {busy[last]:6.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=40)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CONSILIUM_HOME"] = folder
        open_home(load_settings({"CONSILIUM_HOME": folder}), with_migration=True)
        readers = fill(asked.cases)
        started = time.perf_counter()
        indexed = search.refresh()
        print(f"{indexed} cases indexed for search in {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        drawn = make_draw(DrawConfig(num_controls=0))
        print(
            f"draw of {sum(drawn.num_by_purpose.values())} cases from {drawn.frame_sizes['conflict']} in {time.perf_counter() - started:.1f} s"  # noqa: E501
        )

        def rows(**wish: Any) -> Callable[[int], object]:
            order = wish.pop("order", "mixed")

            def run(user_id: int) -> object:
                with read_session() as session:
                    return queue.queue(session, user_id, order=order, wish=Wish(**wish), size=25)

            return run

        for order in queue.ORDERS:
            timed(f"25 rows, {order}", rows(order=order), readers, asked.rounds)
        timed("25 rows, topic and high risk", rows(topic="eye", risk="high"), readers, asked.rounds)
        timed("25 rows, search 华法林 视力", rows(text="华法林 视力"), readers, asked.rounds)
        timed("25 rows, search warfarin vision", rows(text="warfarin vision"), readers, asked.rounds)
        timed("25 rows, search 痛 (half of all)", rows(text="痛"), readers, asked.rounds)

        def count(user_id: int) -> object:
            with read_session() as session:
                return queue.counts(session, user_id)

        timed("counts of the four lists", count, readers, asked.rounds)
        timed(
            "whole answer to the page",
            lambda user_id: mailbox.deliver(user_id, "zh", {"view": {"strings_version": "x"}}),
            readers,
            asked.rounds,
        )
        database().dispose()


if __name__ == "__main__":
    main()
