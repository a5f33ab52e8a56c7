"""The newest entries of the audit chain, for reading. Called by the Record page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from db import tables as t
from db.engine import read_session


@dataclass(frozen=True, slots=True)
class EntryShown:
    """One entry; `actor` is "" for the system itself."""

    id: int
    at: datetime
    action: str
    object_type: str
    object_id: str
    actor: str
    reason: str
    hash: str


def newest(limit: int, action: str = "") -> list[EntryShown]:
    """The newest entries first, of one action if named."""
    query = select(t.AuditEntry, t.User.display_name).outerjoin(t.User, t.User.id == t.AuditEntry.actor_id)
    if action:
        query = query.where(t.AuditEntry.action == action)
    with read_session() as session:
        return [
            EntryShown(e.id, e.created_at, e.action, e.object_type, e.object_id, name or "", e.reason, e.entry_hash)
            for e, name in session.execute(query.order_by(t.AuditEntry.id.desc()).limit(limit))
        ]


def actions() -> list[str]:
    """Every action in the chain, by name."""
    with read_session() as session:
        return list(session.scalars(select(t.AuditEntry.action).distinct().order_by(t.AuditEntry.action)))
