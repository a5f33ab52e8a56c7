"""Who reads which case: seats, how they are filled, and what a signature leads to.

A seat is for a named person, a speciality, or anybody. A case without seats is open to all. `seat_for` is the one SQL
condition by which queue, claim and counts know whether a person may read a case. Everything runs in the caller's session.
Called by `core.adjudication`, `core.desk.lease`, `core.desk.queue` and `core.desk.draw`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from core import audit
from core.desk.cases import stands
from core.desk.routing import Next, Reading, what_next
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.records import ConflictStatus, Role, Verdict
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

REVIEWER_ROLES = (Role.CLINICIAN, Role.ADMIN)
#: readers of a case on which somebody pulled the stop cord
STOP_CORD_READERS = 3
#: a verdict that leaves the seat to somebody else, or the case to more context
NOT_A_READING = ("not_my_field", "missing_context")


@dataclass(frozen=True, slots=True)
class Seat:
    """Who may take it: `user_id`, else people of `speciality`, else anybody."""

    user_id: int | None = None
    speciality: str | None = None


@dataclass(frozen=True, slots=True)
class FreeSeat:
    """A seat that waits. `holder` is the person or speciality it is kept for, None for anybody."""

    conflict_id: int
    seat: int
    holder: str | None


def active_reviewers(session: Session) -> list[t.User]:
    """Who reads cases: active clinicians; administrators only where there are none."""
    people = list(session.scalars(select(t.User).where(t.User.is_active, t.User.role.in_(REVIEWER_ROLES)).order_by(t.User.id)))
    return [one for one in people if one.role == Role.CLINICIAN] or people


def may_take(user_id: int) -> ColumnElement[bool]:
    """This seat is free and fits the person."""
    speciality = select(t.User.speciality).where(t.User.id == user_id).scalar_subquery()
    fits = or_(
        t.Assignment.user_id == user_id,
        and_(
            t.Assignment.user_id.is_(None),
            or_(t.Assignment.speciality.is_(None), func.lower(t.Assignment.speciality) == func.lower(speciality)),
        ),
    )
    return and_(t.Assignment.adjudication_id.is_(None), fits)


def has_seats() -> ColumnElement[bool]:
    """Somebody has decided who reads the case."""
    return exists().where(t.Assignment.conflict_id == t.Conflict.id)


def seat_for(user_id: int) -> ColumnElement[bool]:
    """The case does not wait for an arbiter, and has a seat for this person or no seats at all."""
    free = exists().where(t.Assignment.conflict_id == t.Conflict.id, may_take(user_id))
    return and_(t.Conflict.arbitration_at.is_(None), or_(~has_seats(), free))


def has_read(session: Session, user_id: int, conflict: t.Conflict) -> bool:
    """This person's verdict counts already; another one needs other eyes."""
    return conflict.overlap > 1 and any(one.user_id == user_id for one in readings(session, conflict.id))


def readings(session: Session, conflict_id: int) -> list[Reading]:
    """Each reader's blind and current signed verdict, in the order of their first signatures."""
    rows = session.scalars(select(t.Adjudication).where(t.Adjudication.conflict_id == conflict_id, stands()).order_by(t.Adjudication.id))
    blind: dict[int, str] = {}
    signed: dict[int, t.Adjudication] = {}
    for row in rows:
        if row.stage == "blind":
            blind[row.user_id] = row.verdict or ""
        elif row.stage == "signed" and row.role == "reader":
            signed[row.user_id] = row
    return [
        Reading(user_id, blind.get(user_id, row.verdict or ""), row.verdict or "")
        for user_id, row in signed.items()
        if not (row.verdict == Verdict.CANNOT_JUDGE and row.cannot_judge_reason in NOT_A_READING)
    ]


def give_seats(session: Session, conflict: t.Conflict, seats: Sequence[Seat], *, draw_id: int | None = None, by: int | None = None) -> None:
    """Add seats and let the case wait for that many readers."""
    taken = session.scalar(select(func.max(t.Assignment.seat)).where(t.Assignment.conflict_id == conflict.id)) or 0
    for number, seat in enumerate(seats, start=taken + 1):
        session.add(
            t.Assignment(
                conflict_id=conflict.id, seat=number, user_id=seat.user_id, speciality=seat.speciality, draw_id=draw_id, created_by=by
            )
        )
    conflict.overlap = max(conflict.overlap, taken + len(seats))


def after_signing(session: Session, conflict: t.Conflict, row: t.Adjudication, status: str) -> str:
    """Where a reader's stored signature leaves the case. `status` is what it would be with a single reader.

    Fills the seat (a correction keeps its own), asks for a third reader, or sends the case to arbitration.
    """
    seat = _seat_of(session, conflict.id, row)
    if status != ConflictStatus.ADJUDICATED:
        if seat is not None and seat.adjudication_id is not None:
            seat.adjudication_id = None  # corrected to "not my field" or "missing context": the seat is free again
        return status
    if seat is not None:
        seat.adjudication_id = row.id
    given = readings(session, conflict.id)
    following = what_next(given, conflict.overlap)
    conflict.arbitration_at = None
    if following is Next.THIRD and not _others(session, [one.user_id for one in given]):
        following = Next.ARBITRATE  # nobody is left to read it
    if following is Next.CLOSE:
        return ConflictStatus.ADJUDICATED.value
    if following is Next.THIRD:
        _add_readers(session, conflict, len(given) + 1)
        conflict.order_gap = 1.0
    elif following is Next.ARBITRATE:
        conflict.arbitration_at = utc_now()
    return ConflictStatus.OPEN.value


def pull_stop_cord(session: Session, conflict: t.Conflict) -> None:
    """Three people read a case that somebody called unsafe (fewer where fewer can); a closed one is opened again for them."""
    given = [one.user_id for one in readings(session, conflict.id)]
    people = len(given) + len(_others(session, given))
    wanted = min(STOP_CORD_READERS, people)
    if wanted > conflict.overlap:
        _add_readers(session, conflict, wanted)
    if conflict.status == ConflictStatus.ADJUDICATED and len(given) < wanted and not _has_ruling(session, conflict.id):
        conflict.status = ConflictStatus.OPEN.value
        conflict.version += 1


def reopen(session: Session, conflict: t.Conflict, retracted: t.Adjudication) -> bool:
    """After a retraction: the seat is free again, and unless a ruling stands the case waits for somebody to decide it anew.

    Returns whether the case is open now. A retracted ruling sends it back to arbitration.
    """
    for seat in session.scalars(select(t.Assignment).where(t.Assignment.adjudication_id == retracted.id)):
        seat.adjudication_id = None
    if _has_ruling(session, conflict.id):
        return False
    conflict.status = ConflictStatus.OPEN.value
    conflict.claimed_by = conflict.lease_token = conflict.lease_expires_at = None
    conflict.version += 1
    conflict.arbitration_at = utc_now() if retracted.role == "arbiter" else None
    return True


def assign(by: int, conflict_id: int, seat: int, *, user_id: int | None = None, speciality: str | None = None) -> None:
    """An administrator gives a free seat to somebody else, to a speciality, or to all.

    Raises NotFound("desk.no_such_seat"), Conflicting("desk.seat_taken"), UserError("desk.hand_over_target").
    """
    with write_session() as session:
        actor = session.get(t.User, by)
        if actor is None or not actor.is_active or actor.role != Role.ADMIN:
            raise Forbidden("forbidden", role=actor.role if actor else "")
        row = session.scalar(select(t.Assignment).where(t.Assignment.conflict_id == conflict_id, t.Assignment.seat == seat))
        if row is None:
            raise NotFound("desk.no_such_seat", case=conflict_id, seat=seat)
        if row.adjudication_id is not None:
            raise Conflicting("desk.seat_taken", seat=seat)
        if user_id is not None:
            target = session.get(t.User, user_id)
            if target is None or not target.is_active or target.role not in REVIEWER_ROLES:
                raise UserError("desk.hand_over_target")
        row.user_id, row.speciality = user_id, (speciality or "").strip() or None
        detail = {"seat": seat, "user_id": user_id, "speciality": row.speciality}
        audit.record(session, "assign_case", "conflict", conflict_id, actor_id=by, detail=detail)


def free_seats(draw_id: int) -> list[FreeSeat]:
    """Seats of a draw that nobody has filled, by case."""
    with read_session() as session:
        query = (
            select(t.Assignment, t.User.display_name)
            .outerjoin(t.User, t.User.id == t.Assignment.user_id)
            .where(t.Assignment.draw_id == draw_id, t.Assignment.adjudication_id.is_(None))
            .order_by(t.Assignment.conflict_id, t.Assignment.seat)
        )
        return [FreeSeat(row.conflict_id, row.seat, name or row.speciality) for row, name in session.execute(query)]


def may_arbitrate(session: Session, user_id: int, conflict: t.Conflict) -> bool:
    """The arbiter has not read the case; a reader may rule only where nobody else is left to."""
    given = [one.user_id for one in readings(session, conflict.id)]
    return user_id not in given or not _others(session, given)


def _seat_of(session: Session, conflict_id: int, row: t.Adjudication) -> t.Assignment | None:
    """The seat that this signature fills: its own when it corrects one, else a named, a speciality's or an open one."""
    seats = session.scalars(select(t.Assignment).where(t.Assignment.conflict_id == conflict_id).order_by(t.Assignment.seat)).all()
    mine = [seat for seat in seats if row.supersedes_id is not None and seat.adjudication_id == row.supersedes_id]
    if mine:
        return mine[0]
    user = session.get(t.User, row.user_id)
    speciality = (user.speciality or "").lower() if user else ""
    free = [seat for seat in seats if seat.adjudication_id is None]
    for fits in (
        lambda seat: seat.user_id == row.user_id,
        lambda seat: seat.user_id is None and seat.speciality is not None and seat.speciality.lower() == speciality,
        lambda seat: seat.user_id is None and seat.speciality is None,
    ):
        found = next((seat for seat in free if fits(seat)), None)
        if found is not None:
            return found
    return None


def _add_readers(session: Session, conflict: t.Conflict, wanted: int) -> None:
    seats = session.scalar(select(func.count(t.Assignment.id)).where(t.Assignment.conflict_id == conflict.id)) or 0
    if seats:
        give_seats(session, conflict, [Seat()] * (wanted - seats))
    conflict.overlap = max(conflict.overlap, wanted)


def _others(session: Session, user_ids: Sequence[int]) -> list[int]:
    """Active people who may review, other than these."""
    query = select(t.User.id).where(t.User.is_active, t.User.role.in_(REVIEWER_ROLES), t.User.id.not_in(user_ids))
    return list(session.scalars(query))


def _has_ruling(session: Session, conflict_id: int) -> bool:
    query = select(t.Adjudication.id).where(t.Adjudication.conflict_id == conflict_id, t.Adjudication.role == "arbiter", stands()).limit(1)
    return session.scalar(query) is not None
