"""Calibration rooms: several people judge the same cases blind, see where they differ, talk, and judge again.

Invariants: in the blind stage nobody sees another's verdict, nor how many agree; a round's verdict is given once; nothing said here is
a label (no adjudication, no preference pair, no safety case), because the second round is not independent. What is measured is the
guideline: agreement before and after, and who moved. Called by the guideline page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit, guidelines
from core.agreement import Estimate, count_table, estimate
from core.desk.cases import blind_case
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.models import require_role
from core.permit import permit
from core.records import Role, Verdict
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

HOSTS = (Role.CLINICIAN, Role.ADMIN)
VERDICTS = tuple(v.value for v in Verdict)
MAX_CASES = 30
#: stage -> the one that follows
NEXT = {"blind": "discussion", "discussion": "second", "second": "closed"}
ROUND = {"blind": 1, "second": 2}


@dataclass(frozen=True, slots=True)
class RoomShown:
    """A room as one person may see it. `num_done` counts this person's verdicts of the round that is open."""

    id: int
    name: str
    stage: str
    guideline_version: str
    host: str
    is_host: bool
    is_member: bool
    members: tuple[str, ...]
    case_ids: tuple[int, ...]
    num_done: int
    #: members who have judged every case of the open round
    num_ready: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Spread:
    """The verdicts on one case once they may be seen: verdict -> people's initials are not told, only how many."""

    conflict_id: int
    question: str
    first: dict[str, int]
    second: dict[str, int]
    notes: tuple[str, ...]

    @property
    def is_split(self) -> bool:
        return len(self.first) > 1


@dataclass(frozen=True, slots=True)
class Change:
    """Agreement before and after the talk (Randolph's kappa with interval), and how many of the pairs of verdicts moved."""

    before: Estimate
    after: Estimate
    num_pairs: int
    num_changed: int


def open_room(user_id: int, name: str, conflict_ids: Sequence[int], member_ids: Sequence[int]) -> int:
    """Open a room; its host is a member. Raises Forbidden, UserError("rooms.name_missing" / "rooms.needs_cases" / "rooms.needs_people"),
    NotFound("rooms.no_such_case")."""
    permit("rooms.open_room", user_id)
    cases, name = list(dict.fromkeys(conflict_ids)), name.strip()
    if not name:
        raise UserError("rooms.name_missing")
    if not 1 <= len(cases) <= MAX_CASES:
        raise UserError("rooms.needs_cases", limit=MAX_CASES)
    with write_session() as session:
        require_role(session.get(t.User, user_id), *HOSTS)
        members = [m for m in dict.fromkeys([user_id, *member_ids]) if _may_judge(session, m)]
        if len(members) < 2:
            raise UserError("rooms.needs_people")
        known = set(session.scalars(select(t.Conflict.id).where(t.Conflict.id.in_(cases))))
        if missing := [case for case in cases if case not in known]:
            raise NotFound("rooms.no_such_case", case=missing[0])
        row = t.Room(name=name[:200], guideline_version=guidelines.ensure(session).version, created_by=user_id)
        session.add(row)
        session.flush()
        session.add_all(t.RoomCase(room_id=row.id, conflict_id=case, position=i) for i, case in enumerate(cases))
        session.add_all(t.RoomMember(room_id=row.id, user_id=member) for member in members)
        detail = {"cases": cases, "members": members, "guideline": row.guideline_version}
        audit.record(session, "open_room", "room", row.id, actor_id=user_id, detail=detail)
        return row.id


def give(user_id: int, room_id: int, conflict_id: int, verdict: str, note: str = "") -> None:
    """One's verdict on a case in the round that is open. Raises Forbidden("rooms.not_a_member"), Conflicting("rooms.stage_is" /
    "rooms.given_already"), UserError("desk.verdict_unknown"), NotFound."""
    permit("rooms.give", user_id)
    if verdict not in VERDICTS:
        raise UserError("desk.verdict_unknown")
    with write_session() as session:
        room = _room(session, room_id)
        _member(session, room_id, user_id)
        number = ROUND.get(room.stage)
        if number is None:
            raise Conflicting("rooms.stage_is", stage=room.stage)
        if conflict_id not in _cases(session, room_id):
            raise NotFound("rooms.no_such_case", case=conflict_id)
        if _opinion(session, room_id, conflict_id, user_id, number) is not None:
            raise Conflicting("rooms.given_already")
        session.add(
            t.RoomOpinion(
                room_id=room_id, conflict_id=conflict_id, user_id=user_id, round=number, verdict=verdict, note=note.strip()[:2000]
            )
        )
        audit.record(session, "room_opinion", "room", room_id, actor_id=user_id, detail={"conflict_id": conflict_id, "round": number})


def advance(user_id: int, room_id: int, *, expected_stage: str) -> str:
    """Go on to the next stage; host or administrator. Two verdicts at least must be in before a reveal.

    Raises Forbidden, Conflicting("rooms.stage_is"), UserError("rooms.too_early").
    """
    permit("rooms.advance", user_id)
    with write_session() as session:
        user = require_role(session.get(t.User, user_id), *HOSTS)
        room = _room(session, room_id)
        if room.created_by != user_id and user.role != Role.ADMIN:
            raise Forbidden("rooms.host_only")
        if room.stage != expected_stage or room.stage not in NEXT:
            raise Conflicting("rooms.stage_is", stage=room.stage)
        number = ROUND.get(room.stage)
        if number is not None:
            people = select(func.count(func.distinct(t.RoomOpinion.user_id))).where(
                t.RoomOpinion.room_id == room_id, t.RoomOpinion.round == number
            )
            if (session.scalar(people) or 0) < 2:
                raise UserError("rooms.too_early")
        before, room.stage = room.stage, NEXT[room.stage]
        room.closed_at = utc_now() if room.stage == "closed" else None
        audit.record(session, "advance_room", "room", room_id, actor_id=user_id, detail={"from": before, "to": room.stage})
        return room.stage


def rooms_of(user_id: int) -> list[RoomShown]:
    """The rooms this person is in or may lead, newest first."""
    with read_session() as session:
        user = require_role(session.get(t.User, user_id), *HOSTS)
        found = []
        for room in session.scalars(select(t.Room).order_by(t.Room.id.desc()).limit(100)):
            members = list(session.scalars(select(t.RoomMember.user_id).where(t.RoomMember.room_id == room.id).order_by(t.RoomMember.id)))
            if user_id in members or user.role == Role.ADMIN:
                found.append(_shown(session, room, members, user_id))
        return found


def next_case(user_id: int, room_id: int) -> dict[str, Any] | None:
    """The next case this person has not judged in the open round, blind as on the desk; None when all are judged.

    Raises Forbidden("rooms.not_a_member"), NotFound.
    """
    with read_session() as session:
        room = _room(session, room_id)
        _member(session, room_id, user_id)
        number = ROUND.get(room.stage)
        for case in _cases(session, room_id) if number else ():
            if number is not None and _opinion(session, room_id, case, user_id, number) is None:
                return blind_case(session, case)
    return None


def spreads(user_id: int, room_id: int) -> list[Spread]:
    """How the verdicts spread, most split first. Raises Forbidden("rooms.still_blind") before the talk, Forbidden, NotFound."""
    with read_session() as session:
        room = _room(session, room_id)
        _member(session, room_id, user_id)
        if room.stage == "blind":
            raise Forbidden("rooms.still_blind")
        # in the second round only the first is shown: the talk was about it, and the second is blind again
        last = 2 if room.stage == "closed" else 1
        found = []
        for case in _cases(session, room_id):
            rows = session.scalars(
                select(t.RoomOpinion)
                .where(t.RoomOpinion.room_id == room_id, t.RoomOpinion.conflict_id == case, t.RoomOpinion.round <= last)
                .order_by(t.RoomOpinion.id)
            ).all()
            counts: tuple[dict[str, int], dict[str, int]] = ({}, {})
            for row in rows:
                counts[row.round - 1][row.verdict] = counts[row.round - 1].get(row.verdict, 0) + 1
            sample = session.get_one(t.Sample, session.get_one(t.Conflict, case).sample_id)
            found.append(Spread(case, sample.text, counts[0], counts[1], tuple(row.note for row in rows if row.note)))
        return sorted(found, key=lambda s: -len(s.first))


def change(user_id: int, room_id: int) -> Change:
    """What the talk did; of a closed room. Raises Forbidden, Conflicting("rooms.stage_is"), NotFound."""
    with read_session() as session:
        room = _room(session, room_id)
        _member(session, room_id, user_id)
        if room.stage != "closed":
            raise Conflicting("rooms.stage_is", stage=room.stage)
        rows = session.scalars(select(t.RoomOpinion).where(t.RoomOpinion.room_id == room_id)).all()
        given = {(row.conflict_id, row.user_id, row.round): row.verdict for row in rows}
        members = sorted({row.user_id for row in rows})
        cases = _cases(session, room_id)
    tables = [count_table([[given.get((case, m, n)) for m in members] for case in cases], VERDICTS) for n in (1, 2)]
    pairs = [(given[case, m, 1], given[case, m, 2]) for case in cases for m in members if (case, m, 1) in given and (case, m, 2) in given]
    before, after = (estimate(table, "randolph") for table in tables)
    return Change(before, after, len(pairs), sum(one != two for one, two in pairs))


def _shown(session: Session, room: t.Room, members: list[int], user_id: int) -> RoomShown:
    cases, number = _cases(session, room.id), ROUND.get(room.stage, 0)
    counted = select(t.RoomOpinion.user_id, func.count(t.RoomOpinion.id)).where(
        t.RoomOpinion.room_id == room.id, t.RoomOpinion.round == number
    )
    done: dict[int, int] = dict(session.execute(counted.group_by(t.RoomOpinion.user_id)).all())
    names = {row.id: row.display_name for row in session.execute(select(t.User.id, t.User.display_name).where(t.User.id.in_(members)))}
    host = session.get(t.User, room.created_by) if room.created_by else None
    return RoomShown(
        room.id,
        room.name,
        room.stage,
        room.guideline_version,
        host.display_name if host else "–",
        room.created_by == user_id,
        user_id in members,
        tuple(names[m] for m in members if m in names),
        tuple(cases),
        done.get(user_id, 0),
        sum(num >= len(cases) for num in done.values()),
        room.created_at,
    )


def _room(session: Session, room_id: int) -> t.Room:
    row = session.get(t.Room, room_id)
    if row is None:
        raise NotFound("rooms.no_such_room", id=room_id)
    return row


def _member(session: Session, room_id: int, user_id: int) -> None:
    require_role(session.get(t.User, user_id), *HOSTS)
    query = select(t.RoomMember.id).where(t.RoomMember.room_id == room_id, t.RoomMember.user_id == user_id)
    if session.scalar(query) is None:
        raise Forbidden("rooms.not_a_member")


def _may_judge(session: Session, user_id: int) -> bool:
    user = session.get(t.User, user_id)
    return user is not None and user.is_active and user.role in HOSTS


def _cases(session: Session, room_id: int) -> list[int]:
    return list(session.scalars(select(t.RoomCase.conflict_id).where(t.RoomCase.room_id == room_id).order_by(t.RoomCase.position)))


def _opinion(session: Session, room_id: int, conflict_id: int, user_id: int, number: int) -> t.RoomOpinion | None:
    return session.scalar(
        select(t.RoomOpinion).where(
            t.RoomOpinion.room_id == room_id,
            t.RoomOpinion.conflict_id == conflict_id,
            t.RoomOpinion.user_id == user_id,
            t.RoomOpinion.round == number,
        )
    )
