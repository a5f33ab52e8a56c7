"""The teacher as people see it: state, spending, reasons, agreement, alarms. Reads, and three small decisions of people.

Called by pages/teacher.py and `./run.sh teacher`. Numbers come from the ledger's rows, whichever process wrote them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit
from core.errors import NotFound, UserError
from core.home import current_home
from core.models import require_role
from core.records import Role
from core.teacher import Health, load_template, open_teacher
from core.teacher.agreement import Agreement, agreement
from core.teacher.offline import NAME as OFFLINE
from core.teacher.offline import RUBRIC_VERSION as OFFLINE_RUBRIC
from core.teacher.prices import Price
from core.teacher.store import open_ledger, price_of
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

DAYS = 30
RECENT = timedelta(minutes=15)
NUM_LATENCIES = NUM_AUDITS = 1000
NUM_JOBS = 20


@dataclass(slots=True)
class Tally:
    """Sums over usage rows of a day, a job or all. `usd` is known cost, `possible_usd` may have been billed on top."""

    num_asked: int = 0
    num_cached: int = 0
    num_scored: int = 0
    num_unscored: int = 0
    num_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float = 0.0
    possible_usd: float = 0.0
    num_cost_unknown: int = 0

    def add(self, row: t.TeacherUsage) -> None:
        for name in ("num_asked", "num_cached", "num_scored", "num_unscored", "num_requests", "prompt_tokens", "completion_tokens"):
            setattr(self, name, getattr(self, name) + getattr(row, name))
        self.num_cost_unknown += row.num_cost_unknown
        self.usd += row.cost_usd
        self.possible_usd += max(0.0, row.unclear_usd + row.reserved_usd)


@dataclass(frozen=True, slots=True)
class Alarm:
    """`closed_by` is empty while it is open."""

    id: int
    kind: str
    teacher: str
    detail: dict[str, Any]
    created_at: datetime
    closed_by: str
    closed_reason: str
    is_open: bool


@dataclass(slots=True)
class TeacherView:
    """Everything on the page. Budgets of 0 mean none; `state` is up, down or unknown, with the newest reason when down."""

    is_offline: bool
    model: str
    host: str
    rubric_version: str
    state: str
    reason: str
    price: Price | None
    job_budget_usd: float
    month_budget_usd: float
    audit_share: float
    month: Tally
    total: Tally
    by_day: dict[str, Tally]
    by_job: dict[int | None, Tally]
    reasons: Counter[str]
    faults: Counter[str]
    latency_s: tuple[float, float] | None
    num_latencies: int
    agreement: Agreement
    alarms: list[Alarm] = field(default_factory=list)
    num_verdicts: int = 0
    num_proposals: int = 0


def view() -> TeacherView:
    """The last 30 days, this month, and what is open."""
    settings, now = current_home().settings, datetime.now(UTC)
    is_offline = not settings.teacher_base_url
    month_start = f"{now:%Y-%m}-01"
    with read_session() as session:
        rows = list(session.scalars(select(t.TeacherUsage).where(t.TeacherUsage.day >= min(_days_ago(now), month_start))))
        state, reason = _state(rows, now)
        found = TeacherView(
            is_offline=is_offline,
            model=OFFLINE if is_offline else settings.teacher_model,
            host=urlsplit(settings.teacher_base_url).netloc,
            rubric_version=OFFLINE_RUBRIC if is_offline else load_template().version,
            state=state,
            reason=reason,
            price=price_of(session, settings.teacher_model),
            job_budget_usd=settings.teacher_job_budget_usd,
            month_budget_usd=settings.teacher_month_budget_usd,
            audit_share=settings.teacher_audit_share,
            month=Tally(),
            total=Tally(),
            by_day={},
            by_job={},
            reasons=Counter(),
            faults=Counter(),
            latency_s=None,
            num_latencies=0,
            agreement=_agreement(session, settings.teacher_model),
            alarms=_alarms(session),
            num_verdicts=session.scalar(select(func.count(t.TeacherVerdict.id))) or 0,
            num_proposals=session.scalar(select(func.count(t.TeacherProposal.id)).where(t.TeacherProposal.status == "proposed")) or 0,
        )
        latencies = sorted(
            x
            for x in session.scalars(
                select(t.TeacherVerdict.latency_s)
                .where(t.TeacherVerdict.latency_s.is_not(None), t.TeacherVerdict.source == "asked")
                .order_by(t.TeacherVerdict.id.desc())
                .limit(NUM_LATENCIES)
            )
            if x is not None
        )
    for row in sorted(rows, key=lambda r: r.id):
        if row.day >= month_start:
            found.month.add(row)
        if row.day < _days_ago(now):
            continue
        found.total.add(row)
        found.by_day.setdefault(row.day, Tally()).add(row)
        found.by_job.setdefault(row.job_id, Tally()).add(row)
        found.reasons.update(row.reasons)
        found.faults.update(row.faults)
    if latencies:
        found.latency_s = latencies[len(latencies) // 2], latencies[min(len(latencies) - 1, int(0.95 * len(latencies)))]
        found.num_latencies = len(latencies)
    return found


def ask_now(user_id: int) -> Health:
    """Send the endpoint a request of about one token and say what came of it; counted like any other. Raises Forbidden."""
    with read_session() as session:
        require_role(session.get(t.User, user_id), Role.ENGINEER, Role.ADMIN)
    settings = current_home().settings
    teacher = open_teacher(settings, ledger=open_ledger(settings))
    health = teacher.health(probe=True)
    teacher.wait_idle(10.0)
    return health


def set_price(user_id: int, model: str, *, input_usd: float, output_usd: float, cached_usd: float | None, as_of: date, source: str) -> None:
    """Enter the price of a model (USD per million tokens). Raises Forbidden, UserError("teacher.bad_price")."""
    numbers = [input_usd, output_usd, cached_usd or 0.0]
    if not model.strip() or not source.strip() or min(numbers) < 0:
        raise UserError("teacher.bad_price")
    with write_session() as session:
        actor = require_role(session.get(t.User, user_id), Role.ENGINEER, Role.ADMIN)
        row = t.TeacherPrice(
            model=model.strip(),
            input_usd=input_usd,
            output_usd=output_usd,
            cached_input_usd=cached_usd,
            as_of=as_of.isoformat(),
            source=source.strip(),
            created_by=actor.id,
        )
        session.add(row)
        session.flush()
        detail = {"input": input_usd, "cached": cached_usd, "output": output_usd, "as_of": row.as_of}
        audit.record(session, "set_teacher_price", "teacher_price", row.model, actor_id=actor.id, detail=detail, reason=row.source)


def close_alarm(user_id: int, alarm_id: int, reason: str) -> None:
    """Close an alarm with a reason. Raises Forbidden, UserError("teacher.reason_missing"), NotFound("teacher.no_such_alarm")."""
    if not reason.strip():
        raise UserError("teacher.reason_missing")
    with write_session() as session:
        actor = require_role(session.get(t.User, user_id), Role.ENGINEER, Role.ADMIN)
        row = session.get(t.TeacherAlarm, alarm_id, with_for_update=True)
        if row is None or row.closed_at is not None:
            raise NotFound("teacher.no_such_alarm", id=alarm_id)
        row.closed_by, row.closed_reason, row.closed_at = actor.id, reason.strip(), utc_now()
        audit.record(session, "close_teacher_alarm", "teacher_alarm", row.id, actor_id=actor.id, detail={"kind": row.kind}, reason=reason)


def num_open_alarms() -> int:
    """Open alarms, also for Home."""
    with read_session() as session:
        return session.scalar(select(func.count(t.TeacherAlarm.id)).where(t.TeacherAlarm.closed_at.is_(None))) or 0


def _days_ago(now: datetime) -> str:
    return f"{now - timedelta(days=DAYS - 1):%Y-%m-%d}"


def _state(rows: list[t.TeacherUsage], now: datetime) -> tuple[str, str]:
    """up, down or unknown by the newest process that asked lately: down when none of its requests gave a verdict."""
    recent = [row for row in rows if row.updated_at > now - RECENT and row.num_requests]
    if not recent:
        return "unknown", ""
    newest = max(recent, key=lambda row: row.updated_at)
    num_faults = sum(newest.faults.values())
    if num_faults < newest.num_requests:
        return "up", ""
    return "down", max(newest.faults, key=lambda name: newest.faults[name])


def _agreement(session: Session, teacher: str) -> Agreement:
    query = select(t.TeacherAudit).where(t.TeacherAudit.teacher == teacher).order_by(t.TeacherAudit.id.desc()).limit(NUM_AUDITS)
    rows = list(session.scalars(query))
    return agreement([(r.first_score, r.second_score) for r in rows], [(r.first_flag, r.second_flag) for r in rows])


def _alarms(session: Session) -> list[Alarm]:
    query = select(t.TeacherAlarm, t.User.display_name).outerjoin(t.User, t.User.id == t.TeacherAlarm.closed_by)
    rows = session.execute(query.order_by(t.TeacherAlarm.id.desc()).limit(50))
    return [Alarm(a.id, a.kind, a.teacher, a.detail, a.created_at, who or "", a.closed_reason, a.closed_at is None) for a, who in rows]
