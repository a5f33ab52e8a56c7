"""How long it takes to verify an audit chain of 100,000 entries, and that one changed byte in it is found.

    python -m benchmarks.audit_verify [--entries 100000]

Makes a database in a temporary folder, appends entries like those of a review team, and walks the chain three times.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import insert

from core import audit
from db import tables as t
from db.base import utc_now
from db.engine import database, open_database, read_session, write_session
from db.migrate import migrate


def fill(num_entries: int) -> None:
    """Append a chain at once: hashes by `audit.entry_hash`, rows by one INSERT per 5,000."""
    previous, start, rows = audit.GENESIS, utc_now(), []
    with write_session() as session:
        for number in range(1, num_entries + 1):
            detail = {"conflict_id": number, "completion_id": number * 3, "verdict": "acceptable", "row_sha256": previous}
            entry = t.AuditEntry(
                action="adjudicate_signed",
                object_type="adjudication",
                object_id=str(number),
                previous_hash=previous,
                entry_hash="",
                detail=detail if number % 5 else {"理由": "胸痛伴冷汗，应立即拨打 120", **detail},
                reason="" if number % 3 else "danger sign missed by the answer",
                created_at=start + timedelta(seconds=number),
                after_hash=previous,
            )
            entry.id = number
            previous = entry.entry_hash = audit.entry_hash(entry)
            rows.append({c.key: getattr(entry, c.key) for c in t.AuditEntry.__table__.columns})
            if len(rows) == 5000 or number == num_entries:
                session.execute(insert(t.AuditEntry), rows)
                rows = []


def timed() -> tuple[float, float, audit.Examined]:
    """Wall seconds, CPU seconds, and what was found."""
    started, cpu = time.perf_counter(), time.process_time()
    with read_session() as session:
        found = audit.examine(session)
    return time.perf_counter() - started, time.process_time() - cpu, found


def main() -> None:
    """Print seconds per walk, and what is found after one byte was changed in the middle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    num_entries: int = parser.parse_args().entries
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chain.db"
        migrate(f"sqlite:///{path}")
        open_database(f"sqlite:///{path}")
        fill(num_entries)
        print(f"{num_entries:,} entries, {path.stat().st_size / 1e6:.0f} MB")
        for wall, cpu, found in (timed() for _ in range(3)):
            print(f"{wall:.2f} s, of which CPU {cpu:.2f} s: {'holds' if found.broken is None else found.broken}")
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE audit_entries SET reason = reason || '.' WHERE id = ?", (num_entries // 2,))
        print(timed()[2].broken)
        database().dispose()


if __name__ == "__main__":
    main()
