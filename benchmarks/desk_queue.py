"""How long the desk's list takes with 50,000 cases, 20 readers and a running draw: 25 rows, every order, filter and search.

    .venv/bin/python benchmarks/desk_queue.py [--cases 50000] [--rounds 40]

Builds its own database in a temporary folder. Prints p50 and p95 in milliseconds of the list alone and of a whole answer to the page.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from sqlalchemy import insert

from core.desk import mailbox, queue, search
from core.desk.draw import make_draw
from core.desk.queue import Wish
from core.home import open_home
from core.jobs.configs_review import DrawConfig
from core.settings import load_settings
from db import tables as t
from db.base import utc_now
from db.engine import database, read_session, write_session

TOPICS = ("chest", "child", "drugs", "skin", "eye", "pregnancy", "mind", "bones")
EN = "I have had {a} for {n} days and {b}. Can I take {drug}?".format
ZH = "我{a}已经{n}天，还{b}，可以吃{drug}吗？".format
WORDS = {
    "en": (
        ("chest pain", "a rash", "fever", "back pain"),
        ("cold sweat", "no appetite", "blurred vision"),
        ("ibuprofen", "warfarin", "aspirin"),
    ),
    "zh": (("胸口痛", "起皮疹", "发烧", "腰痛"), ("出冷汗", "没胃口", "视力模糊"), ("布洛芬", "华法林", "阿司匹林")),
}


def fill(num: int) -> list[int]:
    """Rows by the thousand; returns the readers."""
    rng = random.Random(0)
    now = utc_now()
    with write_session() as session:
        people = [t.User(username=f"doc{n}", display_name=f"Dr {n}", role="clinician") for n in range(20)]
        session.add_all([*people, t.Dataset(name="bench", kind="prompts"), t.ModelVersion(name="v1", kind="sft")])
        session.flush()
        readers = [person.id for person in people]
    for start in range(1, num + 1, 5000):
        samples: list[dict[str, Any]] = []
        completions: list[dict[str, Any]] = []
        conflicts: list[dict[str, Any]] = []
        for i in range(start, min(start + 5000, num + 1)):
            language = "zh" if i % 2 else "en"
            a, b, drug = (rng.choice(words) for words in WORDS[language])
            text = (ZH if language == "zh" else EN)(a=a, b=b, drug=drug, n=i)
            samples.append(
                {"id": i, "dataset_id": 1, "text": text, "messages": [{"role": "user", "content": text}], "language": language, "split": "train",  # noqa: E501
                 "content_hash": str(i), "category": rng.choice(TOPICS), "risk": rng.choice(("low", "medium", "high")), "source": "", "meta": {}, "created_at": now}  # noqa: E501
            )  # fmt: skip
            answer = text * 3
            completions.append(
                {"id": i, "sample_id": i, "text": answer, "thinking": text, "answer": answer, "content_hash": str(i), "model_version_id": 1,
                 "source": "sampled", "finish_reason": "stop", "decoding": {}, "created_at": now}
            )  # fmt: skip
            conflicts.append(
                {"id": i, "completion_id": i, "sample_id": i, "kind": "score_gap", "gap": rng.random(), "priority": rng.random(), "advice": "",  # noqa: E501
                 "status": "adjudicated" if i % 10 == 0 else "open", "version": 0, "overlap": 1, "created_at": now}
            )  # fmt: skip
        signed = [
            {"conflict_id": row["id"], "user_id": readers[row["id"] // 10 % 20], "stage": "signed", "client_id": f"bench-{row['id']}",
             "verdict": "minor", "criteria": {}, "marks": {}, "note": "", "revision_reason": "", "because": [], "role": "reader", "taken": {}, "created_at": now}  # noqa: E501
            for row in conflicts if row["status"] == "adjudicated"
        ]  # fmt: skip
        with write_session() as session:
            for table, rows in ((t.Sample, samples), (t.Completion, completions), (t.Conflict, conflicts), (t.Adjudication, signed)):
                session.execute(insert(table), rows)
    return readers


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
