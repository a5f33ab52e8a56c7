"""Which version answers people: gates, promotion and roll-back. One short transaction, one reason, one signature, one record.

Preference never promotes by itself: the gates are about harm and about knowing what is promoted. They are shown before the
person signs, computed again inside the transaction, and stored with the event as they were. A roll-back goes back to a version
that has served before; only its weights must be intact, because going back is the safe direction. Called by the Models page.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from core import audit, safety
from core.errors import Conflicting, UserError
from core.evaluation import Comparison, report_of
from core.home import current_home
from core.models import Weights, check_weights, get_version, require_role, serving_version
from core.records import Role, VersionStatus
from db import tables as t
from db.engine import read_session, write_session

PROMOTERS = (Role.PRODUCT, Role.ADMIN)
MIN_REASON = 5

#: (session, version, serving) -> what is stored with the event; raises when the switch is refused
Check = Callable[[Session, t.ModelVersion, t.ModelVersion | None], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Gate:
    """One condition of a promotion: `name` and `finding` name its sentences (`models.gate_<name>`, `models.<finding>`)."""

    name: str
    is_passed: bool
    finding: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Gates:
    """What a person sees before signing. `serving` is the version in service that the findings are about, None for the first."""

    candidate: str
    serving: str | None
    gates: tuple[Gate, ...]
    evaluation_id: int | None

    @property
    def are_open(self) -> bool:
        return all(gate.is_passed for gate in self.gates)

    def as_record(self) -> dict[str, Any]:
        """As stored with the serving event."""
        return {"serving": self.serving, "evaluation_id": self.evaluation_id, "gates": [asdict(g) for g in self.gates]}


@dataclass(frozen=True, slots=True)
class EventShown:
    """One line of the serving history."""

    id: int
    action: str
    to_version: str
    from_version: str | None
    signed_name: str
    reason: str
    checks: dict[str, Any]
    created_at: datetime


def gates_for(user_id: int, candidate: str) -> Gates:
    """The gates as they stand now. Reads the weights from disk, so it may take a second per gigabyte."""
    weights = _weights(candidate)
    with read_session() as session:
        require_role(session.get(t.User, user_id), Role.PRODUCT, Role.ENGINEER, Role.ADMIN)
        return _gates(session, get_version(session, candidate), weights)


def promote(user_id: int, candidate: str, *, reason: str, signed_name: str, expected_serving: str | None) -> int:
    """Make `candidate` the serving version; returns the id of the event.

    `expected_serving` is what the person saw in service: if it changed meanwhile nothing happens.
    Raises Forbidden, UserError("models.reason_missing" / "models.sign_with_name" / "models.gates_closed"),
    Conflicting("models.serving_changed" / "models.already_serving"), NotFound("models.no_such_version").
    """
    weights = _weights(candidate)

    def check(session: Session, version: t.ModelVersion, _serving: t.ModelVersion | None) -> dict[str, Any]:
        gates = _gates(session, version, weights)
        if not gates.are_open:
            raise UserError("models.gates_closed", name=candidate, num=sum(not g.is_passed for g in gates.gates))
        return gates.as_record()

    return _switch(user_id, "promote", candidate, reason, signed_name, expected_serving, check)


def roll_back(user_id: int, target: str, *, reason: str, signed_name: str, expected_serving: str | None) -> int:
    """Return to a version that has served before; returns the id of the event.

    Raises as `promote`, and UserError("models.never_served" / "models.weights_not_intact").
    """
    weights = _weights(target)

    def check(session: Session, version: t.ModelVersion, serving: t.ModelVersion | None) -> dict[str, Any]:
        if session.scalar(select(t.ServingEvent.id).where(t.ServingEvent.to_version_id == version.id).limit(1)) is None:
            raise UserError("models.never_served", name=target)
        if weights not in (Weights.INTACT, Weights.REMOTE):
            raise UserError("models.weights_not_intact", name=target)
        cases = safety.count_open(session, version.id)
        return {"serving": serving.name if serving else None, "weights": weights.value, "open_safety_cases": cases}

    return _switch(user_id, "roll_back", target, reason, signed_name, expected_serving, check)


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
    to_version, from_version = aliased(t.ModelVersion), aliased(t.ModelVersion)
    query = (
        select(t.ServingEvent, to_version.name, from_version.name)
        .join(to_version, to_version.id == t.ServingEvent.to_version_id)
        .outerjoin(from_version, from_version.id == t.ServingEvent.from_version_id)
        .order_by(t.ServingEvent.id.desc())
        .limit(limit)
    )
    return [EventShown(e.id, e.action, to, old, e.signed_name, e.reason, e.checks, e.created_at) for e, to, old in session.execute(query)]


def _weights(name: str) -> Weights:
    """Read everything from disk, outside any write transaction."""
    with read_session() as session:
        version = get_version(session, name)
    return check_weights(current_home(), version, is_thorough=True)


def _switch(user_id: int, action: str, name: str, reason: str, signed_name: str, expected_serving: str | None, check: Check) -> int:
    reason = reason.strip()
    if len(reason) < MIN_REASON:
        raise UserError("models.reason_missing")
    try:
        with write_session() as session:
            user = require_role(session.get(t.User, user_id), *PROMOTERS)
            if _plain(signed_name) != _plain(user.display_name):
                raise UserError("models.sign_with_name", name=user.display_name)
            version, serving = get_version(session, name), serving_version(session)
            if (serving.name if serving else None) != expected_serving:
                raise Conflicting("models.serving_changed", name=serving.name if serving else "–")
            if serving is not None and serving.id == version.id:
                raise Conflicting("models.already_serving", name=name)
            checks = check(session, version, serving)
            if serving is not None:
                serving.status = VersionStatus.RETIRED
                session.flush()  # the unique index allows one serving row at any moment, so the old one leaves first
            version.status = VersionStatus.SERVING
            event = t.ServingEvent(
                action=action,
                to_version_id=version.id,
                from_version_id=serving.id if serving else None,
                actor_id=user.id,
                reason=reason,
                checks={**checks, "to_hash": version.content_hash, "from_hash": serving.content_hash if serving else None},
                signed_name=user.display_name,
            )
            session.add(event)
            session.flush()
            detail = {"to": version.name, "from": serving.name if serving else None, "event": event.id, **event.checks}
            audit.record(session, action, "model_version", version.id, actor_id=user.id, detail=detail, reason=reason)
            return event.id
    except IntegrityError as error:  # PostgreSQL: two people at the same moment; the index lets one pass
        raise Conflicting("models.serving_changed", name="?") from error


def _gates(session: Session, version: t.ModelVersion, weights: Weights) -> Gates:
    serving = serving_version(session)
    evaluation, comparison = _newest_evaluation(session, version, serving.name if serving and serving.id != version.id else None)
    measured = Gate(
        "evaluation",
        evaluation is not None,
        "found_evaluation" if evaluation else ("found_no_comparison" if serving else "found_no_evaluation"),
        {
            "id": evaluation.id if evaluation else None,
            "n": report_of(evaluation)["versions"][version.name]["n"] if evaluation else 0,
            "serving": serving.name if serving else None,
        },
    )
    regressions = comparison["emergency_regressions"] if comparison else []
    harmless = Gate(
        "regressions",
        evaluation is not None and not regressions,
        "found_regressions" if regressions else ("found_no_regressions" if comparison else "found_not_compared"),
        {"num": len(regressions), "samples": regressions[:50], "baseline": report_of(evaluation)["baseline"] if evaluation else None},
    )
    num_cases = safety.count_open(session, version.id)
    safe = Gate("safety", num_cases == 0, "found_open_cases" if num_cases else "found_no_open_cases", {"num": num_cases})
    known = Gate("weights", weights in (Weights.INTACT, Weights.REMOTE), f"found_weights_{weights.value}", {"hash": version.content_hash})
    return Gates(version.name, serving.name if serving else None, (measured, harmless, safe, known), evaluation.id if evaluation else None)


def _newest_evaluation(session: Session, version: t.ModelVersion, serving: str | None) -> tuple[t.Evaluation | None, Comparison | None]:
    """The newest report that measured `version` against the serving version; with none serving, the newest that measured it at all."""
    for row in session.scalars(select(t.Evaluation).order_by(t.Evaluation.id.desc()).limit(500)):
        report = report_of(row)
        measured = report["versions"].get(version.name)
        if measured is None or (serving is not None and report["baseline"] != serving):
            continue
        if measured.get("content_hash") and version.content_hash and measured["content_hash"] != version.content_hash:
            continue  # other weights under the same name, from an earlier attempt of the same job
        comparison = next((c for c in report["comparisons"] if c["candidate"] == version.name), None)
        if serving is None or comparison is not None:
            return row, comparison
    return None, None


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()
