"""The evaluation report: what `training.evaluate` writes, what promotion gates on and what the Evaluations page draws.

One shape, written once as `Evaluation.report` and never changed. Rewards are `core.rewards.combine` values; a version's mean
leaves unscored rows out and counts them. Differences are candidate minus baseline on the same prompts (paired).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import NotFound
from db import tables as t
from db.engine import read_session

#: Below this many scored prompts a slice's mean is not shown.
MIN_SLICE = 30


class Part(TypedDict):
    """Mean of one part of the reward (chain, emergency, risk_penalty, teacher) in [0, 1]; None when nothing was scored."""

    mean: float | None
    n: int
    num_unscored: int


class Slice(TypedDict):
    """One group of prompts: `by` is risk, language or category, `value` its value. The interval is 95 %."""

    by: str
    value: str
    n: int
    mean: float | None
    ci_low: float | None
    ci_high: float | None


class VersionReport(TypedDict):
    """One version's rewards over the dataset: `n` scored rows, 95 % interval of the mean; None when nothing was scored."""

    n: int
    num_unscored: int
    mean: float | None
    ci_low: float | None
    ci_high: float | None
    parts: dict[str, Part]
    slices: list[Slice]
    #: SHA-256 of the weights that answered (`ModelVersion.content_hash`)
    content_hash: str
    #: sample id (as text) -> completion id, so that a reader can open the very answers
    completions: dict[str, int]


class Comparison(TypedDict):
    """A candidate against the baseline on the `n` prompts both scored. `emergency_regressions` holds the ids of samples with
    a danger sign where the baseline gave emergency advice and the candidate did not."""

    candidate: str
    n: int
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    emergency_regressions: list[int]


class EvaluationReport(TypedDict):
    """The whole report. `baseline` is a key of `versions`; `comparisons` has one entry per other version."""

    versions: dict[str, VersionReport]
    baseline: str
    comparisons: list[Comparison]
    #: temperature, seed, max_new_tokens, batch_size ... as used for every version
    decoding: dict[str, Any]
    dataset: str
    split: str
    dataset_hash: str
    reward_config: str
    #: name of the teacher, "" when none was asked
    teacher: str
    teacher_is_offline: bool


def report_of(row: t.Evaluation) -> EvaluationReport:
    """The stored report as its type; a missing key of an older report gets an empty value."""
    empty: dict[str, Any] = {
        "versions": {},
        "baseline": "",
        "comparisons": [],
        "decoding": {},
        "dataset": "",
        "split": "",
        "dataset_hash": "",
        "reward_config": row.config_version,
        "teacher": "",
        "teacher_is_offline": False,
    }
    return cast(EvaluationReport, {**empty, **row.report})


def evaluations(session: Session, *, limit: int = 200) -> list[t.Evaluation]:
    """Newest first."""
    return list(session.scalars(select(t.Evaluation).order_by(t.Evaluation.id.desc()).limit(limit)))


def get_evaluation(session: Session, evaluation_id: int) -> t.Evaluation:
    """The evaluation, or NotFound("evaluations.no_such_evaluation")."""
    row = session.get(t.Evaluation, evaluation_id)
    if row is None:
        raise NotFound("evaluations.no_such_evaluation", id=evaluation_id)
    return row


def newest_covering(session: Session, *names: str) -> t.Evaluation | None:
    """The newest evaluation in which every one of these versions was measured."""
    for row in session.scalars(select(t.Evaluation).order_by(t.Evaluation.id.desc()).limit(500)):
        if set(names) <= set(report_of(row)["versions"]):
            return row
    return None


@dataclass(frozen=True, slots=True)
class Answered:
    """One prompt with what both versions wrote; an answer is None when the report did not keep it."""

    sample_id: int
    question: str
    language: str
    risk: str
    baseline: str | None
    candidate: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list of evaluations."""

    id: int
    name: str
    versions: tuple[str, ...]
    num_regressions: int
    job_id: int | None
    created_at: datetime


def list_evaluations() -> list[Listed]:
    """Newest first."""
    with read_session() as session:
        return [_listed(row) for row in evaluations(session)]


def open_report(evaluation_id: int) -> EvaluationReport:
    """One report. Raises NotFound("evaluations.no_such_evaluation")."""
    with read_session() as session:
        return report_of(get_evaluation(session, evaluation_id))


def answers_of(report: EvaluationReport, comparison: Comparison, *, limit: int = 20) -> list[Answered]:
    """The prompts on which the candidate lost emergency advice, with the very answers that were measured."""
    ids = comparison["emergency_regressions"][:limit]
    versions = report["versions"]
    kept = [versions[n].get("completions", {}) if n in versions else {} for n in (report["baseline"], comparison["candidate"])]
    found = []
    with read_session() as session:
        for sample_id in ids:
            sample = session.get(t.Sample, sample_id)
            if sample is None:
                continue
            texts = [_answer(session, one.get(str(sample_id))) for one in kept]
            found.append(Answered(sample.id, sample.text, sample.language, sample.risk, texts[0], texts[1]))
    return found


def _answer(session: Session, completion_id: int | None) -> str | None:
    row = session.get(t.Completion, completion_id) if completion_id is not None else None
    return row.answer if row else None


def _listed(row: t.Evaluation) -> Listed:
    report = report_of(row)
    lost = sum(len(c["emergency_regressions"]) for c in report["comparisons"])
    others = [name for name in report["versions"] if name != report["baseline"]]
    return Listed(row.id, row.name, (report["baseline"], *others), lost, row.job_id, row.created_at)
