"""What PostgreSQL is told so that the product means the same on it as on SQLite: one writer at a time, readers with one snapshot.

The use cases were written for a database with one writer: look, decide, write, in one transaction that nobody can come between. So
every ordinary write transaction queues on one advisory lock, numbers grow in the order of commits and the audit chain cannot fork. What
was made for many writers, the job queue first of all, opens its session with `write_session(parallel=True)` and waits for nobody; it may
not write the record. Readers work on one snapshot each (REPEATABLE READ) and cannot write. Called by `db.engine` only.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sqlalchemy import Engine, create_engine, event

from core.errors import UserError

#: the lock of ordinary writers
WRITER_LOCK = 0x436F6E74
#: a web process has some forty threads that may ask at once
POOL = {"pool_size": 10, "max_overflow": 30, "pool_pre_ping": True}
#: a machine that vanished, or stands still in the middle of a transaction, gives its locks back after about this long
SILENCE_S = 60
SESSION = (
    "SET TIME ZONE 'UTC'",
    f"SET idle_in_transaction_session_timeout = {SILENCE_S * 1000}",
    "SET tcp_keepalives_idle = 20",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 4",
)


#: a string, or what Python writes for numbers that JSON does not have
_NOT_FINITE = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN')
_INSTEAD = {"Infinity": "1e999", "-Infinity": "-1e999", "NaN": "null"}


def plain_json(written: str) -> str:
    """JSON text as PostgreSQL takes it: an infinite number as one too large for a float, which reads as infinite again; NaN as null."""
    if "Infinity" not in written and "NaN" not in written:
        return written
    return _NOT_FINITE.sub(lambda found: _INSTEAD.get(found[0], found[0]), written)


def dumps(value: Any) -> str:
    """What SQLAlchemy stores in a JSON column."""
    return plain_json(json.dumps(value))


def engines(url: str, lock_timeout_ms: int) -> tuple[Engine, Engine, Engine]:
    """(writer, parallel writer, reader). The parallel writer shares the writer's connections."""
    writer = create_engine(url, **POOL, json_serializer=dumps)
    reader = create_engine(url, **POOL, json_serializer=dumps, isolation_level="REPEATABLE READ")
    _on_connect(writer, (f"SET lock_timeout = {lock_timeout_ms}",))
    _on_connect(reader, ("SET default_transaction_read_only = on",))
    parallel = writer.execution_options(is_parallel=True)

    @event.listens_for(writer, "begin")
    def on_begin(connection: Any) -> None:
        if not connection.get_execution_options().get("is_parallel"):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")

    return writer, parallel, reader


def _on_connect(engine: Engine, more: tuple[str, ...]) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.autocommit = True
        for statement in (*SESSION, *more):
            connection.execute(statement)
        connection.autocommit = False


def explain(error: Exception) -> str | None:
    """The code of the sentence for a fault that a person can mend, or None for a bug. `error` is the driver's."""
    text = str(error).lower()
    state = str(getattr(error, "sqlstate", None) or "")
    if state in ("55P03", "40P01", "40001"):  # lock timeout, deadlock, serialization
        return "database_locked"
    if state == "53100" or "no space left on device" in text:
        return "disk_full"
    if state in ("25006", "42501"):
        return "database_not_writable"
    if state.startswith(("08", "57P", "53", "28", "3D")) or not state or state == "25P03":
        return "database_unreachable"
    return None


def refusal(error: Exception) -> UserError | None:
    """PostgreSQL alone refuses a NUL character and a text longer than its column: told as a sentence."""
    text = str(error)
    if "NUL (0x00)" in text or getattr(error, "sqlstate", None) == "22021":
        return UserError("text_with_nul")
    if getattr(error, "sqlstate", None) == "22001":
        return UserError("text_too_long")
    return None
