"""Versions of a search index in the data folder and the database: claim a number, put a version in place, switch, list.

Invariants: at most one version per name is active; switching is one transaction with an entry in the audit chain; the version
that answers goes on answering until that transaction ends. A number is claimed by its row before anything is built, so two jobs
never make the same version; a claimed row without a path is a version that is not there (not yet, or no longer). Called by the
index job, the weekly job, the command line and the retrieval page.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core import audit
from core.errors import NotFound
from core.home import Home, current_home
from core.models import require_role
from core.permit import permit
from core.records import Role
from core.retrieval import engine_moves
from core.retrieval.index import load_index, publish
from core.retrieval.versions_on_disk import read_manifest
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

#: folders kept per name, the active one among them: a roll-back is one press, and links make versions cheap
KEPT_VERSIONS = 3
SWITCHERS = (Role.ENGINEER, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class VersionShown:
    """One version as listed. `path` is relative to the home; "" when its folder is gone or not there yet."""

    id: int
    name: str
    version: int
    path: str
    is_active: bool
    num_documents: int
    num_chunks: int
    num_entries: int
    based_on: int | None
    note: str
    manifest: dict[str, Any]
    created_at: datetime
    activated_at: datetime | None


def active_version(name: str) -> VersionShown | None:
    """The version that answers."""
    with read_session() as session:
        row = session.scalar(select(t.SearchIndex).where(t.SearchIndex.name == name, t.SearchIndex.is_active))
        return _shown(row) if row else None


def listing(name: str = "") -> list[VersionShown]:
    """Versions whose folder is there, by name, newest first."""
    query = select(t.SearchIndex).where(t.SearchIndex.path != "")
    if name:
        query = query.where(t.SearchIndex.name == name)
    with read_session() as session:
        return [_shown(row) for row in session.scalars(query.order_by(t.SearchIndex.name, t.SearchIndex.version.desc()))]


def claim(name: str, job_id: int | None, note: Path) -> int:
    """The version number this job builds: its own from an earlier attempt (by its row, else by the file `note`), else the next.

    Rows and folders both count, so a folder that lost its row is not written over.
    """
    folders = [int(p.name[1:]) for p in (current_home().indexes / name).glob("v[0-9]*")]
    with write_session() as session:
        rows = select(t.SearchIndex).where(t.SearchIndex.name == name)
        own = session.scalar(rows.where(t.SearchIndex.job_id == job_id)) if job_id else None
        if own is None and note.is_file():
            own = session.scalar(rows.where(t.SearchIndex.version == int(note.read_text())))
        if own is None:
            newest = session.scalar(select(func.max(t.SearchIndex.version)).where(t.SearchIndex.name == name)) or 0
            own = t.SearchIndex(name=name, version=max([newest, *folders]) + 1, path="", job_id=job_id)
            session.add(own)
            session.flush()
        number = own.version
    note.write_text(str(number))
    return number


def folder_of(name: str, version: int) -> Path:
    return current_home().indexes / name / f"v{version:06d}"


def install(name: str, version: int, scratch: Path | None = None, *, based_on: int | None = None, note: str = "") -> Path:
    """Put a finished scratch folder in place as `version` and fill its row; it does not answer until `activate`.

    Without `scratch` the folder must be there already (an attempt that was killed after the rename). Every file is checked
    against its checksum first. Raises as `load_index`.
    """
    target = folder_of(name, version)
    alone = ""
    if scratch is not None and based_on is not None:
        alone = _follow(name, based_on, scratch)
    if scratch is not None:
        load_index(scratch)
        shutil.rmtree(target, ignore_errors=True)  # an earlier attempt of this very job, broken on the way: no row names it yet
        publish(scratch, target)
    manifest = load_index(target).manifest
    with write_session() as session:
        row = _row(session, name, version)
        row.path = current_home().relative(target)
        row.num_documents, row.num_chunks, row.num_entries = (manifest[k] for k in ("num_documents", "num_chunks", "num_entries"))
        row.manifest, row.based_on = manifest, based_on
        row.note = "; ".join(filter(None, [note or row.note, alone]))
    return target


def activate(name: str, version: int, *, by: int | None, reason: str = "") -> VersionShown:
    """Let `version` answer from now on: the switch after a build, and the roll-back.

    `by` None is the machine's own account (a job, the command line). Raises Forbidden, NotFound("index.no_version") and, before
    anything is changed, as `load_index` when the folder is not what was built.
    """
    permit("retrieval.index_versions.activate", by)
    with read_session() as session:
        row = session.scalar(select(t.SearchIndex).where(t.SearchIndex.name == name, t.SearchIndex.version == version))
        if row is None or not row.path:
            raise NotFound("index.no_version", name=name, version=version)
        folder = current_home().resolve(row.path)
    load_index(folder)
    with write_session() as session:
        if by is not None:
            require_role(session.get(t.User, by), *SWITCHERS)
        row = _row(session, name, version)
        before = session.scalar(select(t.SearchIndex.version).where(t.SearchIndex.name == name, t.SearchIndex.is_active))
        if before != version:
            session.execute(update(t.SearchIndex).where(t.SearchIndex.name == name).values(is_active=False))
            session.flush()
            row.is_active, row.activated_at, row.activated_by = True, utc_now(), by
            row.note = reason or row.note
            engine = (row.manifest.get("engine") or {}).get("kind", "own")
            detail = {"name": name, "version": version, "before": before, "num_chunks": row.num_chunks, "engine": engine}
            audit.record(session, "index_activate", "search_index", row.id, actor_id=by, detail=detail, reason=reason)
        session.flush()
        return _shown(row)


def remove_old(home: Home, name: str) -> list[int]:
    """Delete the folders of all but the newest versions and the active one; rows stay, because questions refer to them."""
    with read_session() as session:
        query = select(t.SearchIndex).where(t.SearchIndex.name == name, t.SearchIndex.is_active.is_(False), t.SearchIndex.path != "")
        old = list(session.scalars(query.order_by(t.SearchIndex.version.desc())))[KEPT_VERSIONS - 1 :]
    gone = {row.path: home.resolve(row.path) for row in old}
    with write_session() as session:  # first nobody can choose it any more, then it goes
        session.execute(update(t.SearchIndex).where(t.SearchIndex.id.in_([row.id for row in old])).values(path=""))
        kept = list(session.scalars(select(t.SearchIndex.path).where(t.SearchIndex.name == name, t.SearchIndex.path != "")))
    if any((row.manifest.get("engine") or {}) for row in old):
        engine_moves.forget(list(gone.values()), [home.resolve(path) for path in kept], home.settings)
    for folder in gone.values():
        shutil.rmtree(folder, ignore_errors=True)
    return [row.version for row in old]


def _follow(name: str, based_on: int, scratch: Path) -> str:
    """Rows of an update go where those of its base lie. Returns why they did not, "" when they did or need not."""
    with read_session() as session:
        row = session.scalar(select(t.SearchIndex).where(t.SearchIndex.name == name, t.SearchIndex.version == based_on))
        if row is None or not row.path or not row.manifest.get("engine"):
            return ""
        folder = current_home().resolve(row.path)
    return engine_moves.follow(load_index(folder), scratch, current_home().settings)


def is_there(name: str, version: int) -> bool:
    """Has an earlier attempt already put this version in place?"""
    folder = folder_of(name, version)
    return folder.is_dir() and bool(read_manifest(folder))


def _row(session: Session, name: str, version: int) -> t.SearchIndex:
    row = session.scalar(select(t.SearchIndex).where(t.SearchIndex.name == name, t.SearchIndex.version == version))
    if row is None:
        raise NotFound("index.no_version", name=name, version=version)
    return row


def _shown(row: t.SearchIndex) -> VersionShown:
    return VersionShown(*(getattr(row, field) for field in VersionShown.__slots__))
