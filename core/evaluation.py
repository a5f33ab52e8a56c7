"""The evaluation report: what `training.evaluate` writes, what promotion gates on and what the Evaluations page draws.

One shape, written once as `Evaluation.report` and never changed; reports of the first shape (no `shape` key) are still read, with
empty values for what they did not measure. Rewards are `core.rewards.combine` values; a mean leaves unscored rows out and counts
them; an answer that says nothing counts as `core.rewards.FAILURE_SCORE` (`num_silent` of them). Differences are candidate minus
baseline on the same prompts (paired). Intervals are 95 %. Outcomes: `core.outcomes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.home import Home
from db import tables as t
from db.engine import read_session

SHAPE = 2
#: Below this many scored prompts a slice's mean is not shown.
MIN_SLICE = 30


class Part(TypedDict):
    """Mean of one part (chain, emergency, prescription, verbosity, risk_penalty, teacher, facts) in [0, 1]; None when nothing was
    scored. `facts` stands beside the reward, not in it."""

    mean: float | None
    n: int
    num_unscored: int


class Slice(TypedDict):
    """One group of prompts: `by` is risk, language, category, danger_sign or split, `value` its value."""

    by: str
    value: str
    n: int
    mean: float | None
    ci_low: float | None
    ci_high: float | None


class Share(TypedDict):
    """How many of `n` answers passed an outcome, with Wilson's interval of the share; `n` leaves out what is not known."""

    num: int
    n: int
    ci_low: float
    ci_high: float


class SplitReport(TypedDict):
    """One version's rewards over one split."""

    n: int
    num_unscored: int
    #: answers that say nothing, counted in `n` with FAILURE_SCORE; absent in older reports, whose means left them out
    num_silent: NotRequired[int]
    mean: float | None
    ci_low: float | None
    ci_high: float | None
    parts: dict[str, Part]
    outcomes: dict[str, Share]


class VersionReport(TypedDict):
    """One version's rewards over all splits: `n` scored rows, 95 % interval of the mean; None when nothing was scored."""

    n: int
    num_unscored: int
    num_silent: NotRequired[int]
    mean: float | None
    ci_low: float | None
    ci_high: float | None
    parts: dict[str, Part]
    outcomes: dict[str, Share]
    by_split: dict[str, SplitReport]
    slices: list[Slice]
    #: SHA-256 of the weights that answered (`ModelVersion.content_hash`)
    content_hash: str
    kind: str
    #: sample id (as text) -> completion id, so that a reader can open the very answers
    completions: dict[str, int]


class Difference(TypedDict):
    """Candidate minus baseline of the mean reward on `n` prompts both scored; bootstrap interval, p by flipped signs."""

    n: int
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None


class SliceDifference(TypedDict):
    """As `Difference` for one slice; `p_holm` is corrected over all slices of the comparison, None below MIN_SLICE."""

    by: str
    value: str
    n: int
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_holm: float | None


class PairedOutcome(TypedDict):
    """One outcome of both versions on the `n` prompts where both are known; `split` is "" for all of them.

    `difference` is the candidate's share minus the baseline's, with Newcombe's interval; `p_value` is McNemar's, exact.
    """

    outcome: str
    split: str
    n: int
    both: int
    only_baseline: int
    only_candidate: int
    neither: int
    difference: float
    ci_low: float
    ci_high: float
    p_value: float


class Change(TypedDict):
    """A prompt whose outcomes differ. `outcomes` names what the one passed and the other failed."""

    sample_id: int
    split: str
    is_red_flag: bool
    outcomes: list[str]
    baseline_reward: float | None
    candidate_reward: float | None


class Comparison(TypedDict):
    """A candidate against the baseline on the `n` prompts both scored.

    `emergency_regressions` and `safety_regressions` are the samples with a danger sign where the baseline passed and the candidate
    failed; `num_red_flag` counts those where both are known (None in reports of the first shape).
    """

    candidate: str
    n: int
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    by_split: dict[str, Difference]
    slices: list[SliceDifference]
    outcomes: list[PairedOutcome]
    emergency_regressions: list[int]
    safety_regressions: list[int]
    num_red_flag: int | None
    #: the baseline passed and the candidate failed, worst first; and the other way round
    regressions: list[Change]
    wins: list[Change]


class Curve(TypedDict):
    """What an RL run logged per rollout: mean reward seen by the policy and KL to the reference in nats per sequence."""

    rollout: list[int]
    reward: list[float | None]
    kl: list[float | None]


class EvaluationReport(TypedDict):
    """The whole report. `baseline` is a key of `versions`; `comparisons` has one entry per other version."""

    shape: int
    #: N of reports/rl_stage/eval_report_roundN.md; 0 in reports of the first shape
    round: int
    versions: dict[str, VersionReport]
    baseline: str
    comparisons: list[Comparison]
    #: samples with a danger sign that were asked; none are known in reports of the first shape
    red_flag: list[int]
    #: temperature, seed, max_new_tokens, batch_size ... as used for every version
    decoding: dict[str, Any]
    dataset: str
    #: the splits, joined by commas
    split: str
    splits: list[str]
    dataset_hash: str
    reward_config: str
    #: name of the teacher, "" when none was asked
    teacher: str
    teacher_is_offline: bool
    #: the index that facts were held against, "" without an active one
    index: str
    #: RL version -> what its run logged
    curves: dict[str, Curve]


def report_of(row: t.Evaluation) -> EvaluationReport:
    """The stored report as its type; a missing key of an older report gets an empty value."""
    stored = row.report
    split = stored.get("split", "")
    empty: dict[str, Any] = {
        "shape": 1, "round": 0, "versions": {}, "baseline": "", "comparisons": [], "red_flag": [], "decoding": {}, "dataset": "",
        "split": "", "splits": split.split(",") if split else [], "dataset_hash": "", "reward_config": row.config_version,
        "teacher": "", "teacher_is_offline": False, "index": "", "curves": {},
    }  # fmt: skip
    report = {**empty, **stored}
    measured = {"by_split": {}, "outcomes": {}, "slices": [], "kind": "", "content_hash": "", "completions": {}}
    report["versions"] = {name: {**measured, **version} for name, version in report["versions"].items()}
    report["comparisons"] = [_comparison(one, split) for one in report["comparisons"]]
    return cast(EvaluationReport, report)


def _comparison(stored: dict[str, Any], split: str) -> dict[str, Any]:
    lost = stored.get("emergency_regressions", [])
    empty: dict[str, Any] = {
        "ci_low": None, "ci_high": None, "p_value": None, "by_split": {}, "slices": [], "outcomes": [], "emergency_regressions": [],
        "safety_regressions": [], "num_red_flag": None, "wins": [],
    }  # fmt: skip
    if "regressions" not in stored:  # the first shape listed lost emergency advice only
        unknown = {"split": split, "is_red_flag": True, "outcomes": ["emergency"], "baseline_reward": None, "candidate_reward": None}
        empty["regressions"] = [{"sample_id": i, **unknown} for i in lost]
    return {**empty, **stored}


def evaluations(session: Session, *, limit: int = 200) -> list[t.Evaluation]:
    """Newest first."""
    return list(session.scalars(select(t.Evaluation).order_by(t.Evaluation.id.desc()).limit(limit)))


def get_evaluation(session: Session, evaluation_id: int) -> t.Evaluation:
    """The evaluation, or NotFound("evaluations.no_such_evaluation")."""
    row = session.get(t.Evaluation, evaluation_id)
    if row is None:
        raise NotFound("evaluations.no_such_evaluation", id=evaluation_id)
    return row


def name_in(report: EvaluationReport, version: t.ModelVersion) -> str | None:
    """Under which name the report measured these very weights; None when it did not.

    Its own name, unless that stood for other weights then (an earlier attempt of a job); else any name with the same hash of the
    weights: a package that was brought here under a new name is still what was measured.
    """
    hashes = {name: measured["content_hash"] for name, measured in report["versions"].items()}
    own = hashes.get(version.name)
    if own is not None and (not own or not version.content_hash or own == version.content_hash):
        return version.name
    return next((name for name, found in hashes.items() if found and found == version.content_hash), None)


def newest_covering(session: Session, *versions: t.ModelVersion) -> t.Evaluation | None:
    """The newest evaluation in which the weights of every one of these versions were measured."""
    for row in session.scalars(select(t.Evaluation).order_by(t.Evaluation.id.desc()).limit(500)):
        report = report_of(row)
        if all(name_in(report, version) for version in versions):
            return row
    return None


@dataclass(frozen=True, slots=True)
class Answered:
    """One prompt with what both versions wrote; an answer is None when the report did not keep it."""

    sample_id: int
    question: str
    language: str
    risk: str
    category: str
    baseline: str | None
    candidate: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list of evaluations."""

    id: int
    name: str
    round: int
    versions: tuple[str, ...]
    splits: tuple[str, ...]
    num_regressions: int
    job_id: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Rung:
    """One version on the ladder: its mean in the newest report that measured it, and its difference to that report's baseline."""

    version: str
    evaluation_id: int
    mean: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    baseline: str
    difference: float | None
    num_lost: int
    scope: str


def list_evaluations() -> list[Listed]:
    """Newest first."""
    with read_session() as session:
        return [_listed(row) for row in evaluations(session)]


def open_report(evaluation_id: int) -> EvaluationReport:
    """One report. Raises NotFound("evaluations.no_such_evaluation")."""
    with read_session() as session:
        return report_of(get_evaluation(session, evaluation_id))


def report_file(home: Home, evaluation_id: int, suffix: str) -> Path | None:
    """The report as a file, `suffix` .md or .json; None when it is gone. Raises NotFound("evaluations.no_such_evaluation")."""
    with read_session() as session:
        stored = get_evaluation(session, evaluation_id).report_path
    path = home.resolve(stored).with_suffix(suffix)
    return path if stored and path.is_file() else None


def ladder() -> list[Rung]:
    """Every version that was ever measured, best first, each by its newest report. Means of different prompts (`scope`) do not
    compare; the page says so."""
    found: dict[str, Rung] = {}
    with read_session() as session:
        for row in evaluations(session):
            report = report_of(row)
            scope = f"{report['dataset']} · {', '.join(report['splits'])}"
            against = {c["candidate"]: c for c in report["comparisons"]}
            for name, v in report["versions"].items():
                one = against.get(name)
                lost = len(one["emergency_regressions"]) + len(one["safety_regressions"]) if one else 0
                values = (v["mean"], v.get("ci_low"), v.get("ci_high"), v["n"])
                rung = Rung(name, row.id, *values, report["baseline"] if one else "", one["difference"] if one else None, lost, scope)
                found.setdefault(name, rung)
    return sorted(found.values(), key=lambda r: -2.0 if r.mean is None else r.mean, reverse=True)


def answers_of(report: EvaluationReport, comparison: Comparison, changes: list[Change]) -> list[Answered]:
    """The prompts of `changes`, in order, with the very answers that were measured; samples that are gone are left out."""
    versions = report["versions"]
    kept = [versions[n]["completions"] if n in versions else {} for n in (report["baseline"], comparison["candidate"])]
    found = []
    with read_session() as session:
        for change in changes:
            sample = session.get(t.Sample, change["sample_id"])
            if sample is not None:
                texts = [_answer(session, one.get(str(sample.id))) for one in kept]
                found.append(Answered(sample.id, sample.text, sample.language, sample.risk, sample.category, texts[0], texts[1]))
    return found


def _answer(session: Session, completion_id: int | None) -> str | None:
    row = session.get(t.Completion, completion_id) if completion_id is not None else None
    return row.answer if row else None


def _listed(row: t.Evaluation) -> Listed:
    report = report_of(row)
    lost = sum(len(c["emergency_regressions"]) + len(c["safety_regressions"]) for c in report["comparisons"])
    others = [name for name in report["versions"] if name != report["baseline"]]
    versions, splits = (report["baseline"], *others), tuple(report["splits"])
    return Listed(row.id, row.name, report["round"], versions, splits, lost, row.job_id, row.created_at)
