"""The audit chain: every decision and administrator action, append-only, each entry holding the hash of the one before.

`record()` is called inside the transaction that does the thing, so that the entry and the thing stand or fall together.
The hash is SHA-256 over the canonical JSON of (previous_hash, action, object, actor, detail, reason, time).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import tables as t
from db.base import utc_now
from db.engine import read_session

GENESIS = "0" * 64


def entry_hash(entry: t.AuditEntry) -> str:
    """The hash that `entry` must carry, recomputed from its fields."""
    payload = [
        entry.previous_hash,
        entry.action,
        entry.object_type,
        entry.object_id,
        entry.actor_id,
        entry.detail,
        entry.reason,
        entry.created_at.isoformat(),
    ]
    return hashlib.sha256(json.dumps(payload, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def record(
    session: Session,
    action: str,
    object_type: str,
    object_id: object,
    *,
    actor_id: int | None,
    detail: dict[str, Any] | None = None,
    reason: str = "",
) -> t.AuditEntry:
    """Append one entry in the caller's write transaction (which holds the write lock, so the chain cannot fork)."""
    last = session.scalar(select(t.AuditEntry).order_by(t.AuditEntry.id.desc()).limit(1))
    entry = t.AuditEntry(
        action=action,
        object_type=object_type,
        object_id=str(object_id),
        previous_hash=last.entry_hash if last else GENESIS,
        entry_hash="",
        actor_id=actor_id,
        detail=json.loads(json.dumps(detail or {}, ensure_ascii=False)),
        reason=reason,
        created_at=utc_now(),
    )
    entry.entry_hash = entry_hash(entry)
    session.add(entry)
    session.flush()
    return entry


def verify(session: Session) -> int | None:
    """Walk the whole chain. Returns the id of the first broken entry, or None when it holds."""
    previous = GENESIS
    for entry in session.scalars(select(t.AuditEntry).order_by(t.AuditEntry.id)).yield_per(1000):
        if entry.previous_hash != previous or entry.entry_hash != entry_hash(entry):
            return entry.id
        previous = entry.entry_hash
    return None


def count(session: Session) -> int:
    """How many entries the chain has."""
    return session.scalar(select(func.count()).select_from(t.AuditEntry)) or 0


def check_all() -> tuple[int, int | None]:
    """How many entries there are, and the first broken one if any."""
    with read_session() as session:
        return count(session), verify(session)
