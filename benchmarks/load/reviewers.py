"""Twenty readers at the desk for half an hour, four verdicts a minute each: is anything lost, doubled or overwritten?

    .venv/bin/python -m benchmarks.load.reviewers [--readers 20] [--per-minute 4] [--minutes 30] [--cases 50000]

Each reader is a tab on the real server (`benchmarks.load.person`); they choose from the same list and so do meet. Every
decision that the server acknowledged is looked for in the database afterwards. Prints and returns one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select

from benchmarks.load.person import Person
from benchmarks.load.site import Site, site
from core import audit
from db import tables as t
from db.engine import read_session

FIRST_READERS_CASES_OF_THE_PAST = "bench-"


async def work(person: Person, period_s: float, until: float) -> None:
    """Decide once a period, at a moment of the reader's own, until the time is over."""
    await asyncio.sleep(person.rng.uniform(0, period_s))
    while time.monotonic() < until:
        began = time.monotonic()
        await person.decide()
        await asyncio.sleep(max(0.0, period_s * person.rng.uniform(0.6, 1.4) - (time.monotonic() - began)))


async def shift(people: list[Person], period_s: float, minutes: float) -> None:
    for person in people:
        await person.open()
    until = time.monotonic() + 60 * minutes
    async with asyncio.TaskGroup() as group:
        for person in people:
            group.create_task(work(person, period_s, until))
    for person in people:
        await person.close()


def compare(where: Site, people: list[Person], *, after: int = 0) -> dict[str, Any]:
    """What was acknowledged against what is stored; `after` is the last decision that was there before."""
    with where.database(), read_session() as session:
        new = session.scalars(select(t.Adjudication).where(t.Adjudication.id > after))
        rows = [row for row in new if not row.client_id.startswith(FIRST_READERS_CASES_OF_THE_PAST)]
        chain_breaks_at = audit.verify(session)
    stored = {row.id: row for row in rows}
    found = {row.id: (row.conflict_id, row.client_id) for row in rows}
    acknowledged = [saved for person in people for saved in person.saved]
    notes = {saved.adjudication_id: f"by {person.username}" for person in people for saved in person.saved}
    times = Counter((row.conflict_id, row.user_id, row.stage) for row in rows)
    return {
        "num_acknowledged": len(acknowledged),
        "num_stored": len(rows),
        "num_lost": sum(found.get(s.adjudication_id) != (s.case, s.client_id) for s in acknowledged),
        "num_doubled": sum(n - 1 for n in times.values()) + len(acknowledged) - len({s.adjudication_id for s in acknowledged}),
        "num_overwritten": sum(stored[key].note != note for key, note in notes.items() if key in stored),
        "num_unasked": len(set(stored) - set(notes)),
        "audit_chain_breaks_at": chain_breaks_at,
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50_ms": 1000 * cuts[49], "p95_ms": 1000 * cuts[94], "p99_ms": 1000 * cuts[98], "max_ms": 1000 * max(seconds)}


def run(num_readers: int, per_minute: float, minutes: float, num_cases: int) -> dict[str, Any]:
    """The whole measurement on a home of its own."""
    with tempfile.TemporaryDirectory() as folder, site(Path(folder), num_cases=num_cases, num_readers=num_readers) as where:
        people = [Person(where, name, seed) for seed, name in enumerate(where.readers)]
        asyncio.run(shift(people, 60 / per_minute, minutes))
        memory = psutil.Process(where.process.pid).memory_info().rss / 2**20
        saves = [s for person in people for s in person.seconds]
        return {
            "readers": num_readers,
            "minutes": minutes,
            "num_cases": num_cases,
            "num_claims_lost_to_a_colleague": sum(person.num_refused for person in people),
            **{name: round(value, 1) for name, value in percentiles(saves).items()},
            "web_mb": round(memory),
            "load_average": round(psutil.getloadavg()[0], 1),
            **compare(where, people),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--per-minute", type=float, default=4)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--cases", type=int, default=50_000)
    asked = parser.parse_args()
    random.seed(0)
    print(json.dumps(run(asked.readers, asked.per_minute, asked.minutes, asked.cases), indent=1))


if __name__ == "__main__":
    main()
