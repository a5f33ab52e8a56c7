"""Giving cases to readers: by name, by speciality, or to whoever comes first; with an overlap.

An administrator sees how many cases wait for each person, which is what it takes to share work out, and nothing about how fast or
how well anybody works. Seats themselves are `core.desk.plan`'s. Called by pages/assignments.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit
from core.desk import queue
from core.desk.plan import Seat, active_reviewers, give_seats, has_seats, readings
from core.desk.queue import EXCERPT, Wish, wished
from core.errors import UserError
from core.models import require_role
from core.permit import permit
from core.records import ConflictStatus, Role
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

Way = Literal["named", "speciality", "open"]
WAYS: tuple[Way, ...] = ("named", "speciality", "open")
MAX_CASES = 500
MAX_OVERLAP = 3


@dataclass(frozen=True, slots=True)
class Load:
    """What waits for one person: seats in their name, and cases in their hand now."""

    user_id: int
    name: str
    speciality: str
    num_seats: int
    num_in_hand: int


@dataclass(frozen=True, slots=True)
class Free:
    """A case that nobody was given. Why it is a case is not told: the administrator may be one of its readers."""

    conflict_id: int
    question: str
    topic: str
    language: str
    risk: str


@dataclass(frozen=True, slots=True)
class Given:
    """A free seat at a case."""

    conflict_id: int
    seat: int
    #: a person's name or a speciality; empty: anybody
    holder: str
    is_person: bool
    question: str


def loads() -> list[Load]:
    """Everybody who reads cases, by name."""
    with read_session() as session:
        seats: Counter[int | None] = Counter(_num_seats(session))
        held = select(t.Conflict.claimed_by, func.count()).where(
            t.Conflict.status == ConflictStatus.CLAIMED, t.Conflict.lease_expires_at >= utc_now()
        )
        in_hand = {user_id: num for user_id, num in session.execute(held.group_by(t.Conflict.claimed_by))}  # noqa: C416
        people = sorted(active_reviewers(session), key=lambda one: one.display_name)
        return [Load(one.id, one.display_name, one.speciality or "", seats[one.id], in_hand.get(one.id, 0)) for one in people]


def topics() -> list[str]:
    """Topics of the cases there are."""
    with read_session() as session:
        return queue.topics(session)


def specialities() -> list[str]:
    """Specialities of those who read cases."""
    with read_session() as session:
        return sorted({one.speciality for one in active_reviewers(session) if one.speciality})


def free_cases(wish: Wish, limit: int = 100) -> tuple[list[Free], int]:
    """Open cases without seats that fit, in the order of their priority, at most `limit`; and how many there are."""
    with read_session() as session:
        open_ones = (t.Conflict.status == ConflictStatus.OPEN, t.Conflict.arbitration_at.is_(None), ~has_seats())
        total = session.scalar(wished(session, select(func.count(t.Conflict.id)).where(*open_ones), wish)) or 0
        query = wished(session, select(t.Conflict.id, t.Conflict.sample_id).where(*open_ones), wish)
        ids = [row.id for row in session.execute(query.order_by(t.Conflict.priority.desc(), t.Conflict.id).limit(limit))]
        rows = session.execute(
            select(t.Conflict.id, t.Sample).join(t.Sample, t.Sample.id == t.Conflict.sample_id).where(t.Conflict.id.in_(ids))
        )
        found = {case: Free(case, _short(one.text), one.category, one.language, one.risk) for case, one in rows}
        return [found[case] for case in ids], total


def given(limit: int = 200) -> list[Given]:
    """Seats that wait for a reader, by case."""
    with read_session() as session:
        query = (
            select(t.Assignment, t.User.display_name, t.Sample.text)
            .join(t.Conflict, t.Conflict.id == t.Assignment.conflict_id)
            .join(t.Sample, t.Sample.id == t.Conflict.sample_id)
            .outerjoin(t.User, t.User.id == t.Assignment.user_id)
            .where(t.Assignment.adjudication_id.is_(None), t.Conflict.status != ConflictStatus.ADJUDICATED)
        )
        rows = session.execute(query.order_by(t.Assignment.conflict_id, t.Assignment.seat).limit(limit))
        return [Given(row.conflict_id, row.seat, name or row.speciality or "", name is not None, _short(text)) for row, name, text in rows]


def assign_cases(
    by: int, case_ids: Sequence[int], way: Way, *, user_ids: Sequence[int] = (), speciality: str = "", overlap: int = 1
) -> int:
    """Give `overlap` seats at each case; returns how many cases were given out. A case that got seats meanwhile is passed over.

    By name, whoever has the fewest waiting comes first, and nobody gets a case that they have read. Raises Forbidden,
    UserError("assign.nothing_chosen", "assign.too_many", "assign.needs_people", "assign.needs_speciality").
    """
    permit("desk.assigning.assign_cases", by)
    cases = list(dict.fromkeys(case_ids))
    if not cases:
        raise UserError("assign.nothing_chosen")
    if len(cases) > MAX_CASES:
        raise UserError("assign.too_many", limit=MAX_CASES)
    if not 1 <= overlap <= MAX_OVERLAP:
        raise UserError("assign.needs_people", num=overlap)
    if way == "speciality" and not speciality.strip():
        raise UserError("assign.needs_speciality")
    with write_session() as session:
        require_role(session.get(t.User, by), Role.ADMIN)
        chosen = [one.id for one in active_reviewers(session) if one.id in set(user_ids)]
        if way == "named" and len(chosen) < overlap:
            raise UserError("assign.needs_people", num=overlap)
        waiting: Counter[int | None] = Counter(_num_seats(session))
        free = select(t.Conflict).where(t.Conflict.id.in_(cases), t.Conflict.status == ConflictStatus.OPEN, ~has_seats())
        done = []
        for conflict in session.scalars(free.order_by(t.Conflict.id)).all():
            seats = [Seat(speciality=speciality.strip() if way == "speciality" else None)] * overlap
            if way == "named":
                have_read = {one.user_id for one in readings(session, conflict.id)}
                order = sorted((one for one in chosen if one not in have_read), key=lambda one: (waiting[one], one))
                if len(order) < overlap:
                    continue
                seats = [Seat(user_id=one) for one in order[:overlap]]
                waiting.update(order[:overlap])
            give_seats(session, conflict, seats, by=by)
            done.append(conflict.id)
        detail = {"cases": done, "way": way, "users": chosen, "speciality": speciality.strip(), "overlap": overlap}
        audit.record(session, "assign_cases", "conflict", f"{len(done)} cases", actor_id=by, detail=detail)
        return len(done)


def _num_seats(session: Session) -> dict[int, int]:
    query = (
        select(t.Assignment.user_id, func.count())
        .join(t.Conflict, t.Conflict.id == t.Assignment.conflict_id)
        .where(t.Assignment.user_id.is_not(None), t.Assignment.adjudication_id.is_(None), t.Conflict.status != ConflictStatus.ADJUDICATED)
    )
    return {user_id: num for user_id, num in session.execute(query.group_by(t.Assignment.user_id)) if user_id is not None}


def _short(text: str) -> str:
    return text if len(text) <= EXCERPT else text[:EXCERPT] + "…"
