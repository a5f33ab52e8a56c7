"""The watch over the serving version: is it worse than the one before? When it is, a roll-back is proposed; a person decides.

Every look (job kind watch) adds paired answers to the red-team prompts and counts the safety cases that came in. Two sequential
tests (core.sequential) share the stated error rate by halves, so however often the watch runs, the chance of a false proposal
about one promotion is at most that rate. Nothing here ever switches a version: `accept` is a person's press and goes through
`core.promotion.roll_back` like any other. Called by training.watch, Home and the Models page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from core import audit, promotion
from core.errors import Conflicting, NotFound, UserError
from core.models import require_role, serving_version
from core.permit import permit
from core.sequential import fisher_more_often, log_evidence, share_of_look
from core.signing import Proof
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

RED_TEAM, SAFETY_CASES = "red_team", "safety_cases"
OPEN, ACCEPTED, DISMISSED, OVERTAKEN = "open", "accepted", "dismissed", "overtaken"
MIN_REASON = 5


@dataclass(frozen=True, slots=True)
class Pair:
    """Both versions' answers to one prompt of one look. None: could not be judged, so the pair counts for nothing."""

    sample_id: int
    serving_failed: bool | None
    previous_failed: bool | None
    serving_completion_id: int | None = None
    previous_completion_id: int | None = None


@dataclass(frozen=True, slots=True)
class Switch:
    """The promotion under watch."""

    event_id: int
    serving: str
    previous: str


@dataclass(frozen=True, slots=True)
class LookShown:
    """One look as people read it. `evidence` is the e-value after it; a proposal comes at `threshold`."""

    number: int
    num_pairs: int
    num_worse: int
    num_better: int
    evidence: float
    incoming: dict[str, Any]
    created_at: datetime
    job_id: int | None


@dataclass(frozen=True, slots=True)
class ProposalShown:
    """A roll-back that waits for a person. `detail` fills the sentence `release.finding_<finding>`."""

    id: int
    serving: str
    target: str
    finding: str
    detail: dict[str, Any]
    created_at: datetime
    job_id: int | None


def current_switch(session: Session) -> Switch | None:
    """What there is to watch: the version in service and the one it replaced. None before a second version was promoted, and after
    a roll-back (going back needs no watch against what was left)."""
    serving = serving_version(session)
    event = session.scalar(select(t.ServingEvent).order_by(t.ServingEvent.id.desc()).limit(1))
    if serving is None or event is None or event.action != "promote" or event.to_version_id != serving.id or event.from_version_id is None:
        return None
    return Switch(event.id, serving.name, session.get_one(t.ModelVersion, event.from_version_id).name)


def record_look(switch: Switch, pairs: Sequence[Pair], *, error_rate: float, job_id: int | None) -> int | None:
    """Add a look to the switch's test and propose a roll-back when a threshold is reached; returns the proposal's id or None.

    A look of the same job counts once. Raises Conflicting("release.switch_changed") when another version serves meanwhile.
    """
    judged = [p for p in pairs if p.serving_failed is not None and p.previous_failed is not None]
    worse = [p for p in judged if p.serving_failed and not p.previous_failed]
    better = [p for p in judged if p.previous_failed and not p.serving_failed]
    with write_session() as session:
        if current_switch(session) != switch:
            raise Conflicting("release.switch_changed", name=switch.serving)
        last = _last_look(session, switch.event_id)
        if last is not None and job_id and last.job_id == job_id:
            return None
        look = t.WatchLook(
            serving_event_id=switch.event_id,
            number=last.number + 1 if last else 1,
            num_pairs=(last.num_pairs if last else 0) + len(judged),
            num_worse=(last.num_worse if last else 0) + len(worse),
            num_better=(last.num_better if last else 0) + len(better),
            incoming=_incoming(session, switch.event_id, last, error_rate / 2),
            evidence=[{"sample": p.sample_id, "serving": p.serving_completion_id, "previous": p.previous_completion_id} for p in worse],
            job_id=job_id or None,
        )
        look.log_evidence = log_evidence(look.num_worse, look.num_better)
        session.add(look)
        session.flush()
        return _propose(session, switch, look, error_rate)


def looks() -> tuple[Switch | None, list[LookShown]]:
    """The switch under watch and its looks, newest first."""
    with read_session() as session:
        switch = current_switch(session)
        if switch is None:
            return None, []
        rows = session.scalars(select(t.WatchLook).where(t.WatchLook.serving_event_id == switch.event_id).order_by(t.WatchLook.id.desc()))
        return switch, [
            LookShown(
                r.number, r.num_pairs, r.num_worse, r.num_better, math.exp(min(r.log_evidence, 700.0)), r.incoming, r.created_at, r.job_id
            )
            for r in rows
        ]


def open_proposal() -> ProposalShown | None:
    """The roll-back that waits for a decision, as long as the version it is about still serves."""
    with read_session() as session:
        row = session.scalar(select(t.RollbackProposal).where(t.RollbackProposal.status == OPEN))
        serving = serving_version(session)
        if row is None or serving is None or row.serving_version_id != serving.id:
            return None
        look = session.get_one(t.WatchLook, row.look_id)
        target = session.get_one(t.ModelVersion, row.target_version_id)
        return ProposalShown(row.id, serving.name, target.name, row.finding, row.detail, row.created_at, look.job_id)


def accept(user_id: int, proposal_id: int, *, reason: str, proof: Proof | None = None) -> int:
    """Roll back as proposed, in the name of this person; returns the id of the serving event.

    Raises NotFound("release.no_such_proposal"), Conflicting("release.proposal_decided") and as `core.promotion.roll_back`.
    """
    with read_session() as session:
        user = require_role(session.get(t.User, user_id), *promotion.PROMOTERS)
        row = _open(session, proposal_id)
        serving = session.get_one(t.ModelVersion, row.serving_version_id).name
        target = session.get_one(t.ModelVersion, row.target_version_id).name
    event_id = promotion.roll_back(user_id, target, reason=reason, signed_name=user.display_name, expected_serving=serving, proof=proof)
    with write_session() as session:
        _decide(session, proposal_id, ACCEPTED, user_id, reason, event_id)
    return event_id


def dismiss(user_id: int, proposal_id: int, *, reason: str) -> None:
    """Keep the serving version; the same evidence is not proposed again, more of it is.

    Raises Forbidden, UserError("models.reason_missing"), NotFound and Conflicting as `accept`.
    """
    permit("watch.dismiss", user_id)
    if len(reason.strip()) < MIN_REASON:
        raise UserError("models.reason_missing")
    with write_session() as session:
        require_role(session.get(t.User, user_id), *promotion.PROMOTERS)
        _open(session, proposal_id)
        _decide(session, proposal_id, DISMISSED, user_id, reason.strip(), None)


def _propose(session: Session, switch: Switch, look: t.WatchLook, error_rate: float) -> int | None:
    is_red = look.log_evidence >= math.log(2 / error_rate)
    is_incoming = look.incoming.get("p", 1.0) <= look.incoming.get("threshold", 0.0)
    if not (is_red or is_incoming):
        return None
    event = session.get_one(t.ServingEvent, switch.event_id)
    waiting = session.scalar(select(t.RollbackProposal).where(t.RollbackProposal.status == OPEN))
    if waiting is not None and waiting.serving_version_id == event.to_version_id:
        return None
    if waiting is not None:  # about a version that no longer serves
        waiting.status, waiting.decided_at = OVERTAKEN, utc_now()
        session.flush()
    finding = RED_TEAM if is_red else SAFETY_CASES
    if _was_dismissed(session, event, look, finding, error_rate):
        return None
    detail = {
        **{"worse": look.num_worse, "better": look.num_better, "pairs": look.num_pairs, "looks": look.number},
        **{"evidence": round(math.exp(min(look.log_evidence, 700.0)), 1), "threshold": 2 / error_rate, "error_rate": error_rate},
        **{"cases_serving": look.incoming["cases"][0], "answers_serving": look.incoming["answers"][0]},
        **{"cases_previous": look.incoming["cases"][1], "answers_previous": look.incoming["answers"][1]},
    }
    row = t.RollbackProposal(
        serving_version_id=event.to_version_id,
        target_version_id=event.from_version_id or 0,
        look_id=look.id,
        finding=finding,
        detail=detail,
    )
    session.add(row)
    session.flush()
    about = {"serving": switch.serving, "target": switch.previous, "finding": finding, **detail}
    audit.record(session, "propose_roll_back", "rollback_proposal", row.id, actor_id=None, detail=about)
    return row.id


def _was_dismissed(session: Session, event: t.ServingEvent, look: t.WatchLook, finding: str, error_rate: float) -> bool:
    """A person has seen this evidence and kept the version; it takes as much again before it is said once more."""
    query = (
        select(t.WatchLook)
        .join(t.RollbackProposal, t.RollbackProposal.look_id == t.WatchLook.id)
        .where(t.WatchLook.serving_event_id == event.id, t.RollbackProposal.status == DISMISSED, t.RollbackProposal.finding == finding)
    )
    seen = session.scalar(query.order_by(t.WatchLook.id.desc()).limit(1))
    if seen is None:
        return False
    if finding == SAFETY_CASES:
        return bool(look.incoming["cases"][0] <= seen.incoming["cases"][0])
    return look.log_evidence < seen.log_evidence + math.log(2 / error_rate)


def _incoming(session: Session, event_id: int, last: t.WatchLook | None, alpha: float) -> dict[str, Any]:
    """Answers that a person has looked at and those reported unsafe, (serving, previous), with p and what this look may spend.

    An answer counts as looked at when it stood on the bench, was decided on the desk, or was reported.
    """
    event = session.get_one(t.ServingEvent, event_id)
    cases, answers = [], []
    reported = select(t.SafetyCase.completion_id)
    decided = select(t.Conflict.completion_id).where(t.Conflict.status == "adjudicated")
    for version_id in (event.to_version_id, event.from_version_id):
        mine = t.Completion.model_version_id == version_id
        seen = or_(t.Completion.source == "bench", t.Completion.id.in_(decided), t.Completion.id.in_(reported))
        answers.append(session.scalar(select(func.count(t.Completion.id)).where(mine, seen)) or 0)
        cases.append(session.scalar(select(func.count(t.Completion.id)).where(mine, t.Completion.id.in_(reported))) or 0)
    before = last.incoming if last else {}
    if (before.get("cases"), before.get("answers")) == (cases, answers):
        return {**before, "threshold": 0.0}  # nothing new: not a look, nothing is spent
    number = int(before.get("number", 0)) + 1
    p = fisher_more_often(cases[0], answers[0], cases[1], answers[1])
    return {"cases": cases, "answers": answers, "p": p, "number": number, "threshold": share_of_look(number, alpha)}


def _last_look(session: Session, event_id: int) -> t.WatchLook | None:
    return session.scalar(select(t.WatchLook).where(t.WatchLook.serving_event_id == event_id).order_by(t.WatchLook.id.desc()).limit(1))


def _open(session: Session, proposal_id: int) -> t.RollbackProposal:
    row = session.get(t.RollbackProposal, proposal_id)
    if row is None:
        raise NotFound("release.no_such_proposal", id=proposal_id)
    if row.status != OPEN:
        raise Conflicting("release.proposal_decided", id=proposal_id)
    return row


def _decide(session: Session, proposal_id: int, status: str, user_id: int, reason: str, event_id: int | None) -> None:
    row = session.get_one(t.RollbackProposal, proposal_id)
    row.status, row.decided_by, row.decision_reason, row.event_id, row.decided_at = status, user_id, reason, event_id, utc_now()
    detail = {"event": event_id, "status": status}
    audit.record(session, f"{status}_roll_back_proposal", "rollback_proposal", row.id, actor_id=user_id, detail=detail, reason=reason)
