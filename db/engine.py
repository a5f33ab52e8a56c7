"""One database, two doors: `read_session()` cannot write, `write_session()` takes the write lock at once and keeps it short.

SQLite runs in WAL with foreign keys and a busy timeout; writers BEGIN IMMEDIATE so that two of them queue instead of
failing at commit. `open_database(url)` is called once per process by `core.home.open_home`; nothing happens at import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from core.errors import Unavailable

BUSY_TIMEOUT_MS = 30_000


class Database:
    """A reading and a writing engine on one URL (`sqlite:///...` or `postgresql+psycopg://...`)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self.writer = create_engine(url, **({} if self.is_sqlite else {"pool_pre_ping": True}))
        self.reader = create_engine(url, **({} if self.is_sqlite else {"pool_pre_ping": True}))
        if self.is_sqlite:
            _prepare_sqlite(self.writer, read_only=False)
            _prepare_sqlite(self.reader, read_only=True)

    def dispose(self) -> None:
        self.writer.dispose()
        self.reader.dispose()


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


def explain(error: OperationalError) -> Unavailable | None:
    """The sentence for a database fault that a person can mend, or None for a bug."""
    text = str(error.orig).lower()
    if "locked" in text or "busy" in text:
        return Unavailable("database_locked")
    if "disk is full" in text or "disk i/o error" in text:
        return Unavailable("disk_full")
    if "readonly" in text or "unable to open" in text:
        return Unavailable("database_not_writable")
    return None


@contextmanager
def read_session() -> Iterator[Session]:
    """A session that cannot write (SQLite: query_only). Objects stay usable after it closes."""
    try:
        with Session(database().reader, expire_on_commit=False) as session:
            yield session
    except OperationalError as error:
        raise (explain(error) or error) from error


@contextmanager
def write_session() -> Iterator[Session]:
    """One short transaction: commits at the end, rolls back on any exception.

    Raises Unavailable("database_locked" / "disk_full" / "database_not_writable") for faults a person can mend.
    """
    try:
        with Session(database().writer, expire_on_commit=False) as session, session.begin():
            yield session
    except OperationalError as error:
        raise (explain(error) or error) from error
