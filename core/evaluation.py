"""The evaluation report: what `training.evaluate` writes, what promotion gates on and what the Evaluations page draws.

One shape, written once as `Evaluation.report` and never changed. Rewards are `core.rewards.combine` values; a version's mean
leaves unscored rows out and counts them. Differences are candidate minus baseline on the same prompts (paired).
"""

from __future__ import annotations

from typing import Any, TypedDict, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import NotFound
from db import tables as t

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
