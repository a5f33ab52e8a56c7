"""Arbitration: the readers' verdicts side by side, anonymous, and a ruling that takes sides row by row.

A ruling is a signed row of its own (`role` arbiter) and the case's decision from then on; the readers' rows stay as they were
and are shown with it for ever. Readers are letters in an order drawn from the case's number, so that A is not always the first.
Called by pages/arbitration.py.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import adjudication
from core.desk.cases import blind_case, reveal
from core.desk.forms import CRITERIA, CRITERION_VALUES, MAX_TEXT
from core.desk.lease import get_case, let_go, reviewer
from core.desk.plan import may_arbitrate, readings
from core.errors import Conflicting, Forbidden, UserError
from core.i18n import translate
from core.importing.duplicates import shingles
from core.records import ConflictStatus, Language, Verdict
from core.signing import Proof, prove_at_desk
from db import tables as t
from db.engine import read_session, write_session

OWN = "M"
LETTERS = "ABC"
ROWS = ("verdict", *CRITERIA)
#: how many earlier rulings are looked through, and how alike two questions must be to be shown
NUM_EARLIER = 2000
MIN_SIMILARITY = 0.12
NUM_SIMILAR = 5


@dataclass(frozen=True, slots=True)
class Side:
    """What one reader said. `letter` is all that is shown of who it was."""

    letter: str
    blind: str
    verdict: str
    values: dict[str, str | None]
    marks: dict[str, str]
    confidence: str | None
    note: str
    revision_reason: str
    who_was_right: str | None
    because: tuple[str, ...]
    rewritten_answer: str | None
    evidence: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Similar:
    """An earlier ruling on a similar question."""

    conflict_id: int
    question: str
    verdict: str
    reason: str
    similarity: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Dispute:
    """A case before the arbiter. `version` must come back with the ruling."""

    conflict_id: int
    version: int
    since: datetime | None
    case: dict[str, Any]
    sides: tuple[Side, ...]
    differs: frozenset[str]
    similar: tuple[Similar, ...]
    ruling: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """One line of the list."""

    conflict_id: int
    question: str
    language: str
    since: datetime | None
    has_unsafe: bool


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the arbiter decides. `taken` maps every row to a reader's letter or M; `own` holds the values of the M rows."""

    taken: Mapping[str, str]
    reason: str
    own: Mapping[str, str] = field(default_factory=dict)
    rewritten_answer: str = ""


def waiting(user_id: int) -> list[Waiting]:
    """Cases that this person may rule on: those with an "unsafe" first, then the oldest."""
    with read_session() as session:
        reviewer(session, user_id)
        query = (
            select(t.Conflict, t.Sample.text, t.Sample.language)
            .join(t.Sample, t.Sample.id == t.Conflict.sample_id)
            .where(t.Conflict.arbitration_at.is_not(None), t.Conflict.status == ConflictStatus.OPEN)
            .order_by(t.Conflict.arbitration_at, t.Conflict.id)
        )
        found = []
        for conflict, question, language in session.execute(query):
            if may_arbitrate(session, user_id, conflict):
                said = {verdict for one in readings(session, conflict.id) for verdict in (one.blind, one.signed)}
                found.append(Waiting(conflict.id, question, language, conflict.arbitration_at, Verdict.UNSAFE.value in said))
        return sorted(found, key=lambda one: not one.has_unsafe)


def num_waiting() -> int:
    """How many cases wait for an arbiter, whoever it may be."""
    with read_session() as session:
        query = select(func.count(t.Conflict.id)).where(t.Conflict.arbitration_at.is_not(None), t.Conflict.status == ConflictStatus.OPEN)
        return session.scalar(query) or 0


def ruled(limit: int = 20) -> list[Similar]:
    """The newest rulings, newest first."""
    with read_session() as session:
        return [_earlier(row, question, 1.0) for row, question in _rulings(session, limit)]


def open_dispute(user_id: int, conflict_id: int) -> Dispute:
    """Everything an arbiter looks at. After the ruling it stays open to every reviewer, with the ruling in it.

    Raises Forbidden("arbitration.not_yours") for a reader of a case that is still to be ruled on.
    """
    with read_session() as session:
        reviewer(session, user_id)
        conflict = get_case(session, conflict_id)
        ruling = _ruling_of(session, conflict_id)
        if ruling is None and (conflict.arbitration_at is None or not may_arbitrate(session, user_id, conflict)):
            raise Forbidden("arbitration.not_yours", case=conflict_id)
        sides = _sides(session, conflict_id)
        differs = frozenset(row for row in ROWS if len({_value(side, row) for side in sides}) > 1)
        return Dispute(
            conflict_id,
            conflict.version,
            conflict.arbitration_at,
            blind_case(session, conflict_id),
            sides,
            differs,
            tuple(_similar(session, conflict)),
            _shown(ruling) if ruling else None,
        )


def scores(user_id: int, conflict_id: int) -> dict[str, Any]:
    """What rules and teacher said, for the arbiter who asks for it; nobody's name is in it."""
    with read_session() as session:
        conflict = get_case(session, conflict_id)
        if _ruling_of(session, conflict_id) is None and (conflict.arbitration_at is None or not may_arbitrate(session, user_id, conflict)):
            raise Forbidden("arbitration.not_yours", case=conflict_id)
        return {
            key: value for key, value in reveal(session, user_id, conflict_id, as_arbiter=True).items() if key not in ("history", "own")
        }


def rule(
    user_id: int, conflict_id: int, version: int, ruling: Ruling, *, client_id: str | None = None, proof: Proof | None = None
) -> adjudication.Receipt:
    """Sign the ruling and close the case. A repeat with the same `client_id` is answered with the first receipt.

    Raises Conflicting("arbitration.changed") when somebody ruled or corrected meanwhile, Forbidden("arbitration.not_yours"),
    UserError("arbitration.side_missing", "arbitration.reason_needed", "desk.verdict_unknown", "desk.field_unknown"), and as
    `core.signing.prove_at_desk`.
    """
    decision = adjudication.Decision(conflict_id, client_id or secrets.token_urlsafe(12), {}, None, version)
    with write_session() as session:
        user = reviewer(session, user_id)
        prove_at_desk(session, user_id, proof)
        if repeat := adjudication.repeated(session, user_id, decision):
            return repeat
        conflict = get_case(session, conflict_id)
        if conflict.arbitration_at is None or conflict.status != ConflictStatus.OPEN or conflict.version != version:
            raise Conflicting("arbitration.changed", case=conflict_id)
        if not may_arbitrate(session, user_id, conflict):
            raise Forbidden("arbitration.not_yours", case=conflict_id)
        sides = {side.letter: side for side in _sides(session, conflict_id)}
        values = {row: _decided(row, ruling, sides) for row in ROWS}
        reason = ruling.reason.strip()
        if not reason or len(reason) > MAX_TEXT:
            raise UserError("arbitration.reason_needed")
        row = t.Adjudication(conflict_id=conflict_id, user_id=user_id, stage="signed", client_id=decision.client_id, role="arbiter")
        row.verdict, row.note = values["verdict"], reason
        row.cannot_judge_reason = "ambiguous" if row.verdict == Verdict.CANNOT_JUDGE else None
        row.criteria = {name: value for name in CRITERIA if (value := values[name])}
        row.taken = dict(ruling.taken)
        row.rewritten_answer = ruling.rewritten_answer.strip() or None
        row.signed_name, row.signed_at = user.display_name, row.created_at
        row.signed_meaning = translate("arbitration.signature_meaning", user.language or "en", name=user.display_name)
        conflict.arbitration_at = None
        let_go(conflict, ConflictStatus.ADJUDICATED.value)
        return adjudication.store(session, row, conflict, user)


def _decided(row: str, ruling: Ruling, sides: Mapping[str, Side]) -> str | None:
    letter = ruling.taken.get(row)
    if letter == OWN:
        value = ruling.own.get(row)
        if row == "verdict" and value not in set(Verdict):
            raise UserError("desk.verdict_unknown")
        if row != "verdict" and value not in (None, "", *CRITERION_VALUES):
            raise UserError("desk.field_unknown", field=row)
        return value or None
    if letter is None or letter not in sides:
        raise UserError("arbitration.side_missing", row=row)
    return _value(sides[letter], row)


def _value(side: Side, row: str) -> str | None:
    return side.verdict if row == "verdict" else side.values.get(row)


def _sides(session: Session, conflict_id: int) -> tuple[Side, ...]:
    """The readers' sides, in an order that depends on the case only."""
    rows = session.scalars(select(t.Adjudication).where(t.Adjudication.conflict_id == conflict_id).order_by(t.Adjudication.id)).all()
    signed = {row.user_id: row for row in rows if row.stage == "signed" and row.role == "reader"}
    people = sorted(readings(session, conflict_id), key=lambda one: hashlib.sha256(f"{conflict_id}:{one.user_id}".encode()).digest())
    return tuple(
        Side(
            letter,
            one.blind,
            one.signed,
            {name: row.criteria.get(name) for name in CRITERIA},
            dict(row.marks),
            row.confidence,
            row.note,
            row.revision_reason,
            row.who_was_right,
            tuple(row.because),
            row.rewritten_answer,
            tuple(row.evidence),
        )
        for letter, one in zip(LETTERS, people, strict=False)
        if (row := signed[one.user_id])
    )


def _ruling_of(session: Session, conflict_id: int) -> t.Adjudication | None:
    query = select(t.Adjudication).where(t.Adjudication.conflict_id == conflict_id, t.Adjudication.role == "arbiter")
    return session.scalar(query.order_by(t.Adjudication.id.desc()).limit(1))


def _shown(row: t.Adjudication) -> dict[str, Any]:
    return {
        "verdict": row.verdict,
        "criteria": row.criteria,
        "taken": row.taken,
        "reason": row.note,
        "rewritten_answer": row.rewritten_answer,
        "signed_meaning": row.signed_meaning,
        "at": row.created_at,
    }


def _rulings(session: Session, limit: int) -> list[tuple[t.Adjudication, str]]:
    query = (
        select(t.Adjudication, t.Sample.text)
        .join(t.Conflict, t.Conflict.id == t.Adjudication.conflict_id)
        .join(t.Sample, t.Sample.id == t.Conflict.sample_id)
        .where(t.Adjudication.role == "arbiter")
        .order_by(t.Adjudication.id.desc())
    )
    return [(row, question) for row, question in session.execute(query.limit(limit))]


def _similar(session: Session, conflict: t.Conflict) -> list[Similar]:
    """Earlier rulings by the overlap of their questions' character shingles, most alike first."""
    sample = session.get_one(t.Sample, conflict.sample_id)
    language = Language(sample.language)
    here = shingles(sample.text, language)
    found = []
    for row, question in _rulings(session, NUM_EARLIER):
        other = shingles(question, language)
        likeness = len(here & other) / len(here | other)
        if row.conflict_id != conflict.id and likeness >= MIN_SIMILARITY:
            found.append(_earlier(row, question, likeness))
    return sorted(found, key=lambda one: -one.similarity)[:NUM_SIMILAR]


def _earlier(row: t.Adjudication, question: str, likeness: float) -> Similar:
    return Similar(row.conflict_id, question, row.verdict or "", row.note, likeness, row.created_at)
