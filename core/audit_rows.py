"""The chain with everything that can be held against it: anchors, and the decisions whose hashes stand in its entries.

A decision's entry holds the SHA-256 of the whole stored row, so that a verdict changed behind the product's back is found although
the chain itself is untouched. Called by the Record page and `./run.sh audit verify`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import cast, select
from sqlalchemy.orm import Session
from sqlalchemy.types import Integer

from core import audit, audit_anchor
from core.adjudication import row_hash
from core.audit import Broken
from core.home import Home
from db import tables as t
from db.engine import read_session


@dataclass(frozen=True, slots=True)
class Whole:
    """What was compared, and the first thing that does not fit."""

    num_entries: int
    num_points: int
    num_rows: int
    broken: Broken | None


def examine_all(home: Home, on_progress: Callable[[int, int], None] | None = None) -> Whole:
    """Walk the chain, then every decision in it. `on_progress(done, total)` counts entries.

    Raises UserError("trust.anchor_unreadable" / "trust.anchors_differ").
    """
    points = audit_anchor.points(home)
    with read_session() as session:
        found = audit.examine(session, points=points, on_progress=on_progress)
        num_rows, broken = (0, found.broken) if found.broken else decisions(session)
    return Whole(found.num_entries, found.num_points, num_rows, broken)


def decisions(session: Session) -> tuple[int, Broken | None]:
    """How many stored decisions are those of their entries, and the first that is not, or is gone."""
    query = (
        select(t.AuditEntry.id, t.AuditEntry.object_id, t.AuditEntry.detail, t.Adjudication)
        .outerjoin(t.Adjudication, t.Adjudication.id == cast(t.AuditEntry.object_id, Integer))
        .where(t.AuditEntry.object_type == "adjudication")
        .order_by(t.AuditEntry.id)
    )
    num_rows = 0
    with session.execute(query).yield_per(500) as found:
        for entry_id, object_id, detail, row in found:
            wanted = detail.get("row_sha256")
            if wanted is None:
                continue
            if row is None or row_hash(row) != wanted:
                return num_rows, Broken(entry_id, "row", f"adjudication {object_id}")
            num_rows += 1
    return num_rows, None
