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
from sqlalchemy import create_engine, make_url, text

from core.settings import load_settings
from db.engine import Database
from db.migrate import migrate

VARIABLE = "CONSILIUM_TEST_DATABASE_URL"
URL = os.environ.get(VARIABLE, "")
ON_POSTGRES = bool(URL)

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
    """PostgreSQL: one database per home, dropped when the home is no more used."""

    def __init__(self, url: str) -> None:
        self._url = make_url(load_settings({"CONSILIUM_DATABASE_URL": url}).url)
        self._made: list[str] = []
        self._admin = create_engine(self._url, isolation_level="AUTOCOMMIT", pool_size=1)
        self.template_url = self.blank(Path())
        migrate(self.template_url)

    def provide(self, root: Path) -> None:
        self._place(root, make_url(self.template_url).database or "")

    def copy(self, source: Path, target: Path) -> None:
        shutil.copytree(source, target)
        self._place(target, make_url(load_settings({"CONSILIUM_HOME": str(source)}).url).database or "")

    def blank(self, _folder: Path) -> str:
        return self._create("template0")

    def drop(self, root: Path) -> None:
        """The database of the home at `root` is not needed any more."""
        name = make_url(load_settings({"CONSILIUM_HOME": str(root)}).url).database
        if name in self._made:
            self._made.remove(name)
            self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def close(self) -> None:
        for name in self._made:
            self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self._admin.dispose()

    def _place(self, root: Path, template: str) -> None:
        (root / "consilium.toml").write_text(f'database_url = "{self._create(template)}"\n')

    def _create(self, template: str) -> str:
        name = f"consilium_test_{os.getpid()}_{uuid.uuid4().hex[:10]}"
        self._run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        self._made.append(name)
        return self._url.set(database=name).render_as_string(hide_password=False)

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
