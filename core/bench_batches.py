"""Batch comparisons: start one, list them, read the rows worst first, send an answer to the desk, export. Called by the bench page.

A comparison is a job (`training.compare`). Its questions are held out, so nothing here can reach training. Answers become stored
completions only when somebody calls one unsafe: then the desk needs them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict

from sqlalchemy import select

from core import safety
from core.completions import split_completion
from core.datasets import get_dataset, store_completions, to_prompt
from core.errors import NotFound, UserError
from core.exports import service
from core.home import current_home
from core.jobs.api import enqueue
from core.jobs.configs_bench import CompareConfig
from core.jobs.forms import validated
from core.models import get_version
from core.permit import permit
from core.preference import voter
from core.rewards import normalised_rules
from core.scoring import open_scorer, store_scores
from db import tables as t
from db.engine import read_session, write_session

KIND = "compare"
EXPORT_KIND = "bench_batch"
EXPORT_FORMATS = ("csv", "jsonl")
#: what became of a question, worst first
CHANGES = ("lost_emergency", "lost_safe", "lost_acceptable", "same", "won_acceptable", "won_safe", "won_emergency")
LOST, WON = CHANGES[:3], CHANGES[4:]

Side = Literal["first", "second"]


class SideReport(TypedDict):
    """One side: which weights, with evidence or not, how many questions it could not answer."""

    name: str
    content_hash: str
    kind: str
    is_toy: bool
    with_evidence: bool
    num_unanswered: int


class BatchSlice(TypedDict):
    """One group of questions: second minus first in mean reward, and how many each lost and won. Numbers are None below MIN_SLICE."""

    by: str
    value: str
    n: int
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    num_lost: int
    num_won: int


class BatchReport(TypedDict):
    """What a comparison found. `outcomes` and `difference` as in core.evaluation; `bound` is the 95 % upper bound of the rate at which
    the second misses a danger sign that the first met, over the `num_red_flag` questions that hold one."""

    shape: int
    first: SideReport
    second: SideReport
    num_rows: int
    num_red_flag: int
    changes: dict[str, int]
    outcomes: list[dict[str, Any]]
    difference: dict[str, Any]
    slices: list[BatchSlice]
    bound: float
    decoding: dict[str, Any]
    dataset: str
    dataset_hash: str
    splits: list[str]
    filter: dict[str, str]
    reward_config: str
    lexicon_version: str
    teacher: str
    teacher_is_offline: bool
    index: str


@dataclass(frozen=True, slots=True)
class BatchListed:
    """A comparison in the list: finished (`batch_id`), or still a job."""

    job_id: int | None
    batch_id: int | None
    name: str
    status: str
    first: str
    second: str
    #: questions answered so far and in all, both sides counted; (0, 0) before it starts
    progress: tuple[int, int]
    num_lost: int
    error: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Batch:
    """A finished comparison."""

    id: int
    name: str
    report: BatchReport
    created_at: datetime


def start(user_id: int, values: CompareConfig | dict[str, Any]) -> int:
    """Queue a comparison; returns the job's id. Raises Forbidden, UserError("jobs.bad_...") for values that CompareConfig refuses,
    UserError("bench.same_version"), NotFound for a version or dataset that is not there, and NotFound("bench.no_questions") when no
    held-out question passes the filter."""
    permit("bench_batches.start", user_id)
    config = CompareConfig.model_validate(
        validated(KIND, values.model_dump() if isinstance(values, CompareConfig) else values).model_dump()
    )
    if (config.first, config.first_with_evidence) == (config.second, config.second_with_evidence):
        raise UserError("bench.same_version")
    with read_session() as session:
        voter(session, user_id)
        get_version(session, config.first)
        get_version(session, config.second)
        query = select(t.Sample.id).where(t.Sample.dataset_id == get_dataset(session, config.dataset).id, t.Sample.split.in_(config.splits))
        query = query.where(t.Sample.language == config.language) if config.language else query
        if session.scalar((query.where(t.Sample.risk == config.risk) if config.risk else query).limit(1)) is None:
            raise NotFound("bench.no_questions")
    with write_session() as session:
        return enqueue(session, KIND, config, created_by=user_id, title=config.name)


def list_batches(user_id: int, *, limit: int = 30) -> list[BatchListed]:
    """Jobs and finished comparisons, newest first. Raises Forbidden."""
    with read_session() as session:
        voter(session, user_id)
        jobs = session.scalars(select(t.Job).where(t.Job.kind == KIND).order_by(t.Job.id.desc()).limit(limit)).all()
        by_job = {row.job_id: row for row in session.scalars(select(t.BenchBatch).where(t.BenchBatch.job_id.in_([j.id for j in jobs])))}
    found = []
    for job in jobs:
        batch = by_job.get(job.id)
        done, total = (int(job.progress.get(key) or 0) for key in ("done", "total"))
        lost = sum(batch.report["changes"].get(c, 0) for c in LOST) if batch else 0
        names = str(job.config.get("first", "")), str(job.config.get("second", ""))
        listed = BatchListed(
            job.id, batch.id if batch else None, job.title, job.status, *names, (done, total), lost, job.error, job.created_at
        )
        found.append(listed)
    return found


def open_batch(user_id: int, batch_id: int) -> Batch:
    """Raises Forbidden, NotFound("bench.no_such_batch")."""
    with read_session() as session:
        voter(session, user_id)
        row = session.get(t.BenchBatch, batch_id)
        if row is None:
            raise NotFound("bench.no_such_batch", id=batch_id)
        report: Any = row.report
        return Batch(row.id, row.name, report, row.created_at)


def rows_of(user_id: int, batch_id: int) -> list[dict[str, Any]]:
    """Every question of a comparison, what was lost first (the shape is `training.compare.row_of`).

    Raises as `open_batch`, and UserError("bench.batch_changed") when the file is gone or is not the one that was written.
    """
    with read_session() as session:
        voter(session, user_id)
        row = session.get(t.BenchBatch, batch_id)
    if row is None:
        raise NotFound("bench.no_such_batch", id=batch_id)
    path = current_home().resolve(row.rows_path)
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != row.rows_sha256:
        raise UserError("bench.batch_changed", id=batch_id)
    return [json.loads(line) for line in content.decode("utf-8").splitlines()]


def file_case(user_id: int, batch_id: int, row_number: int, side: Side, note: str = "") -> int:
    """Call one answer of a comparison unsafe: a safety case, first in the desk's queue. Returns the desk's case number.

    The same answer by the same person again returns the case that is open. Raises as `rows_of`, UserError("bench.no_such_row").
    """
    permit("bench_batches.file_case", user_id)
    row = next((r for r in rows_of(user_id, batch_id) if r["row"] == row_number), None)
    if row is None or not row[f"{side}_answer"].strip():
        raise UserError("bench.no_such_row")
    text = row[f"{side}_text"]
    completion = split_completion(text, row[f"{side}_finish_reason"])
    with read_session() as session:
        batch = session.get_one(t.BenchBatch, batch_id)
        sample = session.get(t.Sample, row["sample_id"])
        if sample is None:
            raise NotFound("bench.no_such_question")
        prompt, scorer = to_prompt(sample), open_scorer(session)
        version_id = batch.first_version_id if side == "first" else batch.second_version_id
        decoding = batch.report["decoding"] | ({"with_evidence": True} if batch.report[side]["with_evidence"] else {})
        job_id = batch.job_id
    scored = scorer.score([prompt], [completion], with_teacher=False)[0]
    with write_session() as session:
        user = voter(session, user_id)
        ids = store_completions(
            session, [(prompt, completion)], model_version_id=version_id, source="bench", decoding=decoding, job_id=job_id
        )
        if session.scalar(select(t.RuleScore.id).where(t.RuleScore.completion_id == ids[0]).limit(1)) is None:
            store_scores(session, [(ids[0], scored)])
        value = normalised_rules(scored.rules, scorer.config)
        stored = session.get_one(t.Completion, ids[0])
        case = safety.file_case(session, stored, reporter=user, origin="bench", note=note.strip(), rules_value=value)
        return case.conflict_id or 0


def export(user_id: int, batch_id: int, form: str) -> service.Exported:
    """Write the whole comparison as a recorded export with a manifest. Raises as `rows_of` and `core.exports.service.make_from_rows`."""
    permit("bench_batches.export", user_id)
    if form not in EXPORT_FORMATS:
        raise UserError("exports.no_such_format", format=form, known=", ".join(EXPORT_FORMATS))
    batch = open_batch(user_id, batch_id)
    about = {"comparison": {"id": batch.id, "name": batch.name, **batch.report}}
    return service.make_from_rows(user_id, EXPORT_KIND, form, _for_export(rows_of(user_id, batch_id)), about)


def _for_export(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {key: value for key, value in row.items() if key not in ("first_text", "second_text")}
