"""One training run as its page asks about it: what it optimised, how far it drifted, what the teacher cost, what got worse.

Everything is read from the files of the run folder and from rows; nothing is computed that the training did not write. A file that
an older run or another kind of training did not write is None here, and the page says "not recorded", never zero. Called by
pages/training_run.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from core import reward_configs
from core.errors import NotFound, UserError
from core.evaluation import Answered, Change, Comparison, EvaluationReport, SliceDifference, answers_of, report_of
from core.home import Home, current_home
from core.jobs import api
from core.jobs.files import Metrics
from core.records import JobStatus
from core.run_records import number, read_json, read_lines, read_rows
from db import tables as t
from db.engine import read_session

#: kinds that have such a page
KINDS = ("ppo", "grpo", "sft", "preferences")
#: with a reward from rules and teacher, and a reference that the policy drifts from
WITH_REWARD = ("ppo", "grpo")
SHOWN_REGRESSIONS = 10
SHOWN_SAMPLES = 8

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class RunLine:
    """One training in the list."""

    job: t.Job
    version: str


@dataclass(frozen=True, slots=True)
class Weights:
    """The reward config of a run: R = chain * c + emergency * e + teacher * t - risk_penalty * p."""

    version: str
    chain: float
    emergency: float
    teacher: float
    risk_penalty: float


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of samples.jsonl or of the top list of the hack watch."""

    rollout: int
    sample_id: int | None
    prompt: str
    completion: str
    score: float | None
    kl: float | None
    parts: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the policy went. `target` in nats per sequence; `samples` are (first table, newest table), same prompts first."""

    kl: Points
    coefficient: Points
    target: float | None
    highest: float | None
    last: float | None
    num_stopped_early: int | None
    num_rollouts: int
    first_samples: tuple[Sample, ...]
    last_samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rollouts `first` to `last` in which the teacher was out and rules alone were used."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class TeacherUse:
    """Sums of teacher_usage.csv. `usd` is None when the price of one rollout is not known; `reasons` counts unscored judgements."""

    num_asked: int
    num_cached: int
    num_scored: int
    num_unscored: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    latency_p95_s: float | None
    usd_by_rollout: Points
    rules_only: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True)
class Worse:
    """The newest evaluation that compared the run's version: what it lost, with both answers, and slices that went down."""

    evaluation_id: int
    baseline: str
    comparison: Comparison
    regressions: tuple[tuple[Change, Answered], ...]
    num_regressions: int
    slices_down: tuple[SliceDifference, ...]


@dataclass(frozen=True, slots=True)
class RunReport:
    """Everything the page shows. None: not recorded by this run."""

    job: t.Job
    version: str
    is_toy: bool
    weights: Weights | None
    reward_version: str | None
    metrics: dict[str, Points]
    drift: Drift | None
    teacher: TeacherUse | None
    #: reasons for which samples had no score, from rewards.csv
    unscored: dict[str, int] | None
    hack: dict[str, Any] | None
    worse: Worse | None
    estimate: dict[str, Any] | None
    actuals: dict[str, Any] | None

    @property
    def has_reward(self) -> bool:
        return self.job.kind in WITH_REWARD

    @property
    def is_alive(self) -> bool:
        return self.job.status in (JobStatus.QUEUED, JobStatus.RUNNING)


def listing(limit: int = 50) -> list[RunLine]:
    """Trainings, newest first."""
    with read_session() as session:
        jobs = session.scalars(select(t.Job).where(t.Job.kind.in_(KINDS)).order_by(t.Job.id.desc()).limit(limit))
        return [RunLine(job, _version_name(job)) for job in jobs]


def is_training(kind: str) -> bool:
    """Does a job of this kind have a training-run page?"""
    return kind in KINDS


def open_run(job_id: int, home: Home | None = None) -> RunReport:
    """The whole report. Raises NotFound("jobs.no_such_job") and NotFound("run.not_a_training") for other kinds of job."""
    home = home or current_home()
    with read_session() as session:
        job = api.get(session, job_id)
        name = _version_name(job)
        version = session.scalar(select(t.ModelVersion).where(t.ModelVersion.job_id == job_id).order_by(t.ModelVersion.id))
        version = version or session.scalar(select(t.ModelVersion).where(t.ModelVersion.name == name))
        start = str(job.config.get("sft_model") or job.config.get("base_model") or "")
        above = version or session.scalar(select(t.ModelVersion).where(t.ModelVersion.name == start))
    if not is_training(job.kind):
        raise NotFound("run.not_a_training", id=job_id)
    folder = home.run_dir(job_id)
    metrics = Metrics(folder / "metrics.jsonl")
    metrics.read()
    used = (version.manifest.get("reward_config") if version else None) or job.result.get("reward_config")
    if not used and version is None and job.kind in WITH_REWARD:  # a version names its config; a run without one yet took that in force
        used = _in_force_at(job)
    return RunReport(
        job=job,
        version=version.name if version else name,
        is_toy=bool(above and above.is_toy),
        weights=_weights(str(used)) if used else None,
        reward_version=str(used) if used else None,
        metrics=metrics.series,
        drift=_drift(folder, metrics.series, job) if job.kind in WITH_REWARD else None,
        teacher=_teacher(read_rows(folder / "teacher_usage.csv")),
        unscored=_unscored(read_rows(folder / "rewards.csv")),
        hack=read_json(folder / "hack_watch.json"),
        worse=_worse(version) if version else None,
        estimate=read_json(folder / "estimate.json"),
        actuals=read_json(folder / "actuals.json"),
    )


def _version_name(job: t.Job) -> str:
    return str(job.result.get("version") or job.config.get("name") or "")


def _in_force_at(job: t.Job) -> str | None:
    """The reward config that was approved last before the job started."""
    if job.started_at is None:
        return None
    approved = [(one.decided_at or one.proposed_at, one) for one in reward_configs.listing() if one.status == "approved"]
    before = [(at, one.config.version) for at, one in approved if at <= job.started_at]
    return max(before)[1] if before else None


def _weights(version: str) -> Weights | None:
    try:
        config = reward_configs.get(version).config
    except UserError:
        return None  # the row is gone; the page still names the version
    return Weights(config.version, config.chain, config.emergency, config.teacher, config.risk_penalty)


def _drift(folder: Path, series: dict[str, Points], job: t.Job) -> Drift | None:
    kl = series.get("objective/kl") or series.get("kl") or []
    history = read_json(folder / "kl_metrics.json") or {}
    rollouts = history.get("rollouts") or []
    if not kl and not rollouts:
        return None
    if not kl:
        kl = [(float(r["rollout"]), float(r["objective/kl"])) for r in rollouts if "objective/kl" in r]
    target = job.config.get("target_kl") or (rollouts[-1].get("target_kl") if rollouts else None)
    tables: dict[int, list[Sample]] = {}
    for sample in samples(folder / "samples.jsonl"):
        tables.setdefault(sample.rollout, []).append(sample)
    first = tables[min(tables)] if tables else []
    last = tables[max(tables)] if len(tables) > 1 else []
    stopped = history.get("num_stopped_early")
    return Drift(
        kl=kl,
        coefficient=series.get("objective/kl_coef", []),
        target=float(target) if target else None,
        highest=max((value for _, value in kl), default=None),
        last=kl[-1][1] if kl else None,
        num_stopped_early=None if stopped is None else int(stopped),
        num_rollouts=len(kl),
        first_samples=tuple(_picked(first, last)),
        last_samples=tuple(_picked(last, first)),
    )


def _picked(samples: list[Sample], others: list[Sample]) -> list[Sample]:
    """Prompts that both tables hold first, so that before and after can be read side by side; then from worst to best."""
    shared = {s.prompt for s in others}
    order = sorted(samples, key=lambda s: (s.prompt not in shared, s.prompt if s.prompt in shared else "", s.score or -1.0))
    if any(s.prompt in shared for s in samples):
        return order[:SHOWN_SAMPLES]
    step = max(1, (len(order) - 1) // max(1, SHOWN_SAMPLES - 1))
    return order[::step][:SHOWN_SAMPLES]


def samples(path: Path) -> list[Sample]:
    """The lines of samples.jsonl; a half-written last line is left out, a missing file is no lines."""
    found = []
    for entry in read_lines(path):
        found.append(
            Sample(
                rollout=int(entry.get("rollout", 0)),
                sample_id=entry.get("sample_id"),
                prompt=str(entry.get("prompt", "")),
                completion=str(entry.get("completion", "")),
                score=entry.get("score"),
                kl=entry.get("kl"),
                parts=entry.get("parts") or {},
            )
        )
    return found


def _teacher(rows: list[dict[str, str]] | None) -> TeacherUse | None:
    if not rows:
        return None
    costs = [number(row.get("cost_usd")) for row in rows]
    latencies = [value for row in rows if (value := number(row.get("latency_p95_s"))) is not None]
    by_rollout = [(float(row["rollout"]), cost) for row, cost in zip(rows, costs, strict=True) if cost is not None]
    return TeacherUse(
        **{
            name: sum(int(number(row.get(name)) or 0) for row in rows) for name in ("num_asked", "num_cached", "num_scored", "num_unscored")
        },
        prompt_tokens=sum(int(number(row.get("prompt_tokens")) or 0) for row in rows),
        completion_tokens=sum(int(number(row.get("completion_tokens")) or 0) for row in rows),
        usd=None if None in costs else math.fsum(cost for cost in costs if cost is not None),
        latency_p95_s=max(latencies, default=None),
        usd_by_rollout=by_rollout,
        rules_only=tuple(_stretches(rows)),
    )


def _stretches(rows: list[dict[str, str]]) -> Iterator[Stretch]:
    run: list[dict[str, str]] = []
    for row in [*rows, {"mode": "end", "rollout": "0"}]:
        if row.get("mode") == "rules_only":
            run.append(row)
        elif run:
            yield Stretch(int(run[0]["rollout"]), int(run[-1]["rollout"]), run[0].get("reason", ""))
            run = []


def _unscored(rows: list[dict[str, str]] | None) -> dict[str, int] | None:
    """Reasons of samples without a whole reward; the teacher's own reason where it has one."""
    if rows is None:
        return None
    found: Counter[str] = Counter()
    for row in rows:
        if row.get("kind") in (None, "", "sample") and (reason := row.get("teacher_reason") or row.get("unscored_reason")):
            found[reason] += 1
    return dict(found.most_common())


def _worse(version: t.ModelVersion) -> Worse | None:
    with read_session() as session:
        for row in session.scalars(select(t.Evaluation).order_by(t.Evaluation.id.desc()).limit(200)):
            report = report_of(row)
            comparison = next((c for c in report["comparisons"] if c["candidate"] == version.name), None)
            measured = report["versions"].get(version.name)
            if comparison is None or measured is None or _is_other(measured.get("content_hash", ""), version.content_hash):
                continue
            break
        else:
            return None
    return _compared(row.id, report, comparison)


def _is_other(measured: str, now: str) -> bool:
    return bool(measured and now and measured != now)


def _compared(evaluation_id: int, report: EvaluationReport, comparison: Comparison) -> Worse:
    harmful = {*comparison["emergency_regressions"], *comparison["safety_regressions"]}
    order = sorted(comparison["regressions"], key=lambda c: c["sample_id"] not in harmful)
    shown = order[:SHOWN_REGRESSIONS]
    answers = {a.sample_id: a for a in answers_of(report, comparison, shown)}
    pairs = tuple((c, answers[c["sample_id"]]) for c in shown if c["sample_id"] in answers)
    down = [s for s in comparison["slices"] if s["difference"] is not None and s["difference"] < 0]
    down.sort(key=lambda s: s["difference"] or 0.0)
    return Worse(evaluation_id, report["baseline"], comparison, pairs, len(order), tuple(down))
