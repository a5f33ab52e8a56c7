"""Anchors: where the audit chain ended, each day and at each start of the worker, in files outside the database.

A chain alone cannot show that its end was cut off, or that all of it was written anew. Every point in anchors/YYYY-MM-DD.json (UTC)
says which entry was the last one and what its hash was; `points` gives them to `core.audit.examine`. A point is never taken back.
Who can rewrite the database can rewrite these files too if they lie beside it: the setting anchor_copy names a second folder,
on another machine or a write-once store, and points are read from both. Called by the worker's errands, the Record page and
`./run.sh audit anchor | verify`.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from core import audit
from core.errors import UserError
from core.home import Home, current_home
from db import tables as t
from db.base import utc_now
from db.engine import read_session

log = logging.getLogger("consilium.audit")

FOLDER = "anchors"
DAY_FILE = re.compile(r"\d{4}-\d\d-\d\d\.json")
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Point:
    """The chain at one moment: its last entry, that entry's hash, how many entries there were, and whether all of them held."""

    entry: int
    hash: str
    count: int
    at: str
    holds: bool


def folders(home: Home) -> list[Path]:
    """Where anchors lie: in the data folder, and in the second place if one is set."""
    copy = home.settings.anchor_copy
    return [home.root / FOLDER, *([Path(copy).expanduser()] if copy else [])]


def write(home: Home) -> Point | None:
    """Verify the chain and add a point to today's file; returns it, or None where the chain is empty.

    Nothing is added when the end is that of today's last point. Raises UserError("trust.anchor_unreadable" / "trust.anchor_not_written").
    """
    known = points(home)
    with read_session() as session:
        found = audit.examine(session, points=known)
        last = session.execute(select(t.AuditEntry.id, t.AuditEntry.entry_hash).order_by(t.AuditEntry.id.desc()).limit(1)).first()
        num_entries = audit.count(session)
    if found.broken is not None:
        log.error("the audit chain does not hold: entry %d, %s", found.broken.entry_id, found.broken.why)
    if last is None:
        return None
    now = utc_now()
    point = Point(last[0], last[1], num_entries, now.isoformat(timespec="seconds"), found.broken is None)
    for folder in folders(home):
        _append(folder / f"{now:%Y-%m-%d}.json", point)
    return point


def listing(home: Home) -> list[tuple[str, list[Point]]]:
    """(day, its points) of all folders, newest day first. Raises UserError("trust.anchor_unreadable")."""
    days: dict[str, list[Point]] = {}
    for folder in folders(home):
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            if DAY_FILE.fullmatch(path.name):
                known = days.setdefault(path.stem, [])
                known.extend(one for one in _read(path) if one not in known)
    return sorted(days.items(), reverse=True)


def points(home: Home) -> dict[int, str]:
    """Entry -> the hash it must have.

    Raises UserError("trust.anchors_differ") when two points name one entry with different hashes, UserError("trust.anchor_unreadable").
    """
    found: dict[int, str] = {}
    for day, ones in listing(home):
        for one in ones:
            if found.setdefault(one.entry, one.hash) != one.hash:
                raise UserError("trust.anchors_differ", day=day, entry=one.entry)
    return found


class Daily:
    """The errand: one point when the worker starts, and one on every new day (UTC)."""

    def __init__(self) -> None:
        self._day = ""

    def __call__(self) -> None:
        day = f"{utc_now():%Y-%m-%d}"
        if day != self._day:
            write(current_home())
            self._day = day


def _append(path: Path, point: Point) -> None:
    before = _read(path) if path.is_file() else []
    if before and (before[-1].entry, before[-1].hash, before[-1].holds) == (point.entry, point.hash, point.holds):
        return
    about = {"format": FORMAT, "what": "Consilium audit chain", "points": [asdict(one) for one in (*before, point)]}
    scratch = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with scratch.open("w", encoding="utf-8") as file:
            json.dump(about, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise UserError("trust.anchor_not_written", path=path, reason=error.strerror or error) from error


def _read(path: Path) -> list[Point]:
    try:
        about: Any = json.loads(path.read_text(encoding="utf-8"))
        return [Point(int(p["entry"]), str(p["hash"]), int(p["count"]), str(p["at"]), bool(p["holds"])) for p in about["points"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError("trust.anchor_unreadable", path=path) from error
