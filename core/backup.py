"""Backup while everything runs, and restore into an empty data folder.

The database first (one consistent state; writers go on and every decision acknowledged before it began is in it): by SQLite's online
backup, or from PostgreSQL as a SQLite file made of one snapshot, so that a backup is the same thing on both. Then the files. Files that
are put in place whole and never written again (weights, indexes, exports, anchors, uploads) are hard-linked where the file system can,
else copied; files that grow (run folders, logs) are copied as they are. manifest.json, written last, holds the SHA-256 of every file, so
that a backup with a manifest is whole. `restore` checks all of them and the audit chain with its anchors before anything is put in
place, and only into a folder that is empty. Called by `./run.sh backup` and `restore`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from core import audit
from core.audit_anchor import points
from core.errors import UserError
from core.health import version
from core.home import Home
from core.settings import Settings
from db import copying
from db.base import utc_now
from db.engine import Database, database, write_session

MANIFEST = "manifest.json"
DATABASE = "consilium.db"
FORMAT = 1
#: written once and then only read: a hard link is a true copy of them
FROZEN = ("models", "indexes", "exports", "uploads", "datasets")
#: of this process's life, not of the record
LEFT_OUT = ("locks",)
LEFT_OUT_NAMES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal")
PAGES_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Made:
    """A finished backup, or what a restore brought back. `entries` is the length of the audit chain in it."""

    path: Path
    num_files: int
    num_bytes: int
    num_linked: int
    entries: int


def backup(home: Home, target: Path, *, on_progress: Callable[[int, int], None] | None = None) -> Made:
    """Write a backup into `target`, which must not exist or be empty.

    Raises UserError("trust.backup_target_taken" / "trust.backup_inside_home" / "trust.backup_not_written").
    """
    target = target.expanduser().resolve()
    if target.is_relative_to(home.root.resolve()):
        raise UserError("trust.backup_inside_home", path=target)
    _must_be_empty(target, "trust.backup_target_taken")
    begun = utc_now()
    with write_session() as session:
        audit.record(session, "backup", "backup", target.name, actor_id=None, detail={"path": str(target)})
    try:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        _copy_database(target / DATABASE)
        hashes, num_linked, num_bytes = {DATABASE: sha256_of(target / DATABASE)}, 0, (target / DATABASE).stat().st_size
        found = sorted(_files(home.root))
        for done, source in enumerate(found, 1):
            name = source.relative_to(home.root).as_posix()
            linked = _take(source, target / name, may_link=name.split("/")[0] in FROZEN)
            if name == "consilium.toml" and not database().is_sqlite:
                _without_url(target / name)
            if linked is None:
                continue  # a scratch file that has gone meanwhile
            num_linked += linked
            hashes[name] = sha256_of(target / name)
            num_bytes += (target / name).stat().st_size
            if on_progress is not None and done % 20 == 0:
                on_progress(done, len(found))
        entries, last_hash, broken = _look(target / DATABASE)
        about = {
            "format": FORMAT,
            "product": f"Consilium {version()}",
            "begun_at": begun.isoformat(),
            "ended_at": utc_now().isoformat(),
            "audit": {"entries": entries, "last_hash": last_hash, "holds": broken is None},
            "files": hashes,
        }
        scratch = target / f".{MANIFEST}"
        scratch.write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
        scratch.replace(target / MANIFEST)
    except OSError as error:
        raise UserError("trust.backup_not_written", path=target, reason=error.strerror or error) from error
    return Made(target, len(hashes), num_bytes, num_linked, entries)


def verify(folder: Path) -> dict[str, Any]:
    """Check every file of a backup and the database's integrity; returns the manifest.

    Raises UserError("trust.no_backup" / "trust.backup_changed" / "trust.backup_chain_broken").
    """
    try:
        about: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        hashes: dict[str, str] = about["files"]
        is_known = about["format"] == FORMAT and DATABASE in hashes
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("trust.no_backup", path=folder) from error
    if not is_known:
        raise UserError("trust.no_backup", path=folder)
    for name, wanted in hashes.items():
        path = folder / name
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()) or not path.is_file() or sha256_of(path) != wanted:
            raise UserError("trust.backup_changed", path=path)
    with closing(sqlite3.connect(f"file:{folder / DATABASE}?mode=ro&immutable=1", uri=True)) as connection:
        if connection.execute("PRAGMA integrity_check").fetchone()[0] != "ok":
            raise UserError("trust.backup_changed", path=folder / DATABASE)
    entries, last_hash, broken = _look(folder / DATABASE)
    if broken is not None or (entries, last_hash) != (about["audit"]["entries"], about["audit"]["last_hash"]):
        raise UserError("trust.backup_chain_broken", path=folder, entry=broken.entry_id if broken else entries)
    return about


def restore(folder: Path, into: Path, settings: Settings) -> Made:
    """Verify a backup and put it into an empty data folder, then verify what lies there.

    Raises as `verify`, UserError("trust.restore_not_empty" / "trust.backup_not_written").
    """
    folder, into = folder.expanduser().resolve(), into.expanduser().resolve()
    _must_be_empty(into, "trust.restore_not_empty")
    about = verify(folder)
    scratch = into.parent / f".{into.name}.{os.getpid()}"
    try:
        for name in about["files"]:
            place = scratch / name
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.copyfile(folder / name, place)  # never linked: the restored home must not share bytes with its backup
        for name, wanted in about["files"].items():
            if sha256_of(scratch / name) != wanted:
                raise UserError("trust.backup_changed", path=scratch / name)
        into.mkdir(parents=True, exist_ok=True, mode=0o700)
        for one in sorted(scratch.iterdir(), key=lambda path: path.name == DATABASE):  # the database last: no home without its files
            one.replace(into / one.name)
    except OSError as error:
        raise UserError("trust.backup_not_written", path=into, reason=error.strerror or error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    known = points(Home(into, settings.model_copy(update={"home": into, "anchor_copy": ""})))
    entries, _, broken = _look(into / DATABASE, known)
    if broken is not None:
        raise UserError("trust.backup_chain_broken", path=into, entry=broken.entry_id)
    size = sum((into / name).stat().st_size for name in about["files"])
    return Made(into, len(about["files"]), size, 0, entries)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _must_be_empty(path: Path, code: str) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(code, path=path)


def _copy_database(target: Path) -> None:
    """SQLite's online backup. In WAL mode a reader sees one state throughout, so writers neither wait nor make it start again.

    From PostgreSQL every row of one snapshot, into a SQLite file: a backup is the same thing on both and is verified the same way.
    """
    if not database().is_sqlite:
        _copy_rows(target)
        return
    source = Path(str(make_url(database().url).database))
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)) as old, closing(sqlite3.connect(target)) as new:
        old.execute("BEGIN")
        old.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the state is that of now, before the first page is copied
        old.backup(new, pages=PAGES_AT_ONCE)
        new.execute("PRAGMA journal_mode = DELETE")  # one file, without a -wal beside it


def _without_url(path: Path) -> None:
    """What is restored has its database beside it; the URL would lead it to the one in use."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line.partition("=")[0].strip() != "database_url"), encoding="utf-8")


def _copy_rows(target: Path) -> None:
    from db.migrate import migrate  # alembic is slow to import, and the web process never needs it

    scratch = target.with_name(f".{target.name}")
    migrate(f"sqlite:///{scratch}")
    other = Database(f"sqlite:///{scratch}")
    try:
        with database().reader.connect() as old, other.writer.begin() as new:
            copying.copy_rows(old, new)
    finally:
        other.dispose()
    with closing(sqlite3.connect(scratch)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    scratch.replace(target)


def _files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        is_scratch = any(part.startswith(".") for part in parts) or parts[0] in (*LEFT_OUT, *LEFT_OUT_NAMES)
        if not is_scratch and path.is_file() and not path.is_symlink():
            yield path


def _take(source: Path, place: Path, *, may_link: bool) -> bool | None:
    """Link or copy one file: True linked, False copied, None it is gone."""
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        if may_link:
            try:
                os.link(source, place)
            except FileNotFoundError:
                return None
            except OSError:  # another file system, or one without links
                may_link = False
        if not may_link:
            shutil.copyfile(source, place)
    except FileNotFoundError:
        return None
    return may_link


def _look(path: Path, known: dict[int, str] | None = None) -> tuple[int, str, audit.Broken | None]:
    """Length, last hash and first fault of the chain in a database file, without disturbing the open one."""
    other = Database(f"sqlite:///{path}")
    try:
        with Session(other.reader) as session:
            found = audit.examine(session, points=known)
    finally:
        other.dispose()
    return found.num_entries, found.last_hash, found.broken
