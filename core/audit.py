"""The audit chain: every decision and administrator action, append-only, each entry holding the hash of the one before.

`record()` is called inside the transaction that does the thing, so that the entry and the thing stand or fall together. An entry's
hash is SHA-256 over the JSON list of all its fields, `detail` as the text that is stored. Entries of format 1 (before revision
0018) hash the parsed detail, leave out the number, which is held by the count from 1 without gaps, and have no hashes of the object.
`examine` walks the bytes as they are stored, so that a changed blank in a JSON text is a change too; what it cannot see alone, a
missing end, the anchors show (core.audit_anchor). Called by every use case that decides, the Record page and `audit verify`.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from core.audit_states import hashes, state_hash
from db import tables as t
from db.base import utc_now
from db.engine import read_session

GENESIS = "0" * 64
#: PostgreSQL: writers of the chain queue on this lock (SQLite's write lock does it there)
CHAIN_LOCK = 0x436F6E73
_FIELDS = "id, action, object_type, object_id, actor_id, detail, reason, created_at, before_hash, after_hash, format, previous_hash"
_SELECT = f"SELECT {_FIELDS}, entry_hash FROM audit_entries ORDER BY id"  # noqa: S608 - a constant
_AT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")
_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode
_as_stored = json.JSONEncoder().encode
_parse = json.JSONDecoder().decode

#: one stored entry: the columns of _FIELDS in that order, then entry_hash
Raw = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """The first place where the record does not hold.

    `why`: altered (the entry's own hash does not fit), broken_link (it does not follow the entry before it: one was removed, put
    in or moved), number (entries are missing or moved), unreadable, cut_off (an anchored entry is gone), rewritten (an anchored
    entry has another hash), row (a stored decision is not the one that was signed).
    """

    entry_id: int
    why: str
    where: str = ""


@dataclass(frozen=True, slots=True)
class Examined:
    """What a walk found. `last_hash` belongs to the last entry; `num_points` anchors were compared."""

    num_entries: int
    last_id: int
    last_hash: str
    broken: Broken | None = None
    num_points: int = 0


def entry_hash(entry: t.AuditEntry) -> str:
    """The hash that `entry` must carry, recomputed from its fields."""
    at = entry.created_at.astimezone(UTC).isoformat()
    detail = entry.detail if entry.format == 1 else _as_stored(entry.detail)
    head = [entry.previous_hash, entry.action, entry.object_type, entry.object_id, entry.actor_id, detail, entry.reason, at]
    return _digest(head if entry.format == 1 else [entry.format, entry.id, *head, entry.before_hash, entry.after_hash])


def record(
    session: Session,
    action: str,
    object_type: str,
    object_id: object,
    *,
    actor_id: int | None,
    detail: dict[str, Any] | None = None,
    reason: str = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> t.AuditEntry:
    """Append one entry in the caller's write transaction (which holds the write lock, so the chain cannot fork).

    Hashes of the object before and after are taken from its row where it is one (core.audit_states), else from `before`, `after`.
    """
    session.flush()
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(CHAIN_LOCK)))
    last = session.execute(select(t.AuditEntry.id, t.AuditEntry.entry_hash).order_by(t.AuditEntry.id.desc()).limit(1)).first()
    row_before, row_after = hashes(session, object_type, str(object_id))
    entry = t.AuditEntry(
        action=action,
        object_type=object_type,
        object_id=str(object_id),
        previous_hash=last[1] if last else GENESIS,
        entry_hash="",
        actor_id=actor_id,
        detail=json.loads(json.dumps(detail or {}, ensure_ascii=False), parse_constant=str),  # JSON has no NaN
        reason=reason,
        created_at=utc_now(),
        before_hash=state_hash(before) if before is not None else row_before,
        after_hash=state_hash(after) if after is not None else row_after,
    )
    entry.id = last[0] + 1 if last else 1
    entry.entry_hash = entry_hash(entry)
    session.add(entry)
    session.flush()
    return entry


def check(rows: Iterable[Raw], *, after: tuple[int, str] = (0, GENESIS), has_gaps: bool = False) -> Iterator[tuple[Raw, Broken | None]]:
    """Each entry with what is wrong with it, ending at the first that is broken. Pure.

    `after` is the number and hash of the entry before the first; `has_gaps`: numbers of format 1 may jump (PostgreSQL sequences).
    """
    number, previous = after
    for raw in rows:
        why = _fault(raw, number, previous, has_gaps)
        yield raw, Broken(raw[0] if isinstance(raw[0], int) else number + 1, why) if why else None
        if why:
            return
        number, previous = raw[0], raw[12]


def examine(
    session: Session, *, points: Mapping[int, str] | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Examined:
    """Walk the whole chain as stored; `points` are anchored hashes by entry. `on_progress(done, total)` every 5,000 entries."""
    try:
        return _walk(session, points or {}, on_progress, as_bytes=False)
    except sqlite3.OperationalError as error:
        if "decode" not in str(error).lower():
            raise
        return _walk(session, points or {}, on_progress, as_bytes=True)


def _walk(session: Session, points: Mapping[int, str], on_progress: Callable[[int, int], None] | None, *, as_bytes: bool) -> Examined:
    total, done, last, broken = count(session), 0, (0, GENESIS), None
    with _stored(session, as_bytes=as_bytes) as rows:
        for raw, found in check(rows, has_gaps=session.get_bind().dialect.name == "postgresql"):
            broken = found
            if broken is None and raw[0] in points and points[raw[0]] != raw[12]:
                broken = Broken(raw[0], "rewritten")
            if broken is not None:
                break
            done, last = done + 1, (raw[0], raw[12])
            if on_progress is not None and done % 5000 == 0:
                on_progress(done, total)
    if broken is None and (beyond := [number for number in points if number > last[0]]):
        broken = Broken(min(beyond), "cut_off")
    if on_progress is not None:
        on_progress(done, total)
    return Examined(done, *last, broken, len(points))


def verify(session: Session) -> int | None:
    """Walk the whole chain. Returns the id of the first broken entry, or None when it holds."""
    broken = examine(session).broken
    return broken.entry_id if broken else None


def count(session: Session) -> int:
    """How many entries the chain has."""
    return session.scalar(select(func.count()).select_from(t.AuditEntry)) or 0


def check_all() -> tuple[int, int | None]:
    """How many entries there are, and the first broken one if any."""
    with read_session() as session:
        return count(session), verify(session)


def _digest(payload: list[Any]) -> str:
    return hashlib.sha256(_canonical(payload).encode("utf-8", "surrogatepass")).hexdigest()


def _fault(raw: Raw, number: int, previous: str, has_gaps: bool) -> str:
    """Why an entry cannot follow the entry `number` with the hash `previous`; "" when it can."""
    id_, action, kind, object_id, actor, detail, reason, at, before, after, form, above, own = raw
    if above != previous:
        return "broken_link"
    if id_ != number + 1 and not (has_gaps and form == 1 and id_ > number):
        return "number"
    if isinstance(at, datetime):
        at = at.astimezone(UTC).isoformat()
    elif isinstance(at, str) and _AT.fullmatch(at):
        at = f"{at[:10]}T{at[11:] if at[20:] != '000000' else at[11:19]}+00:00"
    else:
        return "unreadable"
    if form == 1:
        try:
            parsed = _parse(detail)
        except (ValueError, TypeError, RecursionError):
            return "unreadable"
        if _as_stored(parsed) != detail or before is not None or after is not None:  # another spelling of the same JSON
            return "altered"
        payload = [above, action, kind, object_id, actor, parsed, reason, at]
    else:
        payload = [form, id_, above, action, kind, object_id, actor, detail, reason, at, before, after]
    try:
        return "" if _digest(payload) == own else "altered"
    except (TypeError, ValueError):
        return "unreadable"


@contextmanager
def _stored(session: Session, *, as_bytes: bool = False) -> Iterator[Iterator[Raw]]:
    """The entries as the database has them, texts unparsed. `as_bytes`: what is no UTF-8 is told as it is instead of raising."""
    connection = session.connection()
    if connection.dialect.name != "sqlite":
        query = text(_SELECT.replace(" detail,", " CAST(detail AS TEXT),"))
        with connection.execute(query, execution_options={"yield_per": 2000}) as found:
            yield (tuple(row) for row in found)
        return
    driver: Any = connection.connection.driver_connection
    usual = driver.text_factory
    if as_bytes:
        driver.text_factory = lambda value: value.decode("utf-8", "surrogateescape")
    cursor = driver.cursor()
    try:
        yield cursor.execute(_SELECT)
    finally:
        cursor.close()
        driver.text_factory = usual
