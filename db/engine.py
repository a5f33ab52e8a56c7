"""One database, two doors: `read_session()` cannot write, `write_session()` takes the write lock at once and keeps it short.

SQLite runs in WAL with foreign keys and a busy timeout; writers BEGIN IMMEDIATE so that two of them queue instead of
failing at commit. PostgreSQL does the same in its own way (`db.postgres`). `open_database(url)` is called once per process by
`core.home.open_home`; nothing happens at import.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, IntegrityError, InternalError, OperationalError
from sqlalchemy.orm import Session

from core.errors import Unavailable, UserError
from db import postgres

BUSY_TIMEOUT_MS = 30_000


class Database:
    """A reading and a writing engine on one URL (`sqlite:///...` or `postgresql+psycopg://...`)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self._pid = os.getpid()
        #: SQLite waits by polling with growing pauses, in which a thread can be passed by for seconds: within a process they queue here
        self.turn = threading.Lock() if self.is_sqlite else None
        if self.is_sqlite:
            self.writer, self.reader = create_engine(url), create_engine(url)
            self.parallel = self.writer  # SQLite has one writer, whatever is asked
            _prepare_sqlite(self.writer, read_only=False)
            _prepare_sqlite(self.reader, read_only=True)
        else:
            self.writer, self.parallel, self.reader = postgres.engines(url, BUSY_TIMEOUT_MS)

    def dispose(self) -> None:
        """Close all connections; in a forked process only forget them, since they are the parent's."""
        is_own = self._pid == os.getpid()
        self.writer.dispose(close=is_own)
        self.reader.dispose(close=is_own)


def _prepare_sqlite(engine: Engine, *, read_only: bool) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we write BEGIN ourselves
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        if not read_only:
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # an acknowledged decision survives a power cut
        cursor.execute("PRAGMA foreign_keys = ON")
        if read_only:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


_current: Database | None = None


def open_database(url: str) -> Database:
    """Make `url` this process's database, closing an earlier one."""
    global _current
    if _current is not None:
        _current.dispose()
    _current = Database(url)
    return _current


def database() -> Database:
    """The open database. Raises RuntimeError when `open_database` was not called."""
    if _current is None:
        raise RuntimeError("no database is open: call core.home.open_home() first")
    return _current


def explain(error: DBAPIError) -> UserError | None:
    """The sentence for a database fault that a person can mend, or None for a bug."""
    assert error.orig is not None
    if error.orig.__class__.__module__.startswith("psycopg"):
        code = postgres.explain(error.orig) if isinstance(error, OperationalError | InternalError) else None
        return Unavailable(code) if code else postgres.refusal(error.orig)
    text = str(error.orig).lower()
    if "locked" in text or "busy" in text:
        return Unavailable("database_locked")
    if "disk is full" in text or "disk i/o error" in text:
        return Unavailable("disk_full")
    if "readonly" in text or "unable to open" in text:
        return Unavailable("database_not_writable")
    if "malformed" in text or "not a database" in text:
        return Unavailable("database_damaged")
    return None


def is_reading(session: Session) -> bool:
    """Whether it came from `read_session`, where PostgreSQL refuses to lock rows."""
    return session.get_bind() is database().reader


@contextmanager
def read_session() -> Iterator[Session]:
    """A session that cannot write (SQLite: query_only). Objects stay usable after it closes.

    Raises Unavailable as `write_session`.
    """
    try:
        with Session(database().reader, expire_on_commit=False) as session:
            yield session
    except (OperationalError, InternalError, DataError) as error:
        raise (explain(error) or error) from error
    except DatabaseError as error:  # sqlite3 has no narrower class for a damaged file; what callers wait for passes
        if isinstance(error, IntegrityError) or (told := explain(error)) is None:
            raise
        raise told from error


@contextmanager
def write_session(*, parallel: bool = False) -> Iterator[Session]:
    """One short transaction: commits at the end, rolls back on any exception.

    On PostgreSQL `parallel` does not queue behind other writers: only for statements that are right whoever writes beside them (one
    conditional UPDATE), never for what writes the record.
    Raises Unavailable("database_locked" / "disk_full" / "database_not_writable" / "database_unreachable") for faults a person can
    mend, UserError("text_with_nul" / "text_too_long") for what PostgreSQL alone cannot store.
    """
    base = database()
    engine = base.parallel if parallel else base.writer
    try:
        with ExitStack() as held:
            if base.turn is not None:
                if not base.turn.acquire(timeout=BUSY_TIMEOUT_MS / 1000):
                    raise Unavailable("database_locked")
                held.callback(base.turn.release)
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
    except (OperationalError, InternalError, DataError) as error:
        raise (explain(error) or error) from error
    except DatabaseError as error:  # sqlite3 has no narrower class for a damaged file; what callers wait for passes
        if isinstance(error, IntegrityError) or (told := explain(error)) is None:
            raise
        raise told from error
