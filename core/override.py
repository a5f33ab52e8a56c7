"""Promoting over a closed gate: two people, two signatures, both recorded with the gates as they stood.

Product or administrator asks, with a reason; nothing serves yet. Within a day a second person, administrator or clinician,
countersigns; nobody can countersign their own request. The second signature counts for what the first person saw: if the
version in service, the weights or the evaluation changed, or another gate has closed meanwhile, it must be asked anew. Weights
that are not intact can never be overridden. Called by the Models page.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from core import audit
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.harm_gate import Gates, gates_of
from core.models import check_role, get_version, require_role, serving_version
from core.permit import permit
from core.promotion import MIN_REASON, PROMOTERS, Signature, checked_person, switch_and_smoke, weights_of
from core.records import Role
from core.signing import Proof, prove, signature
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

COUNTERSIGNERS = (Role.ADMIN, Role.CLINICIAN)
VALID_FOR = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class RequestShown:
    """An override that was asked for. `gates` is `Gates.as_record` as the first person saw it; `status` is open, promoted,
    declined or expired."""

    id: int
    version: str
    serving: str | None
    requested_by: int
    requested_name: str
    reason: str
    gates: dict[str, Any]
    status: str
    second_name: str
    second_reason: str
    created_at: datetime
    expires_at: datetime


def request_override(
    user_id: int, candidate: str, *, reason: str, signed_name: str, expected_serving: str | None, proof: Proof | None = None
) -> int:
    """The first signature; returns the request's id. Nothing is promoted by it.

    Raises Forbidden, UserError("models.reason_missing" / "models.sign_with_name" / "models.nothing_to_override" /
    "models.never_overridden"), Conflicting("models.serving_changed" / "models.already_serving" / "models.override_open"); and as
    `core.signing.prove`.
    """
    check_role(user_id, *PROMOTERS)
    prove(user_id, proof)
    weights = weights_of(candidate)
    try:
        with write_session() as session:
            user = checked_person(session, Signature(user_id, reason, signed_name), *PROMOTERS)
            version, serving = get_version(session, candidate), serving_version(session)
            if (serving.name if serving else None) != expected_serving:
                raise Conflicting("models.serving_changed", name=serving.name if serving else "–")
            if serving is not None and serving.id == version.id:
                raise Conflicting("models.already_serving", name=candidate)
            gates = gates_of(session, version, weights)
            if gates.are_open:
                raise UserError("models.nothing_to_override", name=candidate)
            if not gates.can_be_overridden:
                raise UserError("models.never_overridden", name=candidate)
            _expire(session)
            row = t.PromotionRequest(
                version_id=version.id,
                requested_by=user.id,
                reason=reason.strip(),
                signed_name=user.display_name,
                gates=gates.as_record(),
                expires_at=utc_now() + VALID_FOR,
                serving_version_id=serving.id if serving else None,
                content_hash=version.content_hash,
            )
            session.add(row)
            session.flush()
            detail = {"request": row.id, "version": candidate, "signatures": [signature(user, "override")], **gates.as_record()}
            audit.record(session, "request_override", "model_version", version.id, actor_id=user.id, detail=detail, reason=row.reason)
            return row.id
    except IntegrityError as error:
        raise Conflicting("models.override_open", name=candidate) from error


def countersign(user_id: int, request_id: int, *, reason: str, signed_name: str, proof: Proof | None = None) -> int:
    """The second signature: promotes, and lets the version answer the smoke set; returns the id of the serving event.

    Raises Forbidden("models.own_request") for the person who asked, Forbidden for other roles, NotFound("models.no_such_request"),
    Conflicting("models.request_closed" / "models.request_expired" / "models.request_outdated"), and as `core.promotion.promote`.
    """
    with read_session() as session:
        require_role(session.get(t.User, user_id), *COUNTERSIGNERS)
        row = _open(session, request_id, user_id)
        candidate = session.get_one(t.ModelVersion, row.version_id).name
        serving = session.get(t.ModelVersion, row.serving_version_id) if row.serving_version_id else None
        first = Signature(row.requested_by, row.reason, row.signed_name)
    prove(user_id, proof)
    weights = weights_of(candidate)
    second = Signature(user_id, reason, signed_name)
    seen: list[Gates] = []

    def check(session: Session, version: t.ModelVersion, _serving: t.ModelVersion | None) -> dict[str, Any]:
        asked = _open(session, request_id, user_id)
        gates = gates_of(session, version, weights)
        if not gates.are_open and not gates.can_be_overridden:
            raise UserError("models.never_overridden", name=version.name)
        known = {gate["name"] for gate in asked.gates["gates"] if not gate["is_passed"]}
        if set(gates.closed) - known or version.content_hash != asked.content_hash or gates.evaluation_id != asked.gates["evaluation_id"]:
            raise Conflicting("models.request_outdated", name=version.name)
        seen[:] = [gates]
        override = {
            "request": asked.id,
            "gates_at_request": asked.gates,
            "first": {"user": asked.requested_by, "name": asked.signed_name, "reason": asked.reason, "at": asked.created_at.isoformat()},
            "second": {"user": user_id, "name": session.get_one(t.User, user_id).display_name, "reason": reason.strip()},
        }
        return {**gates.as_record(), "override": override}

    def close(session: Session, event_id: int) -> None:
        asked = _open(session, request_id, user_id)
        user = session.get_one(t.User, user_id)
        asked.status, asked.second_by, asked.second_reason, asked.second_signed_name = (
            "promoted",
            user.id,
            reason.strip(),
            user.display_name,
        )
        asked.second_gates, asked.event_id, asked.decided_at = seen[0].as_record(), event_id, utc_now()
        detail = {"request": asked.id, "event": event_id, **seen[0].as_record()}
        audit.record(
            session, "countersign_override", "model_version", asked.version_id, actor_id=user.id, detail=detail, reason=reason.strip()
        )

    return switch_and_smoke(first, candidate, serving.name if serving else None, check, second=second, then=close)


def decline(user_id: int, request_id: int, *, reason: str) -> None:
    """Close a request without promoting: the person who asked withdraws it, or one who could countersign says no.

    Raises Forbidden, UserError("models.reason_missing"), NotFound and Conflicting as `countersign`.
    """
    permit("override.decline", user_id)
    if len(reason.strip()) < MIN_REASON:
        raise UserError("models.reason_missing")
    with write_session() as session:
        row = _open(session, request_id, None)
        roles = (*COUNTERSIGNERS, *(PROMOTERS if row.requested_by == user_id else ()))
        user = require_role(session.get(t.User, user_id), *roles)
        row.status, row.second_reason, row.decided_at = "declined", reason.strip(), utc_now()
        row.second_by, row.second_signed_name = (None, "") if row.requested_by == user.id else (user.id, user.display_name)
        detail = {"request": row.id}
        audit.record(session, "decline_override", "model_version", row.version_id, actor_id=user.id, detail=detail, reason=reason.strip())


def requests(version: str | None = None, *, limit: int = 50) -> list[RequestShown]:
    """Requests about one version, or all of them, newest first; one that ran out is shown as expired."""
    candidate, serving, first, second = aliased(t.ModelVersion), aliased(t.ModelVersion), aliased(t.User), aliased(t.User)
    query = (
        select(t.PromotionRequest, candidate.name, serving.name, first.display_name, second.display_name)
        .join(candidate, candidate.id == t.PromotionRequest.version_id)
        .outerjoin(serving, serving.id == t.PromotionRequest.serving_version_id)
        .join(first, first.id == t.PromotionRequest.requested_by)
        .outerjoin(second, second.id == t.PromotionRequest.second_by)
        .order_by(t.PromotionRequest.id.desc())
        .limit(limit)
    )
    if version is not None:
        query = query.where(candidate.name == version)
    now = utc_now()
    with read_session() as session:
        return [
            RequestShown(
                r.id, name, before, r.requested_by, asked, r.reason, r.gates,
                "expired" if r.status == "open" and r.expires_at <= now else r.status,
                other or "", r.second_reason, r.created_at, r.expires_at,
            )
            for r, name, before, asked, other in session.execute(query)
        ]  # fmt: skip


def waiting(user_id: int) -> list[RequestShown]:
    """Open requests that this person could countersign now; empty for other roles."""
    with read_session() as session:
        user = session.get(t.User, user_id)
        if user is None or not user.is_active or user.role not in COUNTERSIGNERS:
            return []
    return [r for r in requests() if r.status == "open" and r.requested_by != user_id]


def _open(session: Session, request_id: int, countersigner: int | None) -> t.PromotionRequest:
    row = session.get(t.PromotionRequest, request_id)
    if row is None:
        raise NotFound("models.no_such_request", id=request_id)
    if countersigner is not None and row.requested_by == countersigner:
        raise Forbidden("models.own_request")
    if row.status != "open":
        raise Conflicting("models.request_closed", id=request_id)
    if row.expires_at <= utc_now():
        raise Conflicting("models.request_expired", id=request_id)
    return row


def _expire(session: Session) -> None:
    """Requests that ran out make room for a new one."""
    for row in session.scalars(select(t.PromotionRequest).where(t.PromotionRequest.status == "open")):
        if row.expires_at <= utc_now():
            row.status, row.decided_at = "expired", row.expires_at
    session.flush()
