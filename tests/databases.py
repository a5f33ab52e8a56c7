"""An empty database at the newest schema for a home: a copied SQLite file, or on PostgreSQL a database made from a template.

With CONSILIUM_TEST_DATABASE_URL (a server on which databases may be made, as in docs/postgresql.md) every home of the suite gets a database
of its own there. Its URL lies in the home's consilium.toml, so that whoever knows the home, also a process that a test starts, finds it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, inspect, make_url, text

from core.settings import load_settings
from db.engine import Database
from db.migrate import migrate

VARIABLE = "CONSILIUM_TEST_DATABASE_URL"
URL = os.environ.get(VARIABLE, "")
ON_POSTGRES = bool(URL)

#: a process that a test left behind holds locks no longer
OTHERS_LEAVE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

sqlite_only = pytest.mark.skipif(ON_POSTGRES, reason="about the SQLite file itself")
postgres_only = pytest.mark.skipif(not ON_POSTGRES, reason=f"needs a PostgreSQL server: set {VARIABLE} (docs/postgresql.md)")


class Files:
    """SQLite: one file per home."""

    def __init__(self, folder: Path) -> None:
        self.template = folder / "empty.db"
        self.template_url = f"sqlite:///{self.template}"
        migrate(self.template_url)

    def provide(self, root: Path) -> None:
        """Give the home at `root` (an existing folder) an empty database."""
        shutil.copy(self.template, root / "consilium.db")

    def copy(self, source: Path, target: Path) -> None:
        """Copy a whole home that nobody has open."""
        shutil.copytree(source, target)

    def blank(self, folder: Path) -> str:
        """The URL of a database without any table."""
        return f"sqlite:///{folder / f'{uuid.uuid4().hex}.db'}"

    def close(self) -> None:
        """Temporary folders go with the test run."""


class Server:
    """PostgreSQL: one database per home. What a test has done with is emptied and given to the next: making one costs a second."""

    def __init__(self, url: str) -> None:
        self._url = make_url(load_settings({"CONSILIUM_DATABASE_URL": url}).url)
        self._made: list[str] = []
        self._empty: list[str] = []
        self._admin = create_engine(self._url, isolation_level="AUTOCOMMIT", pool_size=1)
        self.template_url = self.blank(Path())
        migrate(self.template_url)

    def provide(self, root: Path) -> None:
        name = self._empty.pop() if self._empty else self._create(make_url(self.template_url).database or "")
        self._write(root, name)

    def copy(self, source: Path, target: Path) -> None:
        shutil.copytree(source, target)
        self._write(target, self._create(self._name(source)))

    def blank(self, _folder: Path) -> str:
        return self._of(self._create("template0"))

    def take_back(self, root: Path) -> None:
        """The home at `root` is not needed any more; its database is emptied for another."""
        name = self._name(root)
        if name not in self._made:
            return
        engine = create_engine(self._of(name), poolclass=NullPool)
        try:
            with engine.begin() as connection:
                connection.execute(text(OTHERS_LEAVE))
                used = [one for one in inspect(connection).get_table_names() if one != "alembic_version"]
                filled = connection.scalars(text(" UNION ALL ".join(f"(SELECT '{one}' FROM \"{one}\" LIMIT 1)" for one in used))).all()
                if filled:
                    connection.execute(text(f"TRUNCATE {', '.join(filled)} RESTART IDENTITY CASCADE"))
                connection.execute(text("SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"))
        finally:
            engine.dispose()
        self._empty.append(name)

    def close(self) -> None:
        for name in self._made:
            self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._admin.dispose()

    def _write(self, root: Path, name: str) -> None:
        (root / "consilium.toml").write_text(f'database_url = "{self._of(name)}"\n')

    def _of(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    def _name(self, root: Path) -> str:
        return make_url(load_settings({"CONSILIUM_HOME": str(root)}).url).database or ""

    def _create(self, template: str) -> str:
        name = f"consilium_test_{os.getpid()}_{uuid.uuid4().hex[:10]}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self._made.append(name)
        return name

    def _run(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement))


Databases = Files | Server


@contextmanager
def held(url: str) -> Iterator[None]:
    """Somebody writes, and does not come to an end: no other transaction can change a job or take its turn as a writer."""
    other = Database(url)
    try:
        with other.writer.begin() as connection:
            if ON_POSTGRES:
                connection.execute(text("LOCK TABLE jobs IN EXCLUSIVE MODE"))
            yield
    finally:
        other.dispose()


@contextmanager
def tampering(url: str) -> Iterator[Any]:
    """A connection as somebody has it who goes round the product: `execute(statement)`, committed at the end."""
    other = Database(url)
    try:
        with other.writer.begin() as connection:
            yield connection
    finally:
        other.dispose()
