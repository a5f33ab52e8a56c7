"""Safety cases: somebody said "unsafe". One press files the case, puts the answer on the desk and blocks its version's promotion.

Called by the bench (votes 5-7) and by whoever files or closes a case. Everything happens in the caller's write transaction, so
that a flag and its case stand or fall together.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit
from core.errors import Conflicting, NotFound, UserError
from core.models import require_role
from core.permit import permit
from core.records import ConflictStatus, Role
from db import tables as t
from db.base import utc_now
from db.engine import write_session

BENCH_SAFETY = "bench_safety"
#: above every priority that `core.conflicts.priority` gives (at most 1.8): a reported danger is looked at first
SAFETY_PRIORITY = 10.0


@dataclass(frozen=True, slots=True)
class OpenCase:
    """A safety case that blocks promotion."""

    id: int
    conflict_id: int | None
    question: str
    origin: str
    reported_by: str
    created_at: datetime


def file_case(
    session: Session, completion: t.Completion, *, reporter: t.User, origin: str, note: str = "", rules_value: float | None = None
) -> t.SafetyCase:
    """File "unsafe" about a stored completion; its case on the desk is opened, or opened again when it was decided before.

    One open case per reporter and completion: a second press changes nothing and returns the first.
    """
    existing = session.scalar(
        select(t.SafetyCase).where(
            t.SafetyCase.completion_id == completion.id, t.SafetyCase.reported_by == reporter.id, t.SafetyCase.closed_at.is_(None)
        )
    )
    if existing is not None:
        return existing
    conflict = session.scalar(select(t.Conflict).where(t.Conflict.completion_id == completion.id, t.Conflict.kind == BENCH_SAFETY))
    if conflict is None:
        conflict = t.Conflict(completion_id=completion.id, sample_id=completion.sample_id, kind=BENCH_SAFETY)
        session.add(conflict)
    elif conflict.status in (ConflictStatus.ADJUDICATED, ConflictStatus.DEFERRED):
        conflict.status, conflict.claimed_by, conflict.lease_token, conflict.lease_expires_at = ConflictStatus.OPEN, None, None, None
        conflict.version += 1
    conflict.priority = SAFETY_PRIORITY
    conflict.rules_value = rules_value if conflict.rules_value is None else conflict.rules_value
    session.flush()
    case = t.SafetyCase(completion_id=completion.id, reported_by=reporter.id, origin=origin, note=note, conflict_id=conflict.id)
    session.add(case)
    session.flush()
    detail = {"completion": completion.id, "version": completion.model_version_id, "conflict": conflict.id, "origin": origin}
    audit.record(session, "file_safety_case", "safety_case", case.id, actor_id=reporter.id, detail=detail, reason=note)
    return case


def close_case(session: Session, case_id: int, *, actor: t.User | None, reason: str) -> t.SafetyCase:
    """Close a case with a reason. `actor` is a clinician or an administrator: it lifts a block on promotion.

    Raises Forbidden, UserError("models.reason_missing"), NotFound("models.no_such_case"), Conflicting("models.case_closed").
    """
    actor = require_role(actor, Role.CLINICIAN, Role.ADMIN)
    if not reason.strip():
        raise UserError("models.reason_missing")
    case = session.get(t.SafetyCase, case_id, with_for_update=True)
    if case is None:
        raise NotFound("models.no_such_case", id=case_id)
    if case.closed_at is not None:
        raise Conflicting("models.case_closed", id=case_id)
    case.closed_by, case.closed_reason, case.closed_at = actor.id, reason.strip(), utc_now()
    audit.record(session, "close_safety_case", "safety_case", case.id, actor_id=actor.id, reason=reason.strip())
    session.flush()
    return case


def close(user_id: int, case_id: int, reason: str) -> None:
    """`close_case` in a transaction of its own, for screens."""
    permit("safety.close", user_id)
    with write_session() as session:
        close_case(session, case_id, actor=session.get(t.User, user_id), reason=reason)


def count_open(session: Session, version_id: int) -> int:
    """Open safety cases about answers of a version."""
    query = (
        select(func.count(t.SafetyCase.id))
        .join(t.Completion, t.Completion.id == t.SafetyCase.completion_id)
        .where(t.Completion.model_version_id == version_id, t.SafetyCase.closed_at.is_(None))
    )
    return session.scalar(query) or 0


def open_cases(session: Session, version_id: int) -> list[OpenCase]:
    """The open cases of a version, oldest first."""
    query = (
        select(t.SafetyCase, t.Sample.text, t.User.display_name)
        .join(t.Completion, t.Completion.id == t.SafetyCase.completion_id)
        .join(t.Sample, t.Sample.id == t.Completion.sample_id)
        .join(t.User, t.User.id == t.SafetyCase.reported_by)
        .where(t.Completion.model_version_id == version_id, t.SafetyCase.closed_at.is_(None))
        .order_by(t.SafetyCase.id)
    )
    return [OpenCase(c.id, c.conflict_id, text, c.origin, name, c.created_at) for c, text, name in session.execute(query)]
