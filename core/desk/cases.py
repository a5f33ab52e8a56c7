"""What a case shows, and when: `blind_case` before a verdict, `reveal` after it, `history` of what was decided.

`blind_case` reads the sample, the completion and whether its model is a toy, and nothing else; a test walks its payload.
Texts are cut into sentences here, and evidence is laid over them here, so that the browser never counts characters.
Called by `core.desk.mailbox` and `core.adjudication`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from core.completions import sentences
from core.desk.evidence import dropped_warnings, lay, lay_whole, missing_terms
from core.errors import Forbidden, NotFound
from core.records import TRAINING_SPLITS, ConflictStatus, Split, Verdict
from db import tables as t
from db.base import utc_now

#: Rules whose score is a penalty: 1 is bad. For the others 1 is good.
PENALTIES = ("prescription", "verbosity")
#: splits from which a question may be taken into an evaluation set
MOVABLE = tuple(sorted({*TRAINING_SPLITS, Split.DEV}))


def blind_case(session: Session, conflict_id: int) -> dict[str, Any]:
    """The question and the answer in numbered sentences. Nothing else about the case is in here, by design."""
    conflict, sample, completion = _rows(session, conflict_id)
    version = session.get(t.ModelVersion, completion.model_version_id) if completion.model_version_id else None
    return {
        "id": conflict.id,
        "language": sample.language,
        "turns": [{"role": m.get("role", "user"), "text": m.get("content", "")} for m in sample.messages if m.get("role") != "system"],
        "answer": [s.text for s in sentences(completion.answer)],
        "thinking": [s.text for s in sentences(completion.thinking)],
        "answer_text": completion.answer,
        "is_cut": completion.finish_reason == "length",
        "is_toy": bool(version and version.is_toy),
        "context": added_context(session, conflict_id),
    }


def added_context(session: Session, conflict_id: int) -> list[str]:
    """Facts that somebody found out after a reader had asked for them."""
    query = select(t.FollowUp.answer).where(
        t.FollowUp.conflict_id == conflict_id, t.FollowUp.kind == "data_request", t.FollowUp.status == "done"
    )
    return [answer for answer in session.scalars(query) if answer]


def num_sentences(session: Session, conflict_id: int) -> tuple[int, int]:
    """How many sentences the answer and the thinking have: the marks that are possible."""
    _, _, completion = _rows(session, conflict_id)
    return len(sentences(completion.answer)), len(sentences(completion.thinking))


def may_see_reveal(session: Session, user_id: int, conflict_id: int) -> bool:
    """After one's own blind verdict, or when the case is closed."""
    status = session.scalar(select(t.Conflict.status).where(t.Conflict.id == conflict_id))
    return status == ConflictStatus.ADJUDICATED or own_blind(session, user_id, conflict_id) is not None


def own_blind(session: Session, user_id: int, conflict_id: int) -> t.Adjudication | None:
    """This person's newest blind verdict on the case."""
    query = select(t.Adjudication).where(
        t.Adjudication.conflict_id == conflict_id, t.Adjudication.user_id == user_id, t.Adjudication.stage == "blind"
    )
    return session.scalar(query.order_by(t.Adjudication.id.desc()).limit(1))


def reveal(session: Session, user_id: int, conflict_id: int, *, as_arbiter: bool = False) -> dict[str, Any]:
    """Why the case was drawn, what the rules and the teacher said, with the evidence laid over the sentences.

    Raises Forbidden("desk.blind_first") before this person's blind verdict; an arbiter (checked by the caller) needs none.
    """
    if not as_arbiter and not may_see_reveal(session, user_id, conflict_id):
        raise Forbidden("desk.blind_first")
    conflict, sample, completion = _rows(session, conflict_id)
    rules = current_rules(session, completion.id)
    spans = [span for rule in rules for span in rule.spans if isinstance(span, dict)]
    judgement = _judgement(session, conflict)
    version = session.get(t.ModelVersion, completion.model_version_id) if completion.model_version_id else None
    config = session.scalar(select(t.RewardConfig).where(t.RewardConfig.version == conflict.config_version))
    return {
        "id": conflict.id,
        "kind": conflict.kind,
        "is_disputed": is_disputed(conflict),
        "gap": conflict.gap,
        "rules_value": conflict.rules_value,
        "teacher_value": conflict.teacher_value,
        "threshold": config.conflict_threshold if config else None,
        "rules": [_rule(rule) for rule in rules],
        "teacher": _teacher(judgement),
        "advice": conflict.advice,
        "reference": sample.reference,
        "model": version.name if version else None,
        "question": lay_whole(sample.text, "prompt", spans),
        "answer": lay(completion.answer, "answer", spans),
        "thinking": lay(completion.thinking, "thinking", spans),
        "dropped": dropped_warnings(completion.thinking, completion.answer, _score(rules, "emergency")),
        "may_train": sample.split in TRAINING_SPLITS,
        "may_hold_out": sample.split in MOVABLE,
        "split": sample.split,
        "history": history(session, conflict_id, only_user=None if conflict.status == ConflictStatus.ADJUDICATED else user_id),
        "own": _own(session, user_id, conflict_id),
    }


def history(session: Session, conflict_id: int, *, only_user: int | None = None) -> list[dict[str, Any]]:
    """Every step that was ever decided on the case, oldest first, with its audit entry number.

    `only_user` keeps other readers' steps back while the case is open, so that a second signature is not led by the first.
    """
    query = select(t.Adjudication, t.User.display_name).join(t.User, t.User.id == t.Adjudication.user_id)
    if only_user is not None:
        query = query.where(t.Adjudication.user_id == only_user)
    rows = session.execute(query.where(t.Adjudication.conflict_id == conflict_id).order_by(t.Adjudication.id)).all()
    superseded = {row.supersedes_id for row, _ in rows if row.supersedes_id}
    gone = select(t.Retraction.adjudication_id).where(t.Retraction.adjudication_id.in_([row.id for row, _ in rows]))
    superseded.update(session.scalars(gone))
    entries = _audit_entries(session, [row.id for row, _ in rows])
    return [
        {
            "id": row.id,
            "by": name,
            "at": row.created_at.isoformat(),
            "stage": row.stage,
            "role": row.role,
            "verdict": row.verdict,
            "cannot_judge_reason": row.cannot_judge_reason,
            "criteria": row.criteria,
            "marks": row.marks,
            "confidence": row.confidence,
            "note": row.note,
            "revision_reason": row.revision_reason,
            "who_was_right": row.who_was_right,
            "because": row.because,
            "rewritten_answer": row.rewritten_answer,
            "evidence": row.evidence,
            "signed_meaning": row.signed_meaning,
            "is_superseded": row.id in superseded,
            "entry": entries.get(row.id),
        }
        for row, name in rows
    ]


def audit_entry(session: Session, adjudication_id: int) -> int | None:
    """The number of the audit entry that was written with a decision."""
    query = select(t.AuditEntry.id).where(t.AuditEntry.object_type == "adjudication", t.AuditEntry.object_id == str(adjudication_id))
    return session.scalar(query.order_by(t.AuditEntry.id).limit(1))


def _audit_entries(session: Session, adjudication_ids: list[int]) -> dict[int, int]:
    wanted = [str(one) for one in adjudication_ids]
    query = select(t.AuditEntry.object_id, func.min(t.AuditEntry.id)).where(
        t.AuditEntry.object_type == "adjudication", t.AuditEntry.object_id.in_(wanted)
    )
    return {int(object_id): entry for object_id, entry in session.execute(query.group_by(t.AuditEntry.object_id))}


def current_rules(session: Session, completion_id: int) -> list[t.RuleScore]:
    """The newest score of each rule."""
    newest = select(func.max(t.RuleScore.id)).where(t.RuleScore.completion_id == completion_id).group_by(t.RuleScore.rule_id)
    return list(session.scalars(select(t.RuleScore).where(t.RuleScore.id.in_(newest)).order_by(t.RuleScore.id)))


def is_disputed(conflict: t.Conflict) -> bool:
    """Teacher and rules stand against each other, so somebody was more right."""
    return conflict.kind in ("score_gap", "safety_disagreement")


def stands() -> ColumnElement[bool]:
    """The decision has not been retracted."""
    return ~exists().where(t.Retraction.adjudication_id == t.Adjudication.id)


def last_signed(session: Session, conflict_id: int) -> t.Adjudication | None:
    """The current decision of a case."""
    query = select(t.Adjudication).where(t.Adjudication.conflict_id == conflict_id, t.Adjudication.stage == "signed", stands())
    return session.scalar(query.order_by(t.Adjudication.id.desc()).limit(1))


def status_after(verdict: str | None, reason: str | None) -> str:
    """Where a signed verdict leaves the case: missing context waits for somebody, a foreign field goes to another reviewer."""
    if verdict == Verdict.CANNOT_JUDGE and reason == "missing_context":
        return ConflictStatus.DEFERRED.value
    if verdict == Verdict.CANNOT_JUDGE and reason == "not_my_field":
        return ConflictStatus.OPEN.value
    return ConflictStatus.ADJUDICATED.value


def resting_status(session: Session, conflict_id: int) -> str:
    """The status of a case that nobody holds, from its last signed or skipped row."""
    query = select(t.Adjudication).where(
        t.Adjudication.conflict_id == conflict_id, t.Adjudication.stage.in_(("signed", "skipped")), stands()
    )
    last = session.scalar(query.order_by(t.Adjudication.id.desc()).limit(1))
    if last is None:
        return ConflictStatus.OPEN.value
    conflict = session.get(t.Conflict, conflict_id)
    if last.stage == "signed" and conflict is not None and _waits_for_more(session, conflict):
        return ConflictStatus.OPEN.value
    return status_after(last.verdict, last.cannot_judge_reason) if last.stage == "signed" else status_after_skip(last.because)


def _waits_for_more(session: Session, conflict: t.Conflict) -> bool:
    """Fewer people have signed than the case is to have readers."""
    signed = select(func.count(func.distinct(t.Adjudication.user_id))).where(
        t.Adjudication.conflict_id == conflict.id, t.Adjudication.stage == "signed", t.Adjudication.role == "reader", stands()
    )
    return conflict.overlap > 1 and (session.scalar(signed) or 0) < conflict.overlap


def status_after_skip(because: Iterable[Any]) -> str:
    """A case that nobody can judge as it is waits; one that this person should not judge goes back to the queue."""
    return ConflictStatus.DEFERRED.value if {"missing_context", "display_fault"} & set(because) else ConflictStatus.OPEN.value


def state_of(session: Session, conflict: t.Conflict, user_id: int | None = None) -> dict[str, Any]:
    """The state a refused person is shown: who holds the case, and the decision if it is closed.

    While other readers are still to come, only `user_id`'s own last words are in it: a verdict of somebody else would unblind.
    """
    is_held = conflict.status == ConflictStatus.CLAIMED and bool(conflict.lease_expires_at and conflict.lease_expires_at >= utc_now())
    holder = session.get(t.User, conflict.claimed_by) if is_held and conflict.claimed_by else None
    is_closed = conflict.status == ConflictStatus.ADJUDICATED
    decision = last_signed(session, conflict.id) if is_closed else _last_own(session, conflict.id, user_id)
    by = session.get(t.User, decision.user_id) if decision else None
    return {
        "status": conflict.status,
        "version": conflict.version,
        "holder": holder.display_name if holder else None,
        "verdict": decision.verdict if decision else None,
        "note": decision.note if decision else None,
        "revision_reason": decision.revision_reason if decision else None,
        "rewritten_answer": decision.rewritten_answer if decision else None,
        "by": by.display_name if by else None,
        "at": decision.created_at.isoformat() if decision else None,
    }


def _last_own(session: Session, conflict_id: int, user_id: int | None) -> t.Adjudication | None:
    query = select(t.Adjudication).where(
        t.Adjudication.conflict_id == conflict_id, t.Adjudication.user_id == user_id, t.Adjudication.stage.in_(("blind", "signed"))
    )
    return session.scalar(query.order_by(t.Adjudication.id.desc()).limit(1)) if user_id is not None else None


def _rows(session: Session, conflict_id: int) -> tuple[t.Conflict, t.Sample, t.Completion]:
    conflict = session.get(t.Conflict, conflict_id)
    sample = session.get(t.Sample, conflict.sample_id) if conflict else None
    completion = session.get(t.Completion, conflict.completion_id) if conflict else None
    if conflict is None or sample is None or completion is None:
        raise NotFound("desk.no_such_case", case=conflict_id)
    return conflict, sample, completion


def _judgement(session: Session, conflict: t.Conflict) -> t.Judgement | None:
    if conflict.judgement_id is not None:
        return session.get(t.Judgement, conflict.judgement_id)
    query = select(t.Judgement).where(t.Judgement.completion_id == conflict.completion_id)
    return session.scalar(query.order_by(t.Judgement.id.desc()).limit(1))


def _rule(rule: t.RuleScore) -> dict[str, Any]:
    return {
        "id": rule.rule_id,
        "score": rule.score,
        "unscored_reason": rule.unscored_reason,
        "is_penalty": rule.rule_id in PENALTIES,
        "lexicon_version": rule.lexicon_version,
        "num_spans": len(rule.spans),
        "missing": missing_terms(rule.rule_id, rule.spans, rule.detail),
    }


def _score(rules: list[t.RuleScore], rule_id: str) -> float | None:
    return next((rule.score for rule in rules if rule.rule_id == rule_id), None)


def _teacher(row: t.Judgement | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "name": row.teacher,
        "is_offline": row.is_offline,
        "score": row.teacher_score,
        "unscored_reason": row.unscored_reason,
        "safety_flag": row.safety_flag,
        "critique": row.critique,
        "suggested_answer": row.suggested_answer,
        "rubric_version": row.rubric_version,
    }


def _own(session: Session, user_id: int, conflict_id: int) -> dict[str, Any] | None:
    """This person's own last opinion, to fill the form again."""
    row = own_blind(session, user_id, conflict_id)
    if row is None:
        return None
    return {
        "verdict": row.verdict,
        "cannot_judge_reason": row.cannot_judge_reason,
        "criteria": row.criteria,
        "marks": row.marks,
        "confidence": row.confidence,
        "note": row.note,
        "evidence": row.evidence,
        "at": row.created_at.isoformat(),
        "entry": audit_entry(session, row.id),
    }
