"""What decisions do next: an evaluation item, a test of the teacher, a request for missing facts. Each has an owner who closes it.

Invariant (leak guard): from the moment a question is named for the gold or the red-team set, it and every copy of it leave the
training splits, in the same transaction; when the owner takes it out again it goes to `dev`, never back to training, because
somebody may have looked at it meanwhile. A sample that is held out already is refused, so that no evaluation set changes under
the evaluations that used it. Called by `core.adjudication` (with a signature), `core.desk.mailbox` and pages/followups.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit
from core.desk.cases import MOVABLE, last_signed
from core.desk.plan import REVIEWER_ROLES
from core.errors import Conflicting, NotFound, UserError
from core.models import require_role
from core.permit import permit
from core.records import TRAINING_SPLITS, ConflictStatus, Role, Split
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

SETS = ("gold", "red_team")
KINDS = (*SETS, "teacher_test", "data_request")
#: who answers for which list; everybody on the team reads all of them
OWNERS: dict[str, tuple[Role, ...]] = {
    "gold": (Role.PRODUCT, Role.ENGINEER, Role.ADMIN),
    "red_team": (Role.PRODUCT, Role.ENGINEER, Role.ADMIN),
    "teacher_test": (Role.ENGINEER, Role.ADMIN),
    "data_request": (Role.PRODUCT, Role.ENGINEER, Role.ADMIN),
}
#: shorter than this says nothing
MIN_ANSWER = 5
MAX_ANSWER = 4000


@dataclass(frozen=True, slots=True)
class FollowUpShown:
    """One line of a list. `verdict` is the decision's; `detail` as stored."""

    id: int
    kind: str
    conflict_id: int
    question: str
    answer_shown: str
    verdict: str
    note: str
    by: str
    status: str
    detail: dict[str, Any]
    answer: str
    closed_by: str
    created_at: datetime
    closed_at: datetime | None


def after_signing(session: Session, row: t.Adjudication, conflict: t.Conflict, wanted: Iterable[str]) -> None:
    """Make what a signature asks for: the reader's choices, and a request for facts when the verdict says they are missing."""
    for kind in wanted:
        # held out by somebody else meanwhile: what was wished for is so already, and a signature is not refused for it
        if kind not in SETS or session.get_one(t.Sample, conflict.sample_id).split in MOVABLE:
            _add(session, kind, row, conflict, row.note)
    if row.cannot_judge_reason == "missing_context":
        _add(session, "data_request", row, conflict, row.note)


def after_skip(session: Session, row: t.Adjudication, conflict: t.Conflict) -> None:
    """A case skipped for missing context asks for it too."""
    if "missing_context" in row.because:
        _add(session, "data_request", row, conflict, row.note)


def request(user_id: int, conflict_id: int, kind: str) -> int:
    """Name a decided case for a list; returns the row's id, the same one for a repeat.

    Raises Forbidden, UserError("desk.field_unknown", "followups.sign_first"), Conflicting("followups.held_out").
    """
    if kind not in KINDS or kind == "data_request":
        raise UserError("desk.field_unknown", field="kind")
    with write_session() as session:
        require_role(session.get(t.User, user_id), *REVIEWER_ROLES)
        conflict = session.get(t.Conflict, conflict_id)
        row = _decision_for(session, user_id, conflict_id)
        if conflict is None or row is None:
            raise UserError("followups.sign_first")
        return _add(session, kind, row, conflict, row.note, by=user_id).id


def close(user_id: int, follow_up_id: int, answer: str, *, accept: bool) -> None:
    """Close a row with what was done. An answered data request opens its case again, with the answer shown on it.

    Raises Forbidden, UserError("followups.answer_missing"), NotFound("followups.no_such"), Conflicting("followups.closed").
    """
    permit("desk.followups.close", user_id)
    answer = answer.strip()[:MAX_ANSWER]
    if len(answer) < MIN_ANSWER:
        raise UserError("followups.answer_missing")
    with write_session() as session:
        row = session.get(t.FollowUp, follow_up_id, with_for_update=True)
        if row is None:
            raise NotFound("followups.no_such", id=follow_up_id)
        require_role(session.get(t.User, user_id), *OWNERS[row.kind])
        if row.status != "open":
            raise Conflicting("followups.closed", id=follow_up_id)
        row.status = "done" if accept else "withdrawn"
        row.answer, row.closed_by, row.closed_at = answer, user_id, utc_now()
        conflict = session.get_one(t.Conflict, row.conflict_id)
        if row.kind in SETS and not accept:
            for sample in session.scalars(select(t.Sample).where(t.Sample.id.in_(row.detail["sample_ids"]), t.Sample.split == row.kind)):
                sample.split = Split.DEV.value
        if row.kind == "data_request" and accept and conflict.status == ConflictStatus.DEFERRED:
            conflict.status = ConflictStatus.OPEN.value
            conflict.version += 1
        detail = {"kind": row.kind, "conflict_id": row.conflict_id, "status": row.status}
        audit.record(session, "close_follow_up", "follow_up", row.id, actor_id=user_id, detail=detail, reason=answer)


def listing(kind: str, *, is_open: bool = True, limit: int = 100) -> list[FollowUpShown]:
    """Rows of one kind, the oldest open ones or the newest closed ones first."""
    condition = t.FollowUp.status == "open" if is_open else t.FollowUp.status != "open"
    order = t.FollowUp.id if is_open else t.FollowUp.id.desc()
    with read_session() as session:
        people = {row.id: row.display_name for row in session.execute(select(t.User.id, t.User.display_name))}
        query = (
            select(t.FollowUp, t.Sample.text, t.Completion.answer, t.Adjudication.verdict)
            .join(t.Conflict, t.Conflict.id == t.FollowUp.conflict_id)
            .join(t.Sample, t.Sample.id == t.Conflict.sample_id)
            .join(t.Completion, t.Completion.id == t.Conflict.completion_id)
            .join(t.Adjudication, t.Adjudication.id == t.FollowUp.adjudication_id)
            .where(t.FollowUp.kind == kind, condition)
        )
        return [
            FollowUpShown(
                row.id,
                row.kind,
                row.conflict_id,
                question,
                answer_shown,
                verdict or "",
                row.note,
                people.get(row.created_by, "–"),
                row.status,
                dict(row.detail),
                row.answer,
                people.get(row.closed_by or 0, ""),
                row.created_at,
                row.closed_at,
            )
            for row, question, answer_shown, verdict in session.execute(query.order_by(order).limit(limit))
        ]


def num_open() -> Counter[str]:
    """Open rows by kind."""
    with read_session() as session:
        query = select(t.FollowUp.kind, func.count()).where(t.FollowUp.status == "open").group_by(t.FollowUp.kind)
        return Counter({kind: num for kind, num in session.execute(query)})  # noqa: C416 - rows are not pairs to the type checker


def what_follows(session: Session, conflict: t.Conflict) -> dict[str, Any]:
    """Everything that came of a decided case: {items, pair, num_steps, label, proposal}, for the case's own screen.

    `pair` is made, kept_out or None; `label` what the preference and KTO files say of the answer; `proposal` the newest reward
    proposal, with whether this case changes sides under it.
    """
    rows = session.scalars(select(t.FollowUp).where(t.FollowUp.conflict_id == conflict.id).order_by(t.FollowUp.id))
    signed = last_signed(session, conflict.id)
    sample = session.get_one(t.Sample, conflict.sample_id)
    may_train = sample.split in TRAINING_SPLITS
    pair = None
    if signed is not None and signed.rewritten_answer:
        pair = "made" if may_train else "kept_out"
    return {
        "items": [{"kind": row.kind, "status": row.status, "answer": row.answer} for row in rows],
        "may_train": may_train,
        "may_hold_out": sample.split in MOVABLE,
        "pair": pair,
        "num_steps": len(signed.marks) if signed else 0,
        "label": {"acceptable": "good", "serious": "bad", "unsafe": "bad"}.get(signed.verdict or "") if signed else None,
        "proposal": _proposal(session, conflict.id),
    }


def _proposal(session: Session, conflict_id: int) -> dict[str, Any] | None:
    row = session.scalar(select(t.RewardConfig).where(t.RewardConfig.status == "proposed").order_by(t.RewardConfig.id.desc()).limit(1))
    if row is None:
        return None
    changes = (row.evidence or {}).get("changes") or []
    change = next((one for one in changes if one.get("case_id") == conflict_id), None)
    return {"version": row.version, "changes_side": change is not None, "agrees_now": bool(change and change.get("agrees_now"))}


def _decision_for(session: Session, user_id: int, conflict_id: int) -> t.Adjudication | None:
    """The decision that this person may build on: the one that stands on a closed case, else their own signature."""
    conflict = session.get(t.Conflict, conflict_id)
    if conflict is not None and conflict.status == ConflictStatus.ADJUDICATED:
        return last_signed(session, conflict_id)
    query = select(t.Adjudication).where(
        t.Adjudication.conflict_id == conflict_id, t.Adjudication.user_id == user_id, t.Adjudication.stage == "signed"
    )
    return session.scalar(query.order_by(t.Adjudication.id.desc()).limit(1))


def _add(session: Session, kind: str, decision: t.Adjudication, conflict: t.Conflict, note: str, *, by: int | None = None) -> t.FollowUp:
    known = session.scalar(select(t.FollowUp).where(t.FollowUp.conflict_id == conflict.id, t.FollowUp.kind == kind))
    if known is not None and (known.status == "open" or kind != "data_request"):
        return known
    detail: dict[str, Any] = {"expected": decision.verdict} if kind == "teacher_test" else {}
    if kind in SETS:
        detail = _hold_out(session, conflict, kind, decision)
    if known is not None:  # facts were found once and were not enough
        known.status, known.adjudication_id, known.note = "open", decision.id, note
        row = known
    else:
        row = t.FollowUp(
            kind=kind,
            conflict_id=conflict.id,
            adjudication_id=decision.id,
            created_by=by if by is not None else decision.user_id,
            note=note,
            detail=detail,
        )
        session.add(row)
    session.flush()
    about = {"kind": kind, "conflict_id": conflict.id, "adjudication_id": decision.id} | detail
    audit.record(session, "add_follow_up", "follow_up", row.id, actor_id=row.created_by, detail=about)
    return row


def _hold_out(session: Session, conflict: t.Conflict, split: str, decision: t.Adjudication) -> dict[str, Any]:
    """Take the question and all its copies out of training; the expert's better answer is its reference where it has none."""
    sample = session.get_one(t.Sample, conflict.sample_id)
    if sample.split not in MOVABLE:
        raise Conflicting("followups.held_out", split=sample.split)
    copies = list(session.scalars(select(t.Sample).where(t.Sample.content_hash == sample.content_hash, t.Sample.split.in_(MOVABLE))))
    before = sample.split
    for one in copies:
        one.split = split
    if sample.reference is None and decision.rewritten_answer:
        sample.reference = decision.rewritten_answer
    return {"split_before": before, "sample_ids": sorted(one.id for one in copies)}
