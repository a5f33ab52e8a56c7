"""The teacher's ledger in the database: verdicts that are kept for ever, what was spent, and what may still be spent.

`reserve` holds money in one write transaction, so that two jobs cannot both spend the last of a month's budget. What a dead
process had reserved stays reserved: its requests may have been billed. Used by `core.scoring.open_scorer`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from core.records import Judgement, Prompt
from core.settings import Settings
from core.teacher import drift
from core.teacher.ledger import Attempt, Outcome, spent
from core.teacher.prices import Price, shipped_prices
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

#: an arbitrary number that all processes share: PostgreSQL's lock around the budget
BUDGET_LOCK = 0x7EAC
#: rounding of sums of floats
EPSILON_USD = 1e-9
CHUNK = 500


class DatabaseLedger:
    """Keeps everything under a job (None: work without a job, whose budget is that of this process)."""

    def __init__(self, settings: Settings, *, job_id: int | None = None) -> None:
        self.teacher, self.job_id = settings.teacher_model, job_id
        self.job_budget_usd, self.month_budget_usd = settings.teacher_job_budget_usd, settings.teacher_month_budget_usd
        self.run_token = secrets.token_hex(8)
        self._num_since_look = 0

    def price(self, model: str) -> Price | None:
        with read_session() as session:
            return price_of(session, model)

    def has_budget(self) -> bool:
        return self.job_budget_usd > 0 or self.month_budget_usd > 0

    def reserve(self, usd: float) -> bool:
        with write_session() as session:
            if session.get_bind().dialect.name == "postgresql":
                session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": BUDGET_LOCK})
            if self.job_budget_usd > 0:
                mine = t.TeacherUsage.job_id == self.job_id if self.job_id else t.TeacherUsage.run_token == self.run_token
                if _committed(session, mine) + usd > self.job_budget_usd + EPSILON_USD:
                    return False
            if self.month_budget_usd > 0:
                this_month = t.TeacherUsage.day >= f"{datetime.now(UTC):%Y-%m}-01"
                if _committed(session, this_month) + usd > self.month_budget_usd + EPSILON_USD:
                    return False
            self._row(session).reserved_usd += usd
        return True

    def find(self, keys: Sequence[str]) -> dict[str, Judgement]:
        found: dict[str, Judgement] = {}
        with read_session() as session:
            for start in range(0, len(keys), CHUNK):
                query = select(t.TeacherVerdict).where(t.TeacherVerdict.key.in_(keys[start : start + CHUNK]))
                found |= {row.key: to_judgement(row) for row in session.scalars(query)}
        return found

    def write(self, events: Sequence[Attempt | Outcome]) -> None:
        with write_session() as session:
            row = self._row(session)
            for event in events:
                if isinstance(event, Attempt):
                    _count_attempt(row, event)
                else:
                    self._keep(session, row, event)
            row.updated_at = utc_now()
        self._num_since_look += sum(1 for e in events if isinstance(e, Outcome) and not e.is_cached)
        if self._num_since_look >= drift.LOOK_EVERY:
            self.look()

    def look(self) -> None:
        """Compare the newest verdicts with those before; an alarm is stored when they differ too much."""
        self._num_since_look = 0
        drift.look(self.teacher, job_id=self.job_id)

    def dialect(self, endpoint: str) -> dict[str, Any]:
        with read_session() as session:
            row = session.scalar(select(t.TeacherState).where(t.TeacherState.endpoint == _short(endpoint)))
            return dict(row.detail) if row else {}

    def remember_dialect(self, endpoint: str, dialect: dict[str, Any]) -> None:
        with write_session() as session:
            row = session.scalar(select(t.TeacherState).where(t.TeacherState.endpoint == _short(endpoint)))
            if row is None:
                session.add(t.TeacherState(endpoint=_short(endpoint), detail=dialect))
            else:
                row.detail, row.updated_at = dialect, utc_now()

    def _row(self, session: Session) -> t.TeacherUsage:
        """This process's row of today."""
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        row = session.scalar(select(t.TeacherUsage).where(t.TeacherUsage.run_token == self.run_token, t.TeacherUsage.day == day))
        if row is None:
            row = t.TeacherUsage(run_token=self.run_token, day=day, teacher=self.teacher, job_id=self.job_id)
            session.add(row)
            session.flush()
        return row

    def _keep(self, session: Session, row: t.TeacherUsage, outcome: Outcome) -> None:
        judgement, attempt = outcome.judgement, outcome.attempt
        row.rubric_version = judgement.rubric_version
        if outcome.purpose == "judge":
            row.num_asked += 1
            row.num_cached += outcome.is_cached
            row.num_scored += judgement.teacher_score is not None
            row.num_unscored += judgement.teacher_score is None
            if judgement.unscored_reason:
                row.reasons = _plus_one(row.reasons, judgement.unscored_reason)
        if judgement.teacher_score is None or outcome.is_cached or attempt is None:
            return
        stored = session.scalar(select(t.TeacherVerdict).where(t.TeacherVerdict.key == outcome.key))
        if outcome.purpose == "audit":
            if stored is not None:
                row.num_audits += 1
                session.add(_audit(stored, judgement, attempt, self.job_id))
        elif stored is None:  # another process may have been first; its verdict stands
            drift.note_version(session, judgement, attempt.reported_model, attempt.fingerprint, job_id=self.job_id)
            session.add(_verdict(outcome, judgement, attempt, self.job_id))
        session.flush()


def open_ledger(settings: Settings) -> DatabaseLedger:
    """The ledger for this process: of the job that it runs, if any."""
    job_id = int(os.environ.get("CONSILIUM_JOB_ID") or 0)
    with read_session() as session:  # a script run by hand may carry an id that no job has
        return DatabaseLedger(settings, job_id=job_id if job_id and session.get(t.Job, job_id) is not None else None)


def price_of(session: Session, model: str) -> Price | None:
    """The price in force: the newest one that a person entered, else the shipped one, else unknown."""
    row = session.scalar(select(t.TeacherPrice).where(t.TeacherPrice.model == model).order_by(t.TeacherPrice.id.desc()).limit(1))
    if row is None:
        return shipped_prices().get(model)
    return Price(row.model, row.input_usd, row.output_usd, row.cached_input_usd, date.fromisoformat(row.as_of), row.source)


def to_judgement(row: t.TeacherVerdict) -> Judgement:
    """The judgement that a stored verdict is."""
    return Judgement(
        row.teacher,
        row.rubric_version,
        row.teacher_score,
        safety_flag=row.safety_flag,
        critique=row.critique,
        suggested_answer=row.suggested_answer,
        latency_s=row.latency_s,
    )


def prompt_hash(prompt: Prompt) -> str:
    """SHA-256 over the conversation, so that verdicts on one question can be found without its text."""
    return _sha([[m.role, m.content] for m in prompt.messages])


def _sha(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def _short(endpoint: str) -> str:
    return endpoint if len(endpoint) <= 200 else f"{endpoint[:130]} {hashlib.sha256(endpoint.encode()).hexdigest()}"


def _committed(session: Session, *where: Any) -> float:
    """USD spent, held, or possibly spent."""
    total = t.TeacherUsage.cost_usd + t.TeacherUsage.reserved_usd + t.TeacherUsage.unclear_usd
    return float(session.scalar(select(func.coalesce(func.sum(total), 0.0)).where(*where)) or 0.0)


def _count_attempt(row: t.TeacherUsage, attempt: Attempt) -> None:
    # a reservation made before midnight ends in the row of the next day: the sum over both is right
    row.reserved_usd -= attempt.reserved_usd
    if not attempt.is_sent:
        return
    row.num_requests += 1
    row.prompt_tokens += attempt.prompt_tokens
    row.cached_tokens += attempt.cached_tokens
    row.completion_tokens += attempt.completion_tokens
    if attempt.is_unclear or attempt.cost_usd is None:
        row.unclear_usd += spent(attempt)
        row.num_cost_unknown += 1
    else:
        row.cost_usd += attempt.cost_usd
    if attempt.reason:
        row.faults = _plus_one(row.faults, attempt.reason)


def _plus_one(counts: dict[str, Any], name: str) -> dict[str, Any]:
    return {**counts, name: counts.get(name, 0) + 1}


def _verdict(outcome: Outcome, judgement: Judgement, attempt: Attempt, job_id: int | None) -> t.TeacherVerdict:
    assert judgement.teacher_score is not None
    return t.TeacherVerdict(
        key=outcome.key,
        teacher=judgement.teacher,
        rubric_version=judgement.rubric_version,
        teacher_score=judgement.teacher_score,
        safety_flag=judgement.safety_flag,
        critique=judgement.critique,
        suggested_answer=judgement.suggested_answer,
        prompt_hash=prompt_hash(outcome.prompt),
        completion_hash=_sha(outcome.completion.text),
        sample_id=outcome.prompt.sample_id,
        reported_model=attempt.reported_model,
        fingerprint=attempt.fingerprint,
        prompt_tokens=attempt.prompt_tokens,
        completion_tokens=attempt.completion_tokens,
        cost_usd=attempt.cost_usd,
        latency_s=judgement.latency_s,
        job_id=job_id,
    )


def _audit(stored: t.TeacherVerdict, judgement: Judgement, attempt: Attempt, job_id: int | None) -> t.TeacherAudit:
    assert judgement.teacher_score is not None
    return t.TeacherAudit(
        verdict_id=stored.id,
        teacher=judgement.teacher,
        rubric_version=judgement.rubric_version,
        first_score=stored.teacher_score,
        second_score=judgement.teacher_score,
        first_flag=stored.safety_flag,
        second_flag=judgement.safety_flag,
        critique=judgement.critique,
        reported_model=attempt.reported_model,
        fingerprint=attempt.fingerprint,
        job_id=job_id,
    )
