"""Deciding a case: a blind verdict, then a signature. Rows are appended, never changed; the last signed row counts.

Each function is one short write transaction that checks the role, the lease, the version and the form, appends one row and
its audit entry, and moves the case on. A decision resent by the browser (same user and client_id) is stored once and
acknowledged with the same time and entry number. Called by `core.desk.mailbox` and by tests; leases are in `core.desk.lease`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, inspect, select
from sqlalchemy.orm import Session

from core import audit, guidelines, safety
from core.desk import citations, followups, forms, plan
from core.desk.cases import (
    audit_entry,
    is_disputed,
    last_signed,
    num_sentences,
    own_blind,
    state_of,
    status_after,
    status_after_skip,
)
from core.desk.lease import drop_draft, get_case, hold, let_go, refusal, reviewer
from core.errors import Conflicting, UserError
from core.i18n import translate
from core.records import TRAINING_SPLITS, ConflictStatus, Verdict
from core.signing import Proof, prove_at_desk
from db import tables as t
from db.base import utc_now
from db.engine import write_session

#: A signed decision may be corrected by a newer row for this long; later only an arbitration can.
CORRECTION_MINUTES = 10
#: Signed verdicts that answer a report of "unsafe" from the bench. A stop cord pulled on the desk is closed by hand only.
CLEARING = frozenset({Verdict.ACCEPTABLE.value, Verdict.MINOR.value})


@dataclass(frozen=True, slots=True)
class Decision:
    """What every decision carries. `version` and `lease_token` come from the claim; `form` is checked by `core.desk.forms`."""

    conflict_id: int
    client_id: str
    form: Mapping[str, Any]
    lease_token: str | None = None
    version: int | None = None
    #: through which sign-in it comes; a signature needs it
    proof: Proof | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a decision is stored: server time and audit entry number. `version` and `status` are the case's new ones."""

    client_id: str
    conflict_id: int
    adjudication_id: int
    stage: str
    saved_at: datetime
    entry: int
    version: int
    status: str
    is_repeat: bool = False
    #: a rewritten answer became a training pair (True), was kept out of training (False), or there was none (None)
    is_training_pair: bool | None = None


def commit_blind(user_id: int, decision: Decision) -> Receipt:
    """Store the verdict given before anything was revealed. It cannot be undone, only revised when signing.

    Raises Conflicting("desk.already_committed", "desk.stale" and what `hold` raises) and what `parse_opinion` raises.
    """
    with write_session() as session:
        user = reviewer(session, user_id)
        if repeat := repeated(session, user_id, decision):
            return repeat
        conflict = _held_at_version(session, user, decision)
        if own_blind(session, user_id, conflict.id):
            raise Conflicting("desk.already_committed")
        opinion = forms.parse_opinion(decision.form, *num_sentences(session, conflict.id))
        row = _row(decision, user_id, "blind", opinion)
        row.evidence = citations.copies(session, opinion.evidence)
        conflict.version += 1
        return _store(session, row, conflict)


def sign(user_id: int, decision: Decision) -> Receipt:
    """Store the signed decision and move the case on (`core.desk.plan`), or correct one's own signature of a few minutes ago.

    Raises Conflicting("desk.blind_first", "desk.too_late_to_correct", "desk.stale" ...), and what `parse_ruling` and
    `prove_at_desk` raise.
    """
    with write_session() as session:
        user = reviewer(session, user_id)
        prove_at_desk(session, user_id, decision.proof)
        if repeat := repeated(session, user_id, decision):
            return repeat
        corrected = _corrected(session, user_id, decision)
        conflict = get_case(session, decision.conflict_id) if corrected else _held_at_version(session, user, decision)
        blind = own_blind(session, user_id, conflict.id)
        if blind is None:
            raise Conflicting("desk.blind_first")
        ruling = forms.parse_ruling(
            decision.form, *num_sentences(session, conflict.id), blind_verdict=blind.verdict or "", is_disputed=is_disputed(conflict)
        )
        row = _row(decision, user_id, "signed", ruling.opinion)
        row.revision_reason, row.who_was_right = ruling.revision_reason, ruling.who_was_right
        row.because, row.rewritten_answer = list(ruling.because), ruling.rewritten_answer
        row.evidence = citations.copies(session, ruling.opinion.evidence)
        row.signed_name, row.signed_at = user.display_name, row.created_at
        row.signed_meaning = translate("desk.signature_meaning", user.language or "en", name=user.display_name)
        row.supersedes_id = corrected.id if corrected else None
        session.add(row)
        session.flush()
        # before the pair is made: a question that becomes an evaluation item must not become a training pair
        followups.after_signing(session, row, conflict, ruling.follow)
        let_go(conflict, plan.after_signing(session, conflict, row, status_after(row.verdict, row.cannot_judge_reason)))
        drop_draft(session, user_id, conflict.id)
        return store(session, row, conflict, user)


def skip(user_id: int, decision: Decision) -> Receipt:
    """Pass on a case with a reason; it is not offered to this person again.

    Raises UserError("desk.skip_reason_needed") and Conflicting("desk.already_adjudicated").
    """
    with write_session() as session:
        reviewer(session, user_id)
        if repeat := repeated(session, user_id, decision):
            return repeat
        conflict = get_case(session, decision.conflict_id)
        reason, note = forms.parse_skip(decision.form)
        if conflict.status == ConflictStatus.ADJUDICATED:
            raise refusal(session, conflict)
        row = _row(decision, user_id, "skipped")
        row.because, row.note = [reason], note
        session.add(row)
        session.flush()
        followups.after_skip(session, row, conflict)
        if conflict.status == ConflictStatus.CLAIMED and conflict.claimed_by == user_id:
            let_go(conflict, status_after_skip(row.because))
        drop_draft(session, user_id, conflict.id)
        return _store(session, row, conflict)


def stop_cord(user_id: int, decision: Decision) -> Receipt:
    """Report the answer as unsafe at once: a safety case that blocks promotion of its version until somebody closes it.

    Needs no lease and changes no decision; the case is to be read by three people.
    """
    with write_session() as session:
        reviewer(session, user_id)
        if repeat := repeated(session, user_id, decision):
            return repeat
        conflict = get_case(session, decision.conflict_id)
        row = _row(decision, user_id, "stop_cord")
        row.verdict, row.note = Verdict.UNSAFE.value, forms.parse_note(decision.form)
        safety = t.SafetyCase(
            completion_id=conflict.completion_id, reported_by=user_id, origin="desk", note=row.note, conflict_id=conflict.id
        )
        session.add(safety)
        plan.pull_stop_cord(session, conflict)
        return _store(session, row, conflict)


def repeated(session: Session, user_id: int, decision: Decision) -> Receipt | None:
    """The receipt of a decision that is already stored."""
    client_id = forms.check_client_id(decision.client_id)
    row = session.scalar(select(t.Adjudication).where(t.Adjudication.user_id == user_id, t.Adjudication.client_id == client_id))
    if row is None:
        return None
    if row.conflict_id != decision.conflict_id:
        raise UserError("desk.field_unknown", field="client_id")
    conflict = get_case(session, row.conflict_id)
    return Receipt(
        client_id,
        conflict.id,
        row.id,
        row.stage,
        row.created_at,
        audit_entry(session, row.id) or 0,
        conflict.version,
        conflict.status,
        is_repeat=True,
        is_training_pair=_has_pair(session, row) if row.rewritten_answer else None,
    )


def _held_at_version(session: Session, user: t.User, decision: Decision) -> t.Conflict:
    return _at_version(session, hold(session, user, decision.conflict_id, decision.lease_token), decision, user.id)


def _at_version(session: Session, conflict: t.Conflict, decision: Decision, user_id: int) -> t.Conflict:
    if conflict.version != decision.version:
        submitted = {key: decision.form[key] for key in forms.WORDS if decision.form.get(key)}
        raise Conflicting("desk.stale", case=conflict.id, current=state_of(session, conflict, user_id), submitted=submitted)
    return conflict


def _corrected(session: Session, user_id: int, decision: Decision) -> t.Adjudication | None:
    """The signed row that this decision corrects, if it names one and still may."""
    wanted = decision.form.get("supersedes_id")
    if wanted is None:
        return None
    # a correction that lost to another window's is stale, which shows both texts, and not merely late
    conflict = _at_version(session, get_case(session, decision.conflict_id), decision, user_id)
    row = last_signed(session, decision.conflict_id)
    is_mine = row is not None and row.id == wanted and row.user_id == user_id and row.role == "reader"
    if row is None or not is_mine or utc_now() - row.created_at > timedelta(minutes=CORRECTION_MINUTES):
        raise Conflicting("desk.too_late_to_correct", minutes=CORRECTION_MINUTES)
    if conflict.status == ConflictStatus.CLAIMED and conflict.claimed_by != user_id:
        raise refusal(session, conflict)  # "not my field" had put it back and somebody has it
    return row


def _row(decision: Decision, user_id: int, stage: str, opinion: forms.Opinion | None = None) -> t.Adjudication:
    row = t.Adjudication(conflict_id=decision.conflict_id, user_id=user_id, stage=stage, client_id=decision.client_id)
    if opinion is not None:
        row.verdict, row.cannot_judge_reason = opinion.verdict.value, opinion.cannot_judge_reason
        row.criteria, row.marks = dict(opinion.criteria), dict(opinion.marks)
        row.confidence = opinion.confidence.value if opinion.confidence else None
        row.note, row.active_s = opinion.note, opinion.active_s
    return row


def store(session: Session, row: t.Adjudication, conflict: t.Conflict, user: t.User) -> Receipt:
    """Append a signed row with all that follows from it. The caller has moved the case on; also called for rulings."""
    receipt = _store(session, row, conflict)
    if row.verdict in CLEARING and conflict.status == ConflictStatus.ADJUDICATED:
        _close_bench_reports(session, row, user)
    return receipt


def _store(session: Session, row: t.Adjudication, conflict: t.Conflict) -> Receipt:
    """Append the row, its audit entry (which carries the row's hash) and what follows from it."""
    if row.stage in ("blind", "signed"):
        row.guideline_version = guidelines.ensure(session).version
    session.add(row)
    session.flush()
    is_training_pair = _renew_pair(session, row, conflict) if row.stage == "signed" else None
    detail = {"conflict_id": conflict.id, "completion_id": conflict.completion_id, "verdict": row.verdict, "row_sha256": row_hash(row)}
    entry = audit.record(session, f"adjudicate_{row.stage}", "adjudication", row.id, actor_id=row.user_id, detail=detail)
    return Receipt(
        row.client_id,
        conflict.id,
        row.id,
        row.stage,
        row.created_at,
        entry.id,
        conflict.version,
        conflict.status,
        is_training_pair=is_training_pair,
    )


def _renew_pair(session: Session, row: t.Adjudication, conflict: t.Conflict) -> bool | None:
    """Make the preference pair of a rewritten answer; a corrected decision takes its pair with it.

    Only samples of a training split may shape a model: for others the rewrite stays in the decision and nowhere else.
    """
    if row.supersedes_id is not None:
        session.execute(delete(t.PreferencePair).where(t.PreferencePair.adjudication_id == row.supersedes_id))
    completion = session.get(t.Completion, conflict.completion_id)
    sample = session.get(t.Sample, conflict.sample_id)
    if row.rewritten_answer is None or completion is None or sample is None:
        return None
    if row.rewritten_answer == completion.answer.strip():
        raise UserError("desk.rewrite_unchanged")
    if sample.split not in TRAINING_SPLITS:
        return False
    meta = {"completion_id": completion.id, "model_version_id": completion.model_version_id, "part": "answer"}
    pair = t.PreferencePair(
        sample_id=sample.id,
        chosen=row.rewritten_answer,
        rejected=completion.answer,
        source="adjudication",
        adjudication_id=row.id,
        meta=meta,
    )
    session.add(pair)
    return True


def _close_bench_reports(session: Session, row: t.Adjudication, user: t.User) -> None:
    """Close what others reported from the bench about this case; one's own report needs somebody else's eyes."""
    waiting = select(t.SafetyCase.id).where(
        t.SafetyCase.conflict_id == row.conflict_id,
        t.SafetyCase.origin == "bench",
        t.SafetyCase.reported_by != user.id,
        t.SafetyCase.closed_at.is_(None),
    )
    for case_id in session.scalars(waiting).all():
        safety.close_case(session, case_id, actor=user, reason=f"adjudication {row.id}: {row.verdict}. {row.note}".strip())


def _has_pair(session: Session, row: t.Adjudication) -> bool:
    return session.scalar(select(t.PreferencePair.id).where(t.PreferencePair.adjudication_id == row.id).limit(1)) is not None


def row_hash(row: t.Adjudication) -> str:
    """SHA-256 over all columns of a decision, so that the audit chain also shows when a stored row was changed."""
    values = {column.key: getattr(row, column.key) for column in inspect(t.Adjudication).column_attrs}
    if values["role"] == "reader":  # rows from before arbitration hash as they always did
        del values["role"], values["taken"]
    if not values["evidence"]:  # so do rows from before evidence
        del values["evidence"]
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()


__all__ = ["CORRECTION_MINUTES", "Decision", "Receipt", "commit_blind", "repeated", "row_hash", "sign", "skip", "stop_cord", "store"]
