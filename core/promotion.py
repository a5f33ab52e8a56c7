"""Which version answers people: promotion and roll-back. One short transaction, one reason, one signature, one record.

Preference never promotes by itself: the gates (core.harm_gate) are about harm and about knowing what is promoted. They are shown
before the person signs, computed again inside the transaction, and stored with the event as they were. A closed gate can be
overridden by two people only (core.override). After the switch the new version answers the smoke set (core.smoke); when it fails, the
version before it serves again at once, recorded as a roll-back without an actor. The first version has nothing to return to, so
it is asked before it serves; and while the local model server is down nothing local is promoted. A roll-back goes back to a
version that has served before; only its weights must be intact, because going back is the safe direction. Called by the Models
page and the watch.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from core import audit, safety
from core.errors import Conflicting, Unavailable, UserError
from core.harm_gate import SOUND, Gate, Gates, gates_of
from core.home import current_home
from core.models import Weights, check_role, check_weights, get_version, require_role, serving_version
from core.records import Role, VersionStatus
from core.signing import Proof, prove, signature
from core.smoke import Smoke, check_server, run_smoke
from db import tables as t
from db.engine import read_session, write_session

__all__ = ["Gate", "Gates", "gates_for", "history", "previous_serving", "promote", "roll_back"]

PROMOTERS = (Role.PRODUCT, Role.ADMIN)
#: how many earlier serving versions are one press away
NUM_PREVIOUS = 3
MIN_REASON = 5

#: (session, version, serving) -> what is stored with the event; raises when the switch is refused
Check = Callable[[Session, t.ModelVersion, t.ModelVersion | None], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class EventShown:
    """One line of the serving history. `signed_name` is "" for a return without a person; `second_name` "" without a second one."""

    id: int
    action: str
    to_version: str
    from_version: str | None
    signed_name: str
    second_name: str
    reason: str
    checks: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Signature:
    """Who signs for a switch: an account, a reason in words, and the name typed by hand."""

    user_id: int
    reason: str
    signed_name: str


def gates_for(user_id: int, candidate: str, *, is_thorough: bool = True) -> Gates:
    """The gates as they stand now. Reads the weights from disk, a second per gigabyte; not `is_thorough`, only if a file changed."""
    weights = weights_of(candidate, is_thorough=is_thorough)
    with read_session() as session:
        require_role(session.get(t.User, user_id), Role.PRODUCT, Role.ENGINEER, Role.CLINICIAN, Role.ADMIN)
        return gates_of(session, get_version(session, candidate), weights)


def promote(
    user_id: int, candidate: str, *, reason: str, signed_name: str, expected_serving: str | None, proof: Proof | None = None
) -> int:
    """Make `candidate` the serving version; returns the id of the event.

    `expected_serving` is what the person saw in service: if it changed meanwhile nothing happens.
    Raises Forbidden, UserError("models.reason_missing" / "models.sign_with_name" / "models.gates_closed"),
    Conflicting("models.serving_changed" / "models.already_serving"), NotFound("models.no_such_version"),
    Unavailable("models.server_down" / "models.smoke_failed" / "models.smoke_refused"); after smoke_failed the version before serves;
    and as `core.signing.prove`.
    """
    check_role(user_id, *PROMOTERS)
    prove(user_id, proof)
    weights = weights_of(candidate)

    def check(session: Session, version: t.ModelVersion, _serving: t.ModelVersion | None) -> dict[str, Any]:
        gates = gates_of(session, version, weights)
        if not gates.are_open:
            raise UserError("models.gates_closed", name=candidate, num=len(gates.closed))
        return gates.as_record()

    return switch_and_smoke(Signature(user_id, reason, signed_name), candidate, expected_serving, check)


def roll_back(user_id: int, target: str, *, reason: str, signed_name: str, expected_serving: str | None, proof: Proof | None = None) -> int:
    """Return to a version that has served before; returns the id of the event.

    Raises as `promote` but for the gates and the smoke set, and UserError("models.never_served" / "models.weights_not_intact").
    """
    check_role(user_id, *PROMOTERS)
    prove(user_id, proof)
    weights = weights_of(target)

    def check(session: Session, version: t.ModelVersion, serving: t.ModelVersion | None) -> dict[str, Any]:
        if session.scalar(select(t.ServingEvent.id).where(t.ServingEvent.to_version_id == version.id).limit(1)) is None:
            raise UserError("models.never_served", name=target)
        if weights not in SOUND:
            raise UserError("models.weights_not_intact", name=target)
        cases = safety.count_open(session, version.id)
        return {"serving": serving.name if serving else None, "weights": weights.value, "open_safety_cases": cases}

    with _one_wins(), write_session() as session:
        return _switch(session, "roll_back", Signature(user_id, reason, signed_name), target, expected_serving, check)


def previous_serving(session: Session) -> list[t.ModelVersion]:
    """The versions that served before the one in service, newest first, each once: any of them is one press away."""
    found: list[t.ModelVersion] = []
    for version_id in session.scalars(select(t.ServingEvent.to_version_id).order_by(t.ServingEvent.id.desc())):
        row = session.get_one(t.ModelVersion, version_id)
        if row.status != VersionStatus.SERVING and row not in found:
            found.append(row)
    return found


def history(session: Session, *, limit: int = 100) -> list[EventShown]:
    """Promotions and roll-backs, newest first."""
    to_version, from_version, second = aliased(t.ModelVersion), aliased(t.ModelVersion), aliased(t.User)
    query = (
        select(t.ServingEvent, to_version.name, from_version.name, second.display_name)
        .join(to_version, to_version.id == t.ServingEvent.to_version_id)
        .outerjoin(from_version, from_version.id == t.ServingEvent.from_version_id)
        .outerjoin(second, second.id == t.ServingEvent.second_actor_id)
        .order_by(t.ServingEvent.id.desc())
        .limit(limit)
    )
    return [
        EventShown(e.id, e.action, to, old, e.signed_name, name or "", e.reason, e.checks, e.created_at)
        for e, to, old, name in session.execute(query)
    ]


def weights_of(name: str, *, is_thorough: bool = True) -> Weights:
    """What the disk says about a version, by default everything read again; outside any write transaction."""
    with read_session() as session:
        version = get_version(session, name)
    return check_weights(current_home(), version, is_thorough=is_thorough)


def checked_person(session: Session, signature: Signature, *roles: Role) -> t.User:
    """The signer as stored now. Raises Forbidden, UserError("models.reason_missing" / "models.sign_with_name")."""
    if len(signature.reason.strip()) < MIN_REASON:
        raise UserError("models.reason_missing")
    user = require_role(session.get(t.User, signature.user_id), *roles)
    if _plain(signature.signed_name) != _plain(user.display_name):
        raise UserError("models.sign_with_name", name=user.display_name)
    return user


def switch_and_smoke(
    first: Signature,
    candidate: str,
    expected_serving: str | None,
    check: Check,
    *,
    second: Signature | None = None,
    then: Callable[[Session, int], None] | None = None,
) -> int:
    """Promote, then let the version answer the smoke set; returns the event's id. `then` runs in the transaction of the switch.

    Everything is checked before the server is asked for anything, and again in the transaction. Raises as `promote`.
    """
    with read_session() as session:
        _checked(session, first, candidate, expected_serving, check, second)
    check_server(candidate)
    before = run_smoke(candidate) if expected_serving is None else None
    if before is not None and not before.has_passed:
        raise Unavailable("models.smoke_refused", name=candidate, num=before.num_failed, total=len(before.answers))
    with _one_wins(), write_session() as session:
        event_id = _switch(session, "promote", first, candidate, expected_serving, check, second=second)
        if then is not None:
            then(session, event_id)
        if before is not None:
            audit.record(session, "smoke_test", "serving_event", event_id, actor_id=None, detail=before.as_record())
    if before is None:
        _keep_or_return(event_id, candidate, expected_serving or "", run_smoke(candidate))
    return event_id


def _keep_or_return(event_id: int, candidate: str, previous: str, smoke: Smoke) -> None:
    """Record the smoke set; when it failed, let `previous` serve again. Somebody who switched meanwhile is not overruled."""
    with write_session() as session:
        audit.record(session, "smoke_test", "serving_event", event_id, actor_id=None, detail=smoke.as_record())
        serving = serving_version(session)
        if smoke.has_passed or serving is None or serving.name != candidate:
            return
        reason = f"smoke set: {smoke.num_failed} of {len(smoke.answers)} questions failed"
        checks = {"serving": candidate, "is_automatic": True, "promotion": event_id, "smoke": smoke.as_record()}
        _put_in_service(session, "roll_back", get_version(session, previous), serving, None, None, reason, "", checks)
    raise Unavailable("models.smoke_failed", name=candidate, num=smoke.num_failed, total=len(smoke.answers), previous=previous)


def _checked(
    session: Session, first: Signature, name: str, expected_serving: str | None, check: Check, second: Signature | None
) -> tuple[t.User, t.User | None, t.ModelVersion, t.ModelVersion | None, dict[str, Any]]:
    """Who, what and whether: raises when the switch is refused, changes nothing."""
    user = checked_person(session, first, *PROMOTERS)
    countersigner = checked_person(session, second, Role.ADMIN, Role.CLINICIAN) if second is not None else None
    version, serving = get_version(session, name), serving_version(session)
    if (serving.name if serving else None) != expected_serving:
        raise Conflicting("models.serving_changed", name=serving.name if serving else "–")
    if serving is not None and serving.id == version.id:
        raise Conflicting("models.already_serving", name=name)
    if version.task != "answer":
        raise UserError("models.not_for_answers", name=name)
    return user, countersigner, version, serving, check(session, version, serving)


def _switch(
    session: Session,
    action: str,
    first: Signature,
    name: str,
    expected_serving: str | None,
    check: Check,
    *,
    second: Signature | None = None,
) -> int:
    user, countersigner, version, serving, checks = _checked(session, first, name, expected_serving, check, second)
    return _put_in_service(session, action, version, serving, user, countersigner, first.reason.strip(), user.display_name, checks)


def _put_in_service(
    session: Session,
    action: str,
    version: t.ModelVersion,
    serving: t.ModelVersion | None,
    user: t.User | None,
    second: t.User | None,
    reason: str,
    signed_name: str,
    checks: dict[str, Any],
) -> int:
    if serving is not None:
        serving.status = VersionStatus.RETIRED
        session.flush()  # the unique index allows one serving row at any moment, so the old one leaves first
    version.status = VersionStatus.SERVING
    event = t.ServingEvent(
        action=action,
        to_version_id=version.id,
        from_version_id=serving.id if serving else None,
        actor_id=user.id if user else None,
        second_actor_id=second.id if second else None,
        reason=reason,
        checks={**checks, "to_hash": version.content_hash, "from_hash": serving.content_hash if serving else None},
        signed_name=signed_name,
    )
    session.add(event)
    session.flush()
    detail = {"to": version.name, "from": serving.name if serving else None, "event": event.id, **event.checks}
    detail["signatures"] = [signature(one, "override" if second else action) for one in (user, second) if one is not None]
    audit.record(session, action, "model_version", version.id, actor_id=user.id if user else None, detail=detail, reason=reason)
    return event.id


@contextmanager
def _one_wins() -> Iterator[None]:
    """PostgreSQL: two people at the same moment; the index lets one pass."""
    try:
        yield
    except IntegrityError as error:
        raise Conflicting("models.serving_changed", name="?") from error


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()
