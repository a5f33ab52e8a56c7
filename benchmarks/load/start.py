"""Cold start with 50,000 cases: seconds until the first page is answered, and the memory of the web process then.

    .venv/bin/python -m benchmarks.load.start [--cases 50000] [--times 5]

The file cache of the system is dropped before each start where this process may do that (`cold`); else that is said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.load.person import Person
from benchmarks.load.site import site, start

DROP = Path("/proc/sys/vm/drop_caches")


def drop_file_cache() -> bool:
    """Make the next start read from the disk. False where the system does not let us."""
    os.sync()
    try:
        DROP.write_text("3")
    except OSError:
        return False
    return True


async def first_list(person: Person) -> float:
    """Seconds from opening the desk to its first list of cases."""
    began = time.perf_counter()
    await person.open()
    seconds = time.perf_counter() - began
    await person.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, site(Path(folder), num_cases=asked.cases, num_readers=1) as where:
        for _ in range(asked.times):
            where.process.send_signal(signal.SIGTERM)
            where.process.wait(20)
            is_cold = drop_file_cache()
            where.process, seconds = start(where.environment, where.home)
            process = psutil.Process(where.process.pid)
            at_start = process.memory_info().rss / 2**20
            desk = asyncio.run(first_list(Person(where, "reader0", 0)))
            after = process.memory_info().rss / 2**20
            seen = {"first_page_s": round(seconds, 2), "cold": is_cold, "mb": round(at_start)}
            found.append({**seen, "first_desk_s": round(desk, 2), "mb_then": round(after)})
    print(json.dumps({"num_cases": asked.cases, "load_average": psutil.getloadavg()[0], "starts": found}, indent=1))


if __name__ == "__main__":
    main()
