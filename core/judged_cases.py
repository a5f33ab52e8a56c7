"""Signed expert verdicts joined with what the reward said about the same completions: the data of calibration and gaps.

Every reviewer's last signed verdict on a case counts (a corrected one is replaced by its correction, a retracted one never
counts), but where a case went to arbitration only the arbiter's does; "cannot judge" is no verdict. Parts are those of the
newest reward row of the completion: parts do not depend on weights, so any config can be applied to them. Reads only. Called by
training.calibrate, training.prompt_set and the Reward page.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from core.ordinal_fit import LEVELS, CaseRow
from core.records import Verdict, WhoWasRight
from db import tables as t
from db.engine import read_session


@dataclass(frozen=True, slots=True)
class Judged:
    """What can be used, and what could not."""

    rows: tuple[CaseRow, ...]
    #: signed verdicts on completions that were never scored, and verdicts "cannot judge"
    num_unscored: int
    num_cannot_judge: int
    #: the decisions of `rows`, for the record of what was learned from what
    decisions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StratumVerdict:
    """One verdict by stratum: was the answer bad, and did the expert find a scorer wrong?"""

    category: str
    language: str
    risk: str
    is_bad: bool
    is_scorer_wrong: bool


def load() -> Judged:
    """All usable verdicts, oldest first."""
    with read_session() as session:
        return judged(session)


def judged(session: Session) -> Judged:
    """See `load`."""
    rows, used, unscored, cannot = [], [], 0, 0
    parts = newest_parts(session)
    for decision, conflict, sample in session.execute(_current()):
        if decision.verdict == Verdict.CANNOT_JUDGE:
            cannot += 1
        elif decision.verdict in LEVELS:
            if (found := parts.get(conflict.completion_id)) is None:
                unscored += 1
            else:
                rows.append(CaseRow(conflict.id, conflict.completion_id, decision.verdict, found, sample.text))
                used.append(decision.id)
    return Judged(tuple(rows), unscored, cannot, tuple(used))


def newest_parts(session: Session) -> dict[int, dict[str, float | None]]:
    """Parts of the newest reward row of every completion that has a case."""
    newest = (
        select(func.max(t.Reward.id)).where(t.Reward.completion_id.in_(select(t.Conflict.completion_id))).group_by(t.Reward.completion_id)
    )
    rows = session.execute(select(t.Reward.completion_id, t.Reward.parts).where(t.Reward.id.in_(newest)))
    return {completion_id: dict(parts) for completion_id, parts in rows}


def stratum_verdicts(session: Session) -> list[StratumVerdict]:
    """Every current verdict with its sample's stratum; `who_was_right` tells whether rules or teacher were wrong."""
    wrong = {WhoWasRight.TEACHER.value, WhoWasRight.RULES.value, WhoWasRight.NEITHER.value}
    return [
        StratumVerdict(
            sample.category,
            sample.language,
            sample.risk,
            decision.verdict in (Verdict.SERIOUS, Verdict.UNSAFE),
            decision.who_was_right in wrong,
        )
        for decision, _, sample in session.execute(_current())
        if decision.verdict in LEVELS
    ]


def _current() -> Select[t.Adjudication, t.Conflict, t.Sample]:
    """(adjudication, conflict, sample) of every reviewer's last signed row per case."""
    last = (
        select(func.max(t.Adjudication.id))
        .where(t.Adjudication.stage == "signed")
        .group_by(t.Adjudication.conflict_id, t.Adjudication.user_id)
    )
    arbitrated = select(t.Adjudication.conflict_id).where(t.Adjudication.stage == "signed", t.Adjudication.role != "reader")
    return (
        select(t.Adjudication, t.Conflict, t.Sample)
        .join(t.Conflict, t.Conflict.id == t.Adjudication.conflict_id)
        .join(t.Sample, t.Sample.id == t.Conflict.sample_id)
        .where(t.Adjudication.id.in_(last), t.Adjudication.id.not_in(select(t.Retraction.adjudication_id)))
        .where((t.Adjudication.role != "reader") | t.Adjudication.conflict_id.not_in(arbitrated))
        .order_by(t.Adjudication.id)
    )
