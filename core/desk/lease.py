"""Who has a case in hand: claim, heartbeat, release, hand-over, drafts.

A claim is one conditional UPDATE: of two people who reach for a case exactly one changes a row, the other gets a sentence.
A lease that has run out is not written back by anybody; it merely stops protecting. A draft belongs to its author and
outlives the lease. Each function is one short write transaction. Called by `core.desk.mailbox`.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from core import audit
from core.desk.cases import resting_status, state_of
from core.desk.plan import REVIEWER_ROLES, has_read, seat_for
from core.desk.queue import next_ids
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.home import current_home
from core.records import ConflictStatus
from db import tables as t
from db.base import utc_now
from db.engine import is_reading, read_session, write_session

#: A case handed to a colleague waits for them this long before it returns to the queue.
HAND_OVER_HOURS = 24
MAX_DRAFT = 200_000


@dataclass(frozen=True, slots=True)
class Claim:
    """A case in hand. Decisions carry `lease_token` and `version` back."""

    conflict_id: int
    lease_token: str
    expires_at: datetime
    version: int


def reviewer(session: Session, user_id: int) -> t.User:
    """The account, if it may review now: the role is read from the database, not from what a session remembers."""
    user = session.get(t.User, user_id)
    if user is None or not user.is_active or user.role not in REVIEWER_ROLES:
        raise Forbidden("forbidden", role=user.role if user else "")
    return user


def get_case(session: Session, conflict_id: int) -> t.Conflict:
    """The case, locked for this transaction if it may write. Raises NotFound("desk.no_such_case")."""
    conflict = session.get(t.Conflict, conflict_id, with_for_update=None if is_reading(session) else True)
    if conflict is None:
        raise NotFound("desk.no_such_case", case=conflict_id)
    return conflict


def claim(user_id: int, conflict_id: int | None = None, *, language: str | None = None, lease_token: str | None = None) -> Claim:
    """Take a case, or with None the next open one in this person's order.

    A window brings its own `lease_token`: the one in force renews the lease, so that a resent claim changes nothing; another
    one of the same person takes over, and the window that had it is told.
    Raises Conflicting("desk.claimed_by_other" with name and until, "desk.already_adjudicated"), NotFound("desk.queue_empty").
    """
    if lease_token is not None and not 8 <= len(lease_token) <= 100:
        raise UserError("desk.field_unknown", field="lease_token")
    with write_session() as session:
        reviewer(session, user_id)
        for wanted in [conflict_id] if conflict_id is not None else next_ids(session, user_id, language=language):
            token = lease_token or secrets.token_urlsafe(12)
            found = session.get(t.Conflict, wanted)
            if found is not None and has_read(session, user_id, found):
                continue
            is_renewal = _token_of(session, wanted, user_id) == token
            now = utc_now()
            expires = now + timedelta(minutes=current_home().settings.case_lease_minutes)
            changed = session.execute(
                update(t.Conflict)
                .where(t.Conflict.id == wanted, _may_claim(user_id, now))
                .values(
                    status=ConflictStatus.CLAIMED.value,
                    claimed_by=user_id,
                    lease_token=token,
                    lease_expires_at=expires,
                    version=t.Conflict.version + (0 if is_renewal else 1),
                )
            )
            if changed.rowcount == 1:  # type: ignore[attr-defined]
                return Claim(wanted, token, expires, session.scalars(select(t.Conflict.version).where(t.Conflict.id == wanted)).one())
        if conflict_id is None:
            raise NotFound("desk.queue_empty")
        raise refusal(session, get_case(session, conflict_id), user_id)


def heartbeat(user_id: int, conflict_id: int, lease_token: str) -> datetime:
    """Prolong the lease; returns when it now ends. A lease that ran out is renewed unless somebody took the case.

    Raises like `hold`.
    """
    with write_session() as session:
        conflict = hold(session, reviewer(session, user_id), conflict_id, lease_token)
        now = utc_now()
        ends = now + timedelta(minutes=current_home().settings.case_lease_minutes)
        # a case handed over for a day keeps its day
        conflict.lease_expires_at = max(conflict.lease_expires_at or now, ends)
        return conflict.lease_expires_at


def release(user_id: int, conflict_id: int, lease_token: str) -> None:
    """Put the case back into the queue; the draft stays. Silent when the case is no longer in this person's hand."""
    with write_session() as session:
        reviewer(session, user_id)
        conflict = get_case(session, conflict_id)
        if conflict.status == ConflictStatus.CLAIMED and conflict.claimed_by == user_id and conflict.lease_token == lease_token:
            let_go(conflict, resting_status(session, conflict_id))


def hand_over(user_id: int, conflict_id: int, lease_token: str, to_user_id: int) -> datetime:
    """Reserve a case in hand for a colleague; returns until when. The draft is not shown to them: they judge blind too.

    Raises like `hold`, and UserError("desk.hand_over_target") when the colleague cannot review.
    """
    with write_session() as session:
        user = reviewer(session, user_id)
        target = session.get(t.User, to_user_id)
        if target is None or target.id == user_id or not target.is_active or target.role not in REVIEWER_ROLES:
            raise UserError("desk.hand_over_target")
        conflict = hold(session, user, conflict_id, lease_token)
        until = utc_now() + timedelta(hours=HAND_OVER_HOURS)
        conflict.claimed_by, conflict.lease_token, conflict.lease_expires_at = target.id, secrets.token_urlsafe(12), until
        conflict.version += 1
        audit.record(session, "hand_over_case", "conflict", conflict_id, actor_id=user_id, detail={"to": target.id})
        return until


def save_draft(user_id: int, conflict_id: int, payload: dict[str, Any]) -> datetime:
    """Keep unfinished work, whoever holds the case now; returns the time of saving. An empty payload removes the draft.

    Raises UserError("desk.text_too_long").
    """
    if len(json.dumps(payload, ensure_ascii=False)) > MAX_DRAFT:
        raise UserError("desk.text_too_long", limit=MAX_DRAFT)
    with write_session() as session:
        reviewer(session, user_id)
        if session.get(t.Conflict, conflict_id) is None:
            raise NotFound("desk.no_such_case", case=conflict_id)
        now = utc_now()
        row = session.scalar(select(t.Draft).where(t.Draft.conflict_id == conflict_id, t.Draft.user_id == user_id))
        if not payload:
            drop_draft(session, user_id, conflict_id)
        elif row is None:
            session.add(t.Draft(conflict_id=conflict_id, user_id=user_id, payload=payload, updated_at=now))
        else:
            row.payload, row.updated_at = payload, now
        return now


def colleagues(user_id: int) -> list[dict[str, Any]]:
    """Who a case can be handed to: {id, name} of the other active reviewers."""
    with read_session() as session:
        reviewer(session, user_id)
        query = select(t.User).where(t.User.id != user_id, t.User.is_active, t.User.role.in_(REVIEWER_ROLES)).order_by(t.User.display_name)
        return [{"id": user.id, "name": user.display_name} for user in session.scalars(query)]


def drop_draft(session: Session, user_id: int, conflict_id: int) -> None:
    """Remove the draft once its decision is stored."""
    session.execute(delete(t.Draft).where(t.Draft.conflict_id == conflict_id, t.Draft.user_id == user_id))


def let_go(conflict: t.Conflict, status: str) -> None:
    """Nobody holds the case any more; every change of state makes a new version."""
    conflict.status = status
    conflict.claimed_by = conflict.lease_token = conflict.lease_expires_at = None
    conflict.version += 1


def hold(session: Session, user: t.User, conflict_id: int, lease_token: object) -> t.Conflict:
    """The case, if it is still in this person's hand in this window.

    Raises Conflicting: desk.already_adjudicated, claimed_by_other (name, until), not_claimed, other_window.
    """
    conflict = get_case(session, conflict_id)
    if conflict.status != ConflictStatus.CLAIMED or conflict.claimed_by != user.id:
        raise refusal(session, conflict, shown_to=user.id)
    if conflict.lease_token != lease_token:
        raise Conflicting("desk.other_window", current=state_of(session, conflict, user.id))
    return conflict


def refusal(session: Session, conflict: t.Conflict, user_id: int | None = None, *, shown_to: int | None = None) -> Conflicting:
    """Why a case cannot be had, with the state it is in. `user_id` asks for it; `shown_to` had it and is shown their own last words."""
    current = state_of(session, conflict, user_id if user_id is not None else shown_to)
    if conflict.arbitration_at is not None and conflict.status != ConflictStatus.ADJUDICATED:
        return Conflicting("desk.in_arbitration", case=conflict.id, current=current)
    if user_id is not None and not current["holder"] and conflict.status != ConflictStatus.ADJUDICATED:
        code = "desk.already_read" if has_read(session, user_id, conflict) else "desk.assigned_to_others"
        return Conflicting(code, case=conflict.id, current=current)
    if conflict.status == ConflictStatus.ADJUDICATED:
        return Conflicting("desk.already_adjudicated", case=conflict.id, current=current)
    if current["holder"]:
        until = conflict.lease_expires_at.strftime("%H:%M") if conflict.lease_expires_at else ""
        return Conflicting("desk.claimed_by_other", name=current["holder"], until=until, case=conflict.id, current=current)
    return Conflicting("desk.not_claimed", case=conflict.id, current=current)


def _token_of(session: Session, conflict_id: int, user_id: int) -> str | None:
    return session.scalar(select(t.Conflict.lease_token).where(t.Conflict.id == conflict_id, t.Conflict.claimed_by == user_id))


def _may_claim(user_id: int, now: datetime) -> ColumnElement[bool]:
    """In this person's hand, or in nobody's and with a seat for them. A case handed over needs no seat."""
    expired = or_(t.Conflict.lease_expires_at < now, t.Conflict.lease_expires_at.is_(None))
    is_free = or_(
        t.Conflict.status.in_((ConflictStatus.OPEN, ConflictStatus.DEFERRED)), and_(t.Conflict.status == ConflictStatus.CLAIMED, expired)
    )
    return or_(and_(t.Conflict.status == ConflictStatus.CLAIMED, t.Conflict.claimed_by == user_id), and_(is_free, seat_for(user_id)))
