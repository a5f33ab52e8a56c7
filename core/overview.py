"""What needs a person now, in a handful of short reads: the contents of Home.

Reads only. Called by pages/home.py and by the launcher's first start. Estimates are sums of what a
running job reports about itself and of what its kind usually takes on two CPU cores; screens say "about".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.accounts import Person
from core.demo import PREFIX
from core.evaluation import Comparison, report_of
from core.models import serving_version
from core.records import ConflictStatus, JobStatus
from db import tables as t
from db.base import utc_now
from db.engine import read_session

#: seconds that a job of the demo usually takes on two CPU cores, before it says so itself
USUAL_S = {"demo_base": 45.0, "sft": 25.0, "sample": 15.0, "score": 5.0, "conflicts": 3.0, "ppo": 180.0, "evaluate": 45.0, "index": 8.0}
#: failed jobs older than this no longer ask for attention
ATTENTION = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job in one line. `share` is in [0, 1], `eta_s` in seconds; None when the job has not said."""

    id: int
    kind: str
    title: str
    status: str
    phase: str
    share: float | None
    eta_s: float | None
    at: datetime


@dataclass(frozen=True, slots=True)
class DemoState:
    """The demo while it is being made. `first_cases_s` is None once cases are on the desk."""

    num_done: int
    num_jobs: int
    first_cases_s: float | None
    rest_s: float
    failed_id: int | None


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that Home shows to one person."""

    num_open_cases: int = 0
    my_claims: list[int] = field(default_factory=list)
    num_signed_today: int = 0
    num_open_safety_cases: int = 0
    running: list[JobLine] = field(default_factory=list)
    failed: list[JobLine] = field(default_factory=list)
    num_queued: int = 0
    demo: DemoState | None = None
    num_datasets: int = 0
    num_versions: int = 0
    serving: str | None = None
    serving_since: datetime | None = None
    evaluation: str | None = None
    evaluation_at: datetime | None = None
    comparison: Comparison | None = None
    baseline: str = ""

    @property
    def is_empty(self) -> bool:
        """Nothing has ever been put in: the first run with --empty."""
        return not (self.num_datasets or self.num_versions or self.running or self.num_queued or self.failed)

    @property
    def is_busy(self) -> bool:
        """Something changes by itself, so the screen should."""
        return bool(self.running or self.num_queued)


def overview(person: Person) -> Overview:
    """What this person should see. A few counts and the newest rows; well under 10 ms."""
    now = utc_now()
    with read_session() as session:
        running = _lines(session, JobStatus.RUNNING)
        failed = [line for line in _lines(session, JobStatus.FAILED, JobStatus.LOST) if line.at > now - ATTENTION]
        serving = serving_version(session)
        since = select(func.max(t.ServingEvent.created_at)).where(t.ServingEvent.to_version_id == serving.id) if serving else None
        newest = session.scalar(select(t.Evaluation).order_by(t.Evaluation.id.desc()).limit(1))
        report = report_of(newest) if newest else None
        signed = select(func.count(t.Adjudication.id)).where(
            t.Adjudication.user_id == person.id, t.Adjudication.stage == "signed", t.Adjudication.created_at > now - timedelta(hours=24)
        )
        claims = select(t.Conflict.id).where(
            t.Conflict.claimed_by == person.id, t.Conflict.status == ConflictStatus.CLAIMED, t.Conflict.lease_expires_at > now
        )
        return Overview(
            num_open_cases=_count(session, t.Conflict, t.Conflict.status == ConflictStatus.OPEN),
            my_claims=list(session.scalars(claims.order_by(t.Conflict.id))),
            num_signed_today=session.scalar(signed) or 0,
            num_open_safety_cases=_count(session, t.SafetyCase, t.SafetyCase.closed_at.is_(None)),
            running=running,
            failed=failed[:5],
            num_queued=_count(session, t.Job, t.Job.status == JobStatus.QUEUED),
            demo=_demo(session, now),
            num_datasets=_count(session, t.Dataset),
            num_versions=_count(session, t.ModelVersion),
            serving=serving.name if serving else None,
            serving_since=session.scalar(since) if since is not None else None,
            evaluation=newest.name if newest else None,
            evaluation_at=newest.created_at if newest else None,
            comparison=report["comparisons"][0] if report and report["comparisons"] else None,
            baseline=report["baseline"] if report else "",
        )


def has_datasets() -> bool:
    """Whether anything was ever imported or made."""
    with read_session() as session:
        return session.scalar(select(t.Dataset.id).limit(1)) is not None


def _count(session: Session, table: type[t.Conflict | t.SafetyCase | t.Job | t.Dataset | t.ModelVersion], *conditions: object) -> int:
    query = select(func.count(table.id))
    for condition in conditions:
        query = query.where(condition)  # type: ignore[arg-type]
    return session.scalar(query) or 0


def _lines(session: Session, *statuses: JobStatus) -> list[JobLine]:
    query = select(t.Job).where(t.Job.status.in_([s.value for s in statuses])).order_by(t.Job.id.desc()).limit(20)
    return [_line(job) for job in session.scalars(query)]


def _line(job: t.Job) -> JobLine:
    done, total = job.progress.get("done"), job.progress.get("total")
    return JobLine(
        id=job.id,
        kind=job.kind,
        title=job.title,
        status=job.status,
        phase=str(job.progress.get("phase", "")),
        share=min(1.0, done / total) if done is not None and total else None,
        eta_s=job.progress.get("eta_s"),
        at=job.finished_at or job.started_at or job.created_at,
    )


def _demo(session: Session, now: datetime) -> DemoState | None:
    """The newest demo, as long as one of its jobs still waits or runs, or it has failed without a successor."""
    rows = list(session.scalars(select(t.Job).where(t.Job.dedup_key.startswith(PREFIX)).order_by(t.Job.id.desc()).limit(8)))
    newest: dict[str, t.Job] = {}
    for row in rows:
        newest.setdefault(row.kind, row)
    chain = sorted(newest.values(), key=lambda row: row.id)
    if not chain or all(row.status == JobStatus.SUCCEEDED for row in chain):
        return None
    is_active = any(row.status in (JobStatus.QUEUED, JobStatus.RUNNING) for row in chain)
    broken = [row for row in chain if row.status in (JobStatus.FAILED, JobStatus.LOST, JobStatus.CANCELLED)]
    if not is_active and not any(row.status in (JobStatus.FAILED, JobStatus.LOST) for row in broken):
        return None
    in_line = [row for row in chain if row.kind != "index"]
    cases = newest.get("conflicts")
    until_cases = [row for row in in_line if cases is not None and row.id <= cases.id]
    return DemoState(
        num_done=sum(1 for row in chain if row.status == JobStatus.SUCCEEDED),
        num_jobs=len(chain),
        first_cases_s=None if cases is None or cases.status == JobStatus.SUCCEEDED else sum(_remaining(r, now) for r in until_cases),
        rest_s=sum(_remaining(row, now) for row in in_line),
        failed_id=broken[0].id if broken else None,
    )


def _remaining(job: t.Job, now: datetime) -> float:
    usual = USUAL_S.get(job.kind, 60.0)
    if job.status == JobStatus.QUEUED:
        return usual
    if job.status != JobStatus.RUNNING or job.started_at is None:
        return 0.0
    left = usual - (now - job.started_at).total_seconds()
    return max(left, float(job.progress.get("eta_s") or 0.0), 1.0)
