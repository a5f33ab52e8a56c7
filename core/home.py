"""The data folder: every path under CONSILIUM_HOME, and opening it (folders, settings, database) once per process."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from core.errors import UserError
from core.settings import Settings, load_settings
from db.engine import open_database


@dataclass(frozen=True, slots=True)
class Home:
    """Where things lie. Paths stored in the database are relative to `root` so that the folder can be moved."""

    root: Path
    settings: Settings

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def indexes(self) -> Path:
        return self.root / "indexes"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def machine(self) -> str:
        """This machine's name among those that share the job queue."""
        return self.settings.machine or socket.gethostname()

    def run_dir(self, job_id: int) -> Path:
        """The folder of a job: config.json, log.txt, metrics.jsonl, progress.json, result.json, checkpoints/."""
        return self.runs / f"{job_id:06d}"

    def relative(self, path: Path) -> str:
        """`path` as stored in the database."""
        return str(path.resolve().relative_to(self.root.resolve()))

    def resolve(self, stored: str) -> Path:
        """The absolute path for a stored one; absolute stored paths (a local base model) stay as they are."""
        return Path(stored) if os.path.isabs(stored) else self.root / stored


def open_home(settings: Settings | None = None, *, with_migration: bool = False) -> Home:
    """Create the folders, open the database and return the home. Only the launcher migrates.

    Raises UserError("home_not_writable") when the folder cannot be made or written.
    """
    settings = settings or load_settings()
    home = Home(root=settings.home, settings=settings)
    try:
        for folder in (home.root, home.runs, home.models, home.indexes, home.uploads, home.locks):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(OSError):  # the launcher refuses to start without logs; a process that it brings back can serve without
            home.logs.mkdir(exist_ok=True, mode=0o700)
        probe = home.root / f".writable-{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError("home_not_writable", path=home.root, reason=error.strerror or error) from error
    if with_migration:
        from db.migrate import migrate  # alembic costs a third of a second, and only the launcher needs it

        migrate(settings.url)
    open_database(settings.url)
    current_home.cache_clear()
    _opened.clear()
    _opened.append(home)
    return home


_opened: list[Home] = []


@lru_cache(maxsize=1)
def current_home() -> Home:
    """The home opened by this process; opened on first use with the settings in force."""
    return _opened[0] if _opened else open_home()
