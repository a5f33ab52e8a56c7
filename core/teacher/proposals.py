"""What the teacher's inspection of gold and red-team items suggests, and people's decisions about it.

Three kinds: a prompt to add to the red-team set (the judged answer was flagged or scored low), a sampling weight for a group of
prompts (category and risk; read by training.prompt_set when accepted), and a better answer to keep beside a gold sample. A
proposal changes nothing until an engineer or administrator accepts it with a reason; each decision is in the audit chain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit
from core.datasets import NewSample, store_samples
from core.errors import Conflicting, NotFound, UserError
from core.models import require_role
from core.permit import permit
from core.records import Judgement, Language, Message, Prompt, Risk, Role, Split
from core.statistics import wilson
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

ADDITIONS = "red-team-additions"
#: a group with fewer judged answers gets no weight of its own
MIN_GROUP = 5
#: judged answers that the overall mean counts for in every group
PRIOR = 5.0
LEAST, MOST = 0.5, 3.0
#: a weight this close to 1 is not worth a decision
WORTHWHILE = 0.15


@dataclass(frozen=True, slots=True)
class Inspected:
    """One judged answer of the inspection; `judgement` is scored."""

    prompt: Prompt
    split: str
    judgement: Judgement

    @property
    def group(self) -> tuple[str, str]:
        return self.prompt.category, self.prompt.risk.value


@dataclass(frozen=True, slots=True)
class GroupNeed:
    """A group of prompts: its mean score and share of unsafe answers (with Wilson interval), and the weight that follows."""

    category: str
    risk: str
    num: int
    mean: float
    unsafe: float
    unsafe_low: float
    unsafe_high: float
    weight: float


@dataclass(frozen=True, slots=True)
class ProposalLine:
    """A proposal as the page lists it. `text` is the question or the name of the group."""

    id: int
    kind: str
    subject: str
    text: str
    dataset: str
    urgency: float
    detail: dict[str, Any]
    status: str
    decided_by: str
    decided_reason: str
    decided_at: datetime | None


def needs(rows: Iterable[Inspected]) -> list[GroupNeed]:
    """Groups with enough judged answers, neediest first. Pure.

    need = (1 - mean score) + unsafe share, both shrunk to the overall value by `PRIOR` answers; weight = need / mean need over
    all answers, kept between 0.5 and 3, so that a set drawn with the weights stays about as large.
    """
    groups: dict[tuple[str, str], list[Inspected]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    every = [row for group in groups.values() for row in group]
    if not every:
        return []
    mean, unsafe = _mean(every), _unsafe(every) / len(every)
    shrunk = {
        group: (1 - (PRIOR * mean + len(found) * _mean(found)) / (PRIOR + len(found)))
        + (PRIOR * unsafe + _unsafe(found)) / (PRIOR + len(found))
        for group, found in groups.items()
    }
    usual = sum(shrunk[group] * len(found) for group, found in groups.items()) / len(every)
    result = []
    for (category, risk), found in groups.items():
        if len(found) < MIN_GROUP:
            continue
        weight = min(MOST, max(LEAST, shrunk[category, risk] / usual)) if usual > 0 else 1.0
        share, (low, high) = _unsafe(found) / len(found), wilson(_unsafe(found), len(found))
        result.append(GroupNeed(category, risk, len(found), _mean(found), share, low, high, round(weight, 2)))
    return sorted(result, key=lambda need: (-need.weight, need.category, need.risk))


def propose(
    session: Session, inspection: str, dataset_id: int, rows: Sequence[Inspected], *, low_score: float, job_id: int | None
) -> dict[str, int]:
    """Store the proposals of an inspection; a second run of the same name adds only what is new. Returns how many by kind."""
    earlier = select(t.TeacherProposal).where(t.TeacherProposal.inspection == inspection)
    known = {(row.kind, row.subject) for row in session.scalars(earlier)}
    counts = {"red_team": 0, "weight": 0, "best_answer": 0}

    def add(kind: str, subject: str, urgency: float, detail: dict[str, Any], sample_id: int | None = None) -> None:
        if (kind, subject) in known:
            return
        known.add((kind, subject))
        counts[kind] += 1
        session.add(
            t.TeacherProposal(
                inspection=inspection, kind=kind, subject=subject, dataset_id=dataset_id, sample_id=sample_id, urgency=urgency,
                detail=detail, job_id=job_id,
            )
        )  # fmt: skip

    for row in rows:
        judgement, sample_id = row.judgement, row.prompt.sample_id
        score = judgement.teacher_score
        if score is None or sample_id is None:
            continue
        facts = {"score": score, "safety_flag": judgement.safety_flag, "critique": judgement.critique, "teacher": judgement.teacher}
        if row.split != Split.RED_TEAM and (judgement.safety_flag or score <= low_score):
            add("red_team", str(sample_id), (1 - score) + bool(judgement.safety_flag), facts, sample_id)
        if row.split == Split.GOLD and judgement.suggested_answer:
            add("best_answer", str(sample_id), 1 - score, facts | {"answer": judgement.suggested_answer}, sample_id)
    for need in needs(rows):
        if abs(need.weight - 1) >= WORTHWHILE:
            facts = {"weight": need.weight, "num": need.num, "mean": need.mean, "unsafe": need.unsafe}
            add("weight", f"{need.category}/{need.risk}", abs(need.weight - 1), facts)
    return counts


def listing(status: str = "", limit: int = 500) -> list[ProposalLine]:
    """Proposals, the most urgent first (of one status when named)."""
    query = (
        select(t.TeacherProposal, t.Dataset.name, t.Sample.text, t.User.display_name)
        .join(t.Dataset, t.Dataset.id == t.TeacherProposal.dataset_id)
        .outerjoin(t.Sample, t.Sample.id == t.TeacherProposal.sample_id)
        .outerjoin(t.User, t.User.id == t.TeacherProposal.decided_by)
        .order_by(t.TeacherProposal.urgency.desc(), t.TeacherProposal.id)
        .limit(limit)
    )
    if status:
        query = query.where(t.TeacherProposal.status == status)
    with read_session() as session:
        return [
            ProposalLine(
                id=p.id,
                kind=p.kind,
                subject=p.subject,
                text=text or p.subject,
                dataset=dataset,
                urgency=p.urgency,
                detail=p.detail,
                status=p.status,
                decided_by=who or "",
                decided_reason=p.decided_reason,
                decided_at=p.decided_at,
            )
            for p, dataset, text, who in session.execute(query)
        ]


def decide(user_id: int, ids: Sequence[int], *, accept: bool, reason: str) -> None:
    """Accept or reject proposals, all or none. The user is an engineer or administrator and gives a reason.

    Raises Forbidden, UserError("teacher.reason_missing"), NotFound("teacher.no_such_proposal"), Conflicting("teacher.decided").
    """
    permit("teacher.proposals.decide", user_id)
    if not reason.strip():
        raise UserError("teacher.reason_missing")
    with write_session() as session:
        actor = require_role(session.get(t.User, user_id), Role.ENGINEER, Role.ADMIN)
        for proposal_id in ids:
            row = session.get(t.TeacherProposal, proposal_id, with_for_update=True)
            if row is None:
                raise NotFound("teacher.no_such_proposal", id=proposal_id)
            if row.status != "proposed":
                raise Conflicting("teacher.decided", id=proposal_id)
            row.status, row.decided_by, row.decided_reason, row.decided_at = (
                ("accepted" if accept else "rejected"), actor.id, reason.strip(), utc_now(),
            )  # fmt: skip
            if accept:
                _carry_out(session, row, actor)
            detail = {"kind": row.kind, "subject": row.subject, "weight": row.detail.get("weight")}
            action = "accept_proposal" if accept else "reject_proposal"
            audit.record(session, action, "teacher_proposal", row.id, actor_id=actor.id, detail=detail, reason=reason.strip())


def _carry_out(session: Session, row: t.TeacherProposal, actor: t.User) -> None:
    """An accepted weight is read where it is needed; the other kinds are written to the data."""
    sample = session.get(t.Sample, row.sample_id) if row.sample_id else None
    if row.kind == "weight" or sample is None:
        return
    if row.kind == "best_answer":
        kept = {"answer": row.detail["answer"], "teacher": row.detail["teacher"], "accepted_by": actor.display_name, "proposal": row.id}
        sample.meta = {**sample.meta, "best_answers": [*sample.meta.get("best_answers", []), kept]}
        return
    dataset = session.scalar(select(t.Dataset).where(t.Dataset.name == ADDITIONS))
    if dataset is None:
        dataset = t.Dataset(name=ADDITIONS, kind="red_team", source="proposals of the teacher, accepted by people", created_by=actor.id)
        session.add(dataset)
        session.flush()
    messages = tuple(Message(m["role"], m["content"]) for m in sample.messages)
    facts = {k: v for k, v in sample.meta.items() if k != "best_answers"} | {"from_sample": sample.id, "proposal": row.id}
    copy = NewSample(
        messages, Language(sample.language), Split.RED_TEAM, sample.category, Risk(sample.risk), "teacher inspection", str(sample.id),
        sample.reference, facts,
    )  # fmt: skip
    store_samples(session, dataset, [copy])


def _mean(rows: Sequence[Inspected]) -> float:
    return sum(row.judgement.teacher_score or 0.0 for row in rows) / len(rows)


def _unsafe(rows: Sequence[Inspected]) -> int:
    return sum(bool(row.judgement.safety_flag) for row in rows)
