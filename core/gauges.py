"""The state of the product as numbers, for a monitoring system: queues, jobs, decisions, record, disk, processes. Read, never stored.

Names follow Prometheus: a name, labels, a value. Each scrape costs some counting queries, so answers are kept for `KEEP_S`. A database
that does not answer is a number too (`consilium_database_up 0`); what needs no database is told all the same. Called by app.metrics.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute, Session

from core import health
from core.errors import Unavailable
from core.home import current_home
from core.records import ConflictStatus, JobStatus
from db import tables as t
from db.engine import database, read_session

KEEP_S = 5.0


@dataclass(frozen=True, slots=True)
class Gauge:
    """One metric with all its series. `kind`: gauge or counter; `series`: (labels, value)."""

    name: str
    kind: str
    help: str
    series: tuple[tuple[tuple[tuple[str, str], ...], float], ...]


_kept: dict[Path, tuple[float, list[Gauge]]] = {}


def read() -> list[Gauge]:
    """All of them, at most `KEEP_S` old."""
    root, now = current_home().root, time.monotonic()
    kept = _kept.get(root)
    if kept is None or now - kept[0] > KEEP_S:
        _kept.clear()
        kept = _kept[root] = (now, [*_of_machine(), *_of_database()])
    return kept[1]


def _plain(name: str, kind: str, text: str, value: float) -> Gauge:
    return Gauge(name, kind, text, (((), value),))


def _by(name: str, kind: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> Gauge:
    return Gauge(name, kind, text, tuple((((label, key),), value) for key, value in values))


def _of_machine() -> Iterator[Gauge]:
    home = current_home()
    disk = shutil.disk_usage(home.root)
    yield Gauge("consilium_build_info", "gauge", "Version of the product.", (((("version", health.version()),), 1.0),))
    yield _plain("consilium_disk_free_bytes", "gauge", "Free space under the data folder.", disk.free)
    yield _plain("consilium_disk_size_bytes", "gauge", "Size of the disk of the data folder.", disk.total)
    found = health.processes()
    yield _by("consilium_process_up", "gauge", "Whether a process of the product runs.", "process", ((p.name, p.is_running) for p in found))
    restarts = ((p.name, p.num_restarts) for p in found)
    yield _by(
        "consilium_process_restarts_total", "counter", "Times a process was started again since the launcher began.", "process", restarts
    )
    age = health.worker_beat_age_s()
    if age is not None:
        yield _plain("consilium_worker_heartbeat_age_seconds", "gauge", "Seconds since the worker's last sign of life.", age)
    if database().is_sqlite:
        path = Path(str(make_url(database().url).database))
        sizes = [part.stat().st_size for part in (path, path.with_name(f"{path.name}-wal")) if part.exists()]
        yield _plain("consilium_database_bytes", "gauge", "Size of the database with its write-ahead log.", sum(sizes))


def _of_database() -> Iterator[Gauge]:
    try:
        with read_session() as session:
            found = list(_counts(session))
    except (Unavailable, SQLAlchemyError):
        found = []
    yield _plain("consilium_database_up", "gauge", "Whether the database answered.", bool(found))
    yield from found


def _counts(session: Session) -> Iterator[Gauge]:
    jobs = {status.value: 0 for status in JobStatus} | _grouped(session, t.Job.status, t.Job.id)
    yield _by("consilium_jobs", "gauge", "Jobs by state.", "status", jobs.items())
    waiting = dict(session.execute(select(t.Job.queue, func.count(t.Job.id)).where(t.Job.status == "queued").group_by(t.Job.queue)).all())
    yield _by("consilium_job_queue_length", "gauge", "Jobs waiting, by queue.", "queue", ({"cpu": 0, "gpu": 0} | waiting).items())
    cases = {status.value: 0 for status in ConflictStatus} | _grouped(session, t.Conflict.status, t.Conflict.id)
    yield _by("consilium_cases", "gauge", "Cases by state; open ones are the readers' queue.", "status", cases.items())
    stages = _grouped(session, t.Adjudication.stage, t.Adjudication.id)
    decided = ({"blind": 0, "signed": 0} | stages).items()
    yield _by("consilium_decisions_total", "counter", "Stored decisions by stage.", "stage", decided)
    votes = session.scalar(select(func.count(t.BenchVote.id))) or 0
    yield _plain("consilium_votes_total", "counter", "Stored votes of the bench.", votes)
    held = session.scalar(select(func.count(t.QuarantineItem.id)).where(t.QuarantineItem.status == "held")) or 0
    yield _plain("consilium_quarantined_rows", "gauge", "Rows that wait because they seem to identify a person.", held)
    entries = session.scalar(select(func.max(t.AuditEntry.id))) or 0
    yield _plain("consilium_audit_entries_total", "counter", "Entries of the audit chain.", entries)


def _grouped(session: Session, column: InstrumentedAttribute[Any], key: InstrumentedAttribute[Any]) -> dict[str, int]:
    query = select(column, func.count(key)).group_by(column)
    return {str(value): int(number) for value, number in session.execute(query)}
