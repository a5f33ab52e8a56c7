"""Changes to retrieval on their way into service: kept aside or accepted offline, then a share of the traffic, then all of it, or back.

A job proposes (an index version, a plan, or both, with the gate's verdict); only what the gate accepted can be started, and every step is a
person's press with an entry in the audit chain. While a trial runs the errands look at it each time the candidate has answered another
`MIN_EXPOSURES` questions and stop it when it is worse: the safe direction needs nobody. A promoted change goes back with one press
to the version and plan that were in force before. Called by the Retrieval page, core.errands, core.searching and the learning job.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit, search_plans
from core.errors import Conflicting, NotFound, UserError
from core.models import require_role
from core.permit import permit
from core.records import Role
from core.retrieval import index_versions
from core.retrieval.clicks import Impression, estimate_examination, inverse_weights
from core.retrieval.plans import Plan
from core.retrieval.trial import MIN_EXPOSURES, STEPS, Arm, Look, Verdict, arm_of, look, next_share
from core.retrieval_use import asked
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

KEPT_ASIDE, ACCEPTED, RUNNING, PROMOTED, STOPPED, ROLLED_BACK = "kept_aside", "accepted", "running", "promoted", "stopped", "rolled_back"
SWITCHERS = (Role.ENGINEER, Role.ADMIN)
MIN_REASON = 5


@dataclass(frozen=True, slots=True)
class TrialShown:
    """One trial as people read it. `control` and `candidate` name index versions, None where the change is only in the plan."""

    id: int
    index_name: str
    change: str
    control: int | None
    candidate: int | None
    control_plan: dict[str, Any]
    candidate_plan: dict[str, Any]
    verdict: dict[str, Any]
    status: str
    share: float
    num_looks: int
    reason: str
    job_id: int | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Served:
    """What answers one person during a trial. `index_id` is the version to open; None: the active one."""

    trial_id: int
    arm: Arm
    index_id: int | None
    plan: Plan


def propose(
    index_name: str,
    change: str,
    verdict: Verdict,
    *,
    candidate_index_id: int | None = None,
    candidate_plan: Plan | None = None,
    set_name: str = "",
    reason: str = "",
    job_id: int | None = None,
) -> int:
    """Remember a change with the gate's verdict: accepted, or kept aside with the reason. Nothing is served. Returns the trial's id."""
    plan = search_plans.plan_for(index_name)
    with write_session() as session:
        row = t.RetrievalTrial(
            index_name=index_name,
            change=change,
            control_index_id=_active_id(session, index_name),
            candidate_index_id=candidate_index_id,
            control_plan=plan.to_json(),
            candidate_plan=(candidate_plan or plan).to_json(),
            verdict={**verdict.as_record(), "set": set_name},
            status=ACCEPTED if verdict.is_accepted else KEPT_ASIDE,
            reason=reason,
            job_id=job_id,
        )
        session.add(row)
        session.flush()
        _record(session, row, "propose_retrieval", None, reason)
        return row.id


def listing(index_name: str = "") -> list[TrialShown]:
    """Newest first."""
    query = select(t.RetrievalTrial).order_by(t.RetrievalTrial.id.desc()).limit(100)
    if index_name:
        query = query.where(t.RetrievalTrial.index_name == index_name)
    with read_session() as session:
        return [_shown(session, row) for row in session.scalars(query)]


def serving(index_name: str, key: str) -> Served | None:
    """What `key` (a person or session) gets while a trial of this index runs; None when none does."""
    with read_session() as session:
        row = session.scalar(select(t.RetrievalTrial).where(t.RetrievalTrial.index_name == index_name, t.RetrievalTrial.status == RUNNING))
        if row is None:
            return None
        arm = arm_of(f"trial:{row.id}", key, row.share)
        is_new = arm == "candidate"
        plan = Plan.from_json(row.candidate_plan if is_new else row.control_plan)
        return Served(row.id, arm, row.candidate_index_id if is_new else row.control_index_id, plan)


def expose(session: Session, served: Served, event_id: int) -> None:
    """Note which arm answered an ask; in the transaction that stores the ask."""
    session.add(t.RetrievalExposure(trial_id=served.trial_id, event_id=event_id, arm=served.arm))


def start(user_id: int, trial_id: int, *, reason: str) -> None:
    """Give the accepted candidate its first share of the traffic.

    Raises Forbidden, UserError("retrieval.reason_missing" / "retrieval.not_accepted"), Conflicting("retrieval.trial_runs" /
    "retrieval.trial_overtaken") when another trial of the index runs or another version was activated since.
    """
    permit("retrieval_trials.start", user_id)
    with write_session() as session:
        row = _pressed(session, user_id, trial_id, reason, (ACCEPTED, STOPPED))
        if not row.verdict.get("is_accepted"):
            raise UserError("retrieval.not_accepted")
        others = t.RetrievalTrial.id != row.id
        if session.scalar(
            select(t.RetrievalTrial.id).where(t.RetrievalTrial.index_name == row.index_name, t.RetrievalTrial.status == RUNNING, others)
        ):
            raise Conflicting("retrieval.trial_runs", index=row.index_name)
        if row.control_index_id != _active_id(session, row.index_name):
            raise Conflicting("retrieval.trial_overtaken", index=row.index_name)
        row.status, row.share = RUNNING, STEPS[0]
        _record(session, row, "start_retrieval_trial", user_id, reason)


def advance(user_id: int, trial_id: int, *, reason: str) -> float:
    """The next share; all of the traffic is a promotion. Returns the share. Raises as `start`, and UserError("retrieval.too_early")."""
    permit("retrieval_trials.advance", user_id)
    seen = look_at(trial_id)
    with write_session() as session:
        row = _pressed(session, user_id, trial_id, reason, (RUNNING,))
        if seen.action != "advance":
            raise UserError("retrieval.too_early", num=seen.num_candidate, least=MIN_EXPOSURES)
        share = next_share(row.share) or 1.0
        if share < 1:
            row.share = share
            _record(session, row, "advance_retrieval_trial", user_id, reason)
            return share
    promote(user_id, trial_id, reason=reason)
    return 1.0


def promote(user_id: int | None, trial_id: int, *, reason: str) -> None:
    """Make the candidate what everybody gets: its index version becomes active, its plan the default.

    `user_id` None is the learning job, which may switch what the gate accepted. Raises as `start`.
    """
    with write_session() as session:
        row = _pressed(session, user_id, trial_id, reason, (ACCEPTED, RUNNING))
        if not row.verdict.get("is_accepted"):
            raise UserError("retrieval.not_accepted")
        shown = _shown(session, row)
    _put_in_force(shown.index_name, shown.candidate, shown.candidate_plan, user_id, reason, trial_id)
    _end(trial_id, PROMOTED, "promote_retrieval", user_id, reason, share=1.0)


def stop(user_id: int | None, trial_id: int, *, reason: str) -> None:
    """Give everybody the control again; the candidate is kept. Raises as `start`."""
    with write_session() as session:
        _pressed(session, user_id, trial_id, reason, (RUNNING,))
    _end(trial_id, STOPPED, "stop_retrieval_trial", user_id, reason, share=0.0)


def roll_back(user_id: int, trial_id: int, *, reason: str) -> None:
    """Return to the version and plan before a promotion. Raises as `start`."""
    with write_session() as session:
        row = _pressed(session, user_id, trial_id, reason, (PROMOTED,))
        shown = _shown(session, row)
    _put_in_force(shown.index_name, shown.control, shown.control_plan, user_id, reason, trial_id)
    _end(trial_id, ROLLED_BACK, "roll_back_retrieval", user_id, reason, share=0.0)


def look_at(trial_id: int) -> Look:
    """Compare the arms by what people did, one debiased value per ask. Each look spends a share of the error rate."""
    with read_session() as session:
        row = _get(session, trial_id)
        arms = {e.event_id: e.arm for e in session.scalars(select(t.RetrievalExposure).where(t.RetrievalExposure.trial_id == trial_id))}
        name, number = row.index_name, row.num_looks + 1
    events = asked(name)
    weights = inverse_weights(estimate_examination([event.impression for event in events]))
    values: dict[str, list[float]] = {"control": [], "candidate": []}
    for event in events:
        if event.event_id in arms:
            values[arms[event.event_id]].append(gained(event.impression, weights))
    seen = look(values["control"], values["candidate"], number, np.random.default_rng(trial_id))
    if seen.action != "hold":
        with write_session() as session:
            _get(session, trial_id).num_looks = number
    return seen


def gained(impression: Impression, weights: list[float]) -> float:
    """Debiased discounted gain of one list: clicks over propensity, discounted by rank; unbiased for the DCG of what attracts.

    A. Agarwal, K. Takatsu, I. Zaitsev and T. Joachims, SIGIR 2019. A passage judged as helpful counts as one seen click.
    """
    total = 0.0
    for place, passage in enumerate(impression.shown):
        discount = 1 / math.log2(place + 2)
        if impression.thumbs.get(passage):
            total += discount if impression.thumbs[passage] > 0 else 0.0
        elif place in impression.satisfied:
            total += discount * (weights[place] if place < len(weights) else weights[-1])
    return total


def watch_trials() -> None:
    """Errand: look at every running trial that is due, and stop the one that is worse."""
    with read_session() as session:
        rows = list(session.scalars(select(t.RetrievalTrial).where(t.RetrievalTrial.status == RUNNING)))
        due = []
        for row in rows:
            mine = (t.RetrievalExposure.trial_id == row.id, t.RetrievalExposure.arm == "candidate")
            if (session.scalar(select(func.count()).where(*mine)) or 0) >= MIN_EXPOSURES * (row.num_looks + 1):
                due.append(row.id)
    for trial_id in due:
        seen = look_at(trial_id)
        if seen.action == "stop":
            stop(None, trial_id, reason=f"worse: {seen.difference:+.3f} [{seen.ci_low:+.3f}, {seen.ci_high:+.3f}]")


def _put_in_force(name: str, version: int | None, plan: Mapping[str, Any], user_id: int | None, reason: str, trial_id: int) -> None:
    if version is not None:
        index_versions.activate(name, version, by=user_id, reason=reason)
    wanted = Plan.from_json(plan)
    if wanted != search_plans.plan_for(name):
        search_plans.set_plan(name, wanted, reason=f"trial {trial_id}: {reason}", by=user_id)


def _pressed(session: Session, user_id: int | None, trial_id: int, reason: str, states: tuple[str, ...]) -> t.RetrievalTrial:
    """The trial, if this person may press and it is in one of `states`."""
    if user_id is not None:
        require_role(session.get(t.User, user_id), *SWITCHERS)
    if len(reason.strip()) < MIN_REASON:
        raise UserError("retrieval.reason_missing")
    row = _get(session, trial_id)
    if row.status not in states:
        raise Conflicting("retrieval.trial_moved_on", status=row.status)
    return row


def _end(trial_id: int, status: str, action: str, user_id: int | None, reason: str, *, share: float) -> None:
    with write_session() as session:
        row = _get(session, trial_id)
        row.status, row.share, row.ended_at = status, share, utc_now()
        _record(session, row, action, user_id, reason)


def _record(session: Session, row: t.RetrievalTrial, action: str, user_id: int | None, reason: str) -> None:
    detail = {"index": row.index_name, "change": row.change, "status": row.status, "share": row.share, "verdict": row.verdict.get("reason")}
    audit.record(session, action, "retrieval_trial", row.id, actor_id=user_id, detail=detail, reason=reason)


def _active_id(session: Session, name: str) -> int | None:
    return session.scalar(select(t.SearchIndex.id).where(t.SearchIndex.name == name, t.SearchIndex.is_active))


def _get(session: Session, trial_id: int) -> t.RetrievalTrial:
    row = session.get(t.RetrievalTrial, trial_id)
    if row is None:
        raise NotFound("retrieval.no_such_trial", id=trial_id)
    return row


def _shown(session: Session, row: t.RetrievalTrial) -> TrialShown:
    versions = {}
    for side in ("control_index_id", "candidate_index_id"):
        found = session.get(t.SearchIndex, getattr(row, side)) if getattr(row, side) else None
        versions[side] = found.version if found else None
    return TrialShown(
        row.id, row.index_name, row.change, versions["control_index_id"], versions["candidate_index_id"], row.control_plan,
        row.candidate_plan, row.verdict, row.status, row.share, row.num_looks, row.reason, row.job_id, row.created_at, row.ended_at,
    )  # fmt: skip
