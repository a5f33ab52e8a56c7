"""The team's search plan and calibration of each index name: stored, never overwritten, the newest counts.

They belong to the name and not to a version: a rebuilt index is searched as before. Written by whoever measured a gain (the
retrieval page, its decision engine, the calibration job), always with the reason; going back is writing the earlier one again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit
from core.models import check_role
from core.records import Role
from core.retrieval.calibration import Calibration
from core.retrieval.plans import Plan
from db import tables as t
from db.engine import read_session, write_session


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """What was in force from `created_at` on. `calibration` is None where nothing was measured."""

    id: int
    plan: Plan
    calibration: Calibration | None
    reason: str
    created_at: datetime


def plan_for(index_name: str) -> Plan:
    """The plan in force: the newest stored one, or the defaults."""
    newest = history(index_name, limit=1)
    return newest[0].plan if newest else Plan()


def in_force(index_name: str) -> tuple[Plan, Calibration | None]:
    """Plan and calibration of an index name."""
    newest = history(index_name, limit=1)
    return (newest[0].plan, newest[0].calibration) if newest else (Plan(), None)


def history(index_name: str, *, limit: int = 20) -> list[StoredPlan]:
    """Stored plans of an index name, newest first. Raises UserError("ask.bad_plan") for one that this version cannot read."""
    with read_session() as session:
        return [_stored(row) for row in session.scalars(_rows(index_name).limit(limit))]


def set_plan(index_name: str, plan: Plan, *, reason: str, by: int | None) -> int:
    """Put a plan in force; the calibration stays. Returns its id."""
    check_role(by, Role.ENGINEER, Role.ADMIN)
    with write_session() as session:
        newest = session.scalar(_rows(index_name).limit(1))
        return _add(session, index_name, plan.to_json(), newest.calibration if newest else {}, reason, by)


def set_calibration(index_name: str, calibration: Calibration | None, *, reason: str, by: int | None) -> int:
    """Put a calibration in force (None goes back to plain coverage); the plan stays. Returns the row's id."""
    with write_session() as session:
        newest = session.scalar(_rows(index_name).limit(1))
        return _add(session, index_name, newest.plan if newest else {}, calibration.to_json() if calibration else {}, reason, by)


def _rows(index_name: str) -> Any:
    return select(t.SearchPlan).where(t.SearchPlan.index_name == index_name).order_by(t.SearchPlan.id.desc())


def _stored(row: t.SearchPlan) -> StoredPlan:
    calibration = Calibration.from_json(row.calibration) if row.calibration else None
    return StoredPlan(row.id, Plan.from_json(row.plan), calibration, row.reason, row.created_at)


def _add(session: Session, name: str, plan: dict[str, Any], calibration: dict[str, Any], reason: str, by: int | None) -> int:
    row = t.SearchPlan(index_name=name, plan=plan, calibration=calibration, reason=reason, created_by=by)
    session.add(row)
    session.flush()
    detail = {"index": name, "plan": plan, "threshold": calibration.get("threshold")}
    audit.record(session, "search_plan.set", "search_plan", row.id, actor_id=by, detail=detail, reason=reason)
    return row.id
