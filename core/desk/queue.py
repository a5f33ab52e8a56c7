"""The list of cases as one reviewer sees it: no reason, no score, no priority.

The order must not give the reason away either: cases come by priority with a jitter that differs per person, so that random
controls stand among conflicts and two reviewers do not reach for the same case. Called by `core.desk.mailbox` and `lease`.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, TypeVarTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from core.records import ConflictStatus
from db import tables as t
from db.base import utc_now

Filter = Literal["open", "mine", "deferred", "adjudicated"]
Order = Literal["mixed", "oldest", "newest"]
FILTERS: tuple[Filter, ...] = ("open", "mine", "deferred", "adjudicated")
ORDERS: tuple[Order, ...] = ("mixed", "oldest", "newest")
Ts = TypeVarTuple("Ts")

#: Cases shown in the list, and cases among which the jitter may reorder.
PAGE = 40
WINDOW = 200
JITTER = 0.3
EXCERPT = 90


def queue(
    session: Session, user_id: int, *, status: Filter = "open", language: str | None = None, order: Order = "mixed"
) -> list[dict[str, Any]]:
    """At most `PAGE` rows {id, language, excerpt, status, is_mine, holder, stage, has_draft}. `stage` is this person's own."""
    ids = (
        next_ids(session, user_id, language=language, order=order) if status == "open" else _listed_ids(session, user_id, status, language)
    )
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


def next_ids(session: Session, user_id: int, *, language: str | None = None, order: Order = "mixed") -> list[int]:
    """Ids of cases that this person may take now, in this person's order: in hand first, then free ones."""
    query = select(t.Conflict.id, t.Conflict.priority, t.Conflict.claimed_by).where(_is_free(user_id))
    query = _in_language(query, language)
    if order == "mixed":
        query = query.order_by(t.Conflict.priority.desc(), t.Conflict.id).limit(WINDOW)
    else:
        query = query.order_by(t.Conflict.id if order == "oldest" else t.Conflict.id.desc()).limit(PAGE)
    rows = session.execute(query).all()
    if order == "mixed":
        rows = sorted(rows, key=lambda row: -(row.priority + JITTER * _hash01(user_id, row.id)))
    return [row.id for row in sorted(rows, key=lambda row: row.claimed_by != user_id)][:PAGE]


def counts(session: Session, user_id: int, language: str | None = None) -> dict[str, int]:
    """How many cases each filter holds."""
    found = {}
    for name, condition in {"open": _is_free(user_id), "mine": _is_mine(user_id)}.items():
        found[name] = session.scalar(_in_language(select(func.count(t.Conflict.id)).where(condition), language)) or 0
    by_status = _in_language(select(t.Conflict.status, func.count()), language).group_by(t.Conflict.status)
    totals: dict[str, int] = {name: number for name, number in session.execute(by_status)}  # noqa: C416 - rows are not pairs to the type checker
    return found | {"deferred": totals.get("deferred", 0), "adjudicated": totals.get("adjudicated", 0)}


def _listed_ids(session: Session, user_id: int, status: Filter, language: str | None) -> list[int]:
    condition = _is_mine(user_id) if status == "mine" else t.Conflict.status == status
    last = select(func.max(t.Adjudication.id)).where(t.Adjudication.conflict_id == t.Conflict.id).scalar_subquery()
    query = _in_language(select(t.Conflict.id).where(condition), language)
    return list(session.scalars(query.order_by(func.coalesce(last, 0).desc(), t.Conflict.id.desc()).limit(PAGE)))


def _in_language(query: Select[*Ts], language: str | None) -> Select[*Ts]:
    return query.join(t.Sample, t.Sample.id == t.Conflict.sample_id).where(t.Sample.language == language) if language else query


def _is_free(user_id: int) -> ColumnElement[bool]:
    """Open, in my hand, or held by a lease that ran out; and not already signed or skipped by me."""
    mine = and_(t.Conflict.status == ConflictStatus.CLAIMED, t.Conflict.claimed_by == user_id)
    expired = and_(t.Conflict.status == ConflictStatus.CLAIMED, t.Conflict.lease_expires_at < utc_now())
    done = select(t.Adjudication.conflict_id).where(t.Adjudication.user_id == user_id, t.Adjudication.stage.in_(("signed", "skipped")))
    return or_(mine, and_(or_(t.Conflict.status == ConflictStatus.OPEN, expired), t.Conflict.id.not_in(done)))


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
