"""The list of cases as one reviewer sees it: no reason, no score, no priority.

The order must not give the reason away either: cases come by priority with a jitter that differs per person, so that random
controls stand among conflicts and two reviewers do not reach for the same case. Called by `core.desk.mailbox` and `lease`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, TypeVarTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from core.desk.plan import has_seats, may_take, seat_for
from core.desk.search import matching
from core.records import ConflictStatus
from db import tables as t
from db.base import utc_now

Filter = Literal["open", "mine", "deferred", "adjudicated"]
Order = Literal["mixed", "disagreement", "risk", "oldest", "newest"]
FILTERS: tuple[Filter, ...] = ("open", "mine", "deferred", "adjudicated")
ORDERS: tuple[Order, ...] = ("mixed", "disagreement", "risk", "oldest", "newest")
Ts = TypeVarTuple("Ts")

#: Cases shown in the list, and cases among which the jitter may reorder.
PAGE = 40
WINDOW = 200
JITTER = 0.3
#: seats looked at when the list is made; nobody has more to read than this
MAX_SEATS = 10_000
EXCERPT = 90


@dataclass(frozen=True, slots=True)
class Wish:
    """What a reader narrows the list to. Kind of conflict and model version are no filters: they would unblind."""

    language: str | None = None
    topic: str | None = None
    risk: str | None = None
    text: str = ""


def queue(
    session: Session,
    user_id: int,
    *,
    status: Filter = "open",
    language: str | None = None,
    order: Order = "mixed",
    wish: Wish | None = None,
    size: int = PAGE,
) -> list[dict[str, Any]]:
    """At most `size` rows {id, language, excerpt, status, is_mine, holder, stage, has_draft}. `stage` is this person's own."""
    wish = wish or Wish(language=language)
    if status == "open":
        ids = next_ids(session, user_id, order=order, wish=wish, size=size)
    else:
        ids = _listed_ids(session, user_id, status, wish, size)
    if not ids:
        return []
    own = (
        select(t.Adjudication.conflict_id, func.max(t.Adjudication.id).label("last"))
        .where(t.Adjudication.user_id == user_id, t.Adjudication.stage != "stop_cord", t.Adjudication.conflict_id.in_(ids))
        .group_by(t.Adjudication.conflict_id)
        .subquery()
    )
    rows = session.execute(
        select(t.Conflict, t.Sample.language, t.Sample.text, t.User.display_name, t.Adjudication.stage, t.Draft.id)
        .join(t.Sample, t.Sample.id == t.Conflict.sample_id)
        .outerjoin(t.User, t.User.id == t.Conflict.claimed_by)
        .outerjoin(own, own.c.conflict_id == t.Conflict.id)
        .outerjoin(t.Adjudication, t.Adjudication.id == own.c.last)
        .outerjoin(t.Draft, and_(t.Draft.conflict_id == t.Conflict.id, t.Draft.user_id == user_id))
        .where(t.Conflict.id.in_(ids))
    )
    now = utc_now()
    place = {conflict_id: n for n, conflict_id in enumerate(ids)}
    found = []
    for conflict, sample_language, text, holder, stage, draft_id in rows:
        is_held = conflict.status == ConflictStatus.CLAIMED and bool(conflict.lease_expires_at and conflict.lease_expires_at >= now)
        found.append(
            {
                "id": conflict.id,
                "language": sample_language,
                "excerpt": text if len(text) <= EXCERPT else text[:EXCERPT] + "…",
                "status": "open" if conflict.status == ConflictStatus.CLAIMED and not is_held else conflict.status,
                "is_mine": is_held and conflict.claimed_by == user_id,
                "holder": holder if is_held and conflict.claimed_by != user_id else None,
                "stage": stage,
                "has_draft": draft_id is not None,
            }
        )
    return sorted(found, key=lambda row: place[row["id"]])


def next_ids(
    session: Session, user_id: int, *, language: str | None = None, order: Order = "mixed", wish: Wish | None = None, size: int = PAGE
) -> list[int]:
    """Ids of cases that this person may take now: in hand first, then those with a seat for them, then free ones."""
    wish = wish or Wish(language=language)
    found: dict[int, None] = {}
    free = and_(t.Conflict.arbitration_at.is_(None), ~has_seats(), _not_done(user_id))
    # open and expired apart: either alone is read from an index in order, "or" would sort the whole backlog
    seats = list(session.scalars(select(t.Assignment.conflict_id).where(may_take(user_id)).distinct().limit(MAX_SEATS)))
    seated = and_(t.Conflict.id.in_(seats), _unheld(user_id, is_by_id=True), t.Conflict.arbitration_at.is_(None))
    groups = (_in_hand(user_id), seated, and_(_is_expired(), free), and_(t.Conflict.status == ConflictStatus.OPEN, free))
    for condition in groups:
        if len(found) >= size:
            break
        query = wished(session, select(t.Conflict.id, t.Conflict.priority).where(condition), wish, is_joined=order == "risk")
        found |= dict.fromkeys(_ranked(session, query, order, user_id, size))
    return list(found)[:size]


def _ranked(session: Session, query: Select[int, float], order: Order, user_id: int, size: int) -> list[int]:
    """At most `size` ids (more when mixed) in this order; every query can follow an index and stop early."""
    by_priority = query.order_by(t.Conflict.priority.desc(), t.Conflict.id)
    if order in ("oldest", "newest"):
        query = query.order_by(t.Conflict.id if order == "oldest" else t.Conflict.id.desc())
        return [row.id for row in session.execute(query.limit(size))]
    if order == "risk":
        ids: list[int] = []
        for risk in ("high", "medium", "low"):
            if len(ids) < size:
                ids += [row.id for row in session.execute(by_priority.where(t.Sample.risk == risk).limit(size))]
        return ids
    if order == "disagreement":
        lent, own = t.Conflict.order_gap, t.Conflict.gap
        gaps = [
            (row.id, row[2]) for row in session.execute(query.add_columns(lent).where(lent.is_not(None)).order_by(lent.desc()).limit(size))
        ]
        rows = session.execute(query.add_columns(own).where(lent.is_(None)).order_by(own.desc().nulls_last()).limit(size))
        gaps += [(row.id, row[2] or 0.0) for row in rows]
        return [case for case, _ in sorted(gaps, key=lambda pair: (-pair[1], pair[0]))][:size]
    found = session.execute(by_priority.limit(WINDOW)).all()
    return [row.id for row in sorted(found, key=lambda row: -(row.priority + JITTER * _hash01(user_id, row.id)))]


def counts(session: Session, user_id: int, language: str | None = None, wish: Wish | None = None) -> dict[str, int]:
    """How many cases each filter holds."""
    wish = wish or Wish(language=language)
    found = {"open": _num_free(session, user_id, wish), "mine": _count(session, _is_mine(user_id), wish)}
    by_status = wished(session, select(t.Conflict.status, func.count()), wish).group_by(t.Conflict.status)
    totals: dict[str, int] = {name: number for name, number in session.execute(by_status)}  # noqa: C416 - rows are not pairs to the type checker
    return found | {"deferred": totals.get("deferred", 0), "adjudicated": totals.get("adjudicated", 0)}


def _num_free(session: Session, user_id: int, wish: Wish) -> int:
    """How many cases are open, in this person's hand, or held by a lease that ran out; with a seat for them, and not done by them.

    A backlog is counted from the index of states. Only the few cases with a seat, a verdict of this person's, or an arbiter are
    looked at one by one: they come off that count, and those of them that this person may take come back.
    """
    arbitrated = select(t.Conflict.id).where(t.Conflict.arbitration_at.is_not(None))
    special = t.Conflict.id.in_(select(t.Assignment.conflict_id).union(_done(user_id), arbitrated))
    status = func.coalesce(t.Conflict.status, "")
    is_idle = or_(status == ConflictStatus.OPEN, and_(status == ConflictStatus.CLAIMED, _is_past()))
    in_hand = and_(status == ConflictStatus.CLAIMED, t.Conflict.claimed_by == user_id)
    may_be_taken = or_(in_hand, and_(_not_done(user_id), seat_for(user_id)))
    idle = _count(session, t.Conflict.status == ConflictStatus.OPEN, wish) + _count(session, _is_expired(), wish)
    held = _count(session, and_(_in_hand(user_id), ~_is_past()), wish)
    return idle + held - _count(session, and_(special, is_idle), wish) + _count(session, and_(special, is_idle, may_be_taken), wish)


def _count(session: Session, condition: ColumnElement[bool], wish: Wish) -> int:
    return session.scalar(wished(session, select(func.count(t.Conflict.id)).where(condition), wish)) or 0


def topics(session: Session) -> list[str]:
    """Topics that cases can be filtered by."""
    with_cases = select(t.Conflict.sample_id)
    return list(session.scalars(select(t.Sample.category).where(t.Sample.id.in_(with_cases)).distinct().order_by(t.Sample.category)))


def _listed_ids(session: Session, user_id: int, status: Filter, wish: Wish, size: int) -> list[int]:
    condition = _is_mine(user_id) if status == "mine" else t.Conflict.status == status
    last = select(func.max(t.Adjudication.id)).where(t.Adjudication.conflict_id == t.Conflict.id).scalar_subquery()
    query = wished(session, select(t.Conflict.id).where(condition), wish)
    return list(session.scalars(query.order_by(func.coalesce(last, 0).desc(), t.Conflict.id.desc()).limit(size)))


def wished(session: Session, query: Select[*Ts], wish: Wish, *, is_joined: bool = False) -> Select[*Ts]:
    """Narrow a query over conflicts. `is_joined`: the order needs the samples too."""
    conditions = [
        column == value
        for column, value in ((t.Sample.language, wish.language), (t.Sample.category, wish.topic), (t.Sample.risk, wish.risk))
        if value
    ]
    found = matching(session, wish.text) if wish.text.strip() else None
    if found is not None:
        conditions.append(found)
    if not conditions and not is_joined:
        return query
    return query.join(t.Sample, t.Sample.id == t.Conflict.sample_id).where(*conditions)


def _in_hand(user_id: int) -> ColumnElement[bool]:
    return and_(t.Conflict.status == ConflictStatus.CLAIMED, t.Conflict.claimed_by == user_id)


def _unheld(user_id: int, *, is_by_id: bool = False) -> ColumnElement[bool]:
    """In nobody's hand, and not signed or skipped by this person. `is_by_id`: the query looks at a few cases by their numbers."""
    # an expression is no reason to read the index of states, which holds the whole backlog
    status = func.coalesce(t.Conflict.status, "") if is_by_id else t.Conflict.status
    return and_(or_(status == ConflictStatus.OPEN, and_(status == ConflictStatus.CLAIMED, _is_past())), _not_done(user_id))


def _is_expired() -> ColumnElement[bool]:
    return and_(t.Conflict.status == ConflictStatus.CLAIMED, _is_past())


def _is_past() -> ColumnElement[bool]:
    return t.Conflict.lease_expires_at < utc_now()


def _not_done(user_id: int) -> ColumnElement[bool]:
    return t.Conflict.id.not_in(_done(user_id))


def _done(user_id: int) -> Select[int]:
    """Cases that this person has signed or skipped."""
    return select(t.Adjudication.conflict_id).where(
        t.Adjudication.user_id == user_id,
        t.Adjudication.stage.in_(("signed", "skipped")),
        # who asked for missing facts is to judge once they are there
        func.coalesce(t.Adjudication.cannot_judge_reason, "") != "missing_context",
    )


def _is_mine(user_id: int) -> ColumnElement[bool]:
    """In my hand, drafted or decided on by me."""
    return or_(
        and_(t.Conflict.status == ConflictStatus.CLAIMED, t.Conflict.claimed_by == user_id),
        t.Conflict.id.in_(select(t.Draft.conflict_id).where(t.Draft.user_id == user_id)),
        t.Conflict.id.in_(select(t.Adjudication.conflict_id).where(t.Adjudication.user_id == user_id)),
    )


def _hash01(user_id: int, conflict_id: int) -> float:
    digest = hashlib.sha256(f"{user_id}:{conflict_id}".encode()).digest()
    return int.from_bytes(digest[:4]) / 2**32
