"""Ladders as people read them: the list, one report, single questions with their rankings, corrected failures, the decision.

A correction stands beside the automatic category with who and when; the newest counts, in the figures and in the decision.
Called by pages/retrieval.py, app/retrieval_commands.py and the monthly re-validation.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit, retrieval_trials
from core.errors import NotFound, UserError
from core.home import current_home
from core.jobs import schedules
from core.models import require_role
from core.permit import permit
from core.records import Role
from core.retrieval.decision import Decision, Facts, Prices, decide
from core.retrieval.failures import CATEGORIES
from core.retrieval.index import open_index
from core.retrieval.ladder import Report
from core.retrieval_use import asked, judged_questions, satisfaction
from db import tables as t
from db.engine import read_session, write_session

MONTHLY, WEEKLY = "0 3 1 * *", "0 2 * * 1"
CORRECTORS = (Role.CLINICIAN, Role.ENGINEER, Role.PRODUCT, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list of ladders."""

    id: int
    name: str
    index_name: str
    source: str
    num_queries: int
    best_leg: str
    chosen: float | None
    job_id: int | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person said about a failure."""

    category: str
    note: str
    who: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Failed:
    """A question that failed, with the automatic category, its reason, and the newest correction."""

    query_id: str
    text: str
    automatic: str
    reason: str
    params: dict[str, Any]
    rank: int | None
    correction: Correction | None

    @property
    def category(self) -> str:
        return self.correction.category if self.correction else self.automatic


def listing() -> list[Listed]:
    """Newest first."""
    with read_session() as session:
        rows = session.scalars(select(t.RetrievalEvaluation).order_by(t.RetrievalEvaluation.id.desc()).limit(200))
        return [
            Listed(
                r.id, r.name, r.index_name, r.report["source"], r.report["num_queries"], r.report["best_leg"],
                r.report["chosen"][r.report["main"]]["mean"], r.job_id, r.created_at,
            )
            for r in rows if r.report
        ]  # fmt: skip


def open_report(evaluation_id: int) -> Report:
    """One report. Raises NotFound("retrieval.no_such_evaluation")."""
    with read_session() as session:
        return cast(Report, _get(session, evaluation_id).report)


def questions(evaluation_id: int) -> list[dict[str, Any]]:
    """Every question with values and rankings per rung (training.evaluate_retrieval.write_questions); empty when the file is gone."""
    with read_session() as session:
        path = current_home().resolve(_get(session, evaluation_id).report_path) / "questions.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def changes(rows: Iterable[dict[str, Any]], before: str, after: str) -> list[dict[str, Any]]:
    """Questions whose value differs between two rungs, with `delta`, worst losses first."""
    found = []
    for row in rows:
        a, b = row["values"].get(before), row["values"].get(after)
        if a is not None and b is not None and abs(b - a) > 1e-9:
            found.append({**row, "delta": b - a})
    return sorted(found, key=lambda row: (row["delta"], row["id"]))


def passage_texts(evaluation_id: int, numbers: Iterable[int]) -> dict[int, str]:
    """Chunk number -> title and text, as far as the measured index is still there."""
    with read_session() as session:
        row = _get(session, evaluation_id)
        version = session.get(t.SearchIndex, row.index_id) if row.index_id else None
        path = version.path if version else str(Path(row.report_path) / "index")
    try:
        index = open_index(current_home().resolve(path))
    except UserError:
        return {}
    found = {}
    for number in set(numbers):
        try:
            chunk = index.chunk(number)
        except KeyError:
            continue
        found[number] = " · ".join(filter(None, [chunk.title, chunk.section, chunk.text]))
    return found


def failed(evaluation_id: int) -> list[Failed]:
    """Every failed question, in the order of the set."""
    with read_session() as session:
        corrections: dict[str, Correction] = {}
        query = (
            select(t.RetrievalCorrection, t.User.display_name)
            .join(t.User, t.User.id == t.RetrievalCorrection.user_id)
            .where(t.RetrievalCorrection.evaluation_id == evaluation_id)
            .order_by(t.RetrievalCorrection.id)
        )
        for row, who in session.execute(query):
            corrections[row.query_id] = Correction(row.category, row.note, who, row.created_at)
    return [
        Failed(q["id"], q["text"], f["category"], f["reason"], f["params"], f["rank"], corrections.get(q["id"]))
        for q in questions(evaluation_id)
        if (f := q["failure"])
    ]


def correct(user_id: int, evaluation_id: int, query_id: str, category: str, note: str = "") -> None:
    """Say what a failure really was. Raises Forbidden, UserError("retrieval.bad_category"), NotFound("retrieval.no_such_failure")."""
    permit("retrieval_reports.correct", user_id)
    if category not in CATEGORIES:
        raise UserError("retrieval.bad_category", category=category)
    before = next((one for one in failed(evaluation_id) if one.query_id == query_id), None)
    if before is None:
        raise NotFound("retrieval.no_such_failure", id=query_id)
    with write_session() as session:
        require_role(session.get(t.User, user_id), *CORRECTORS)
        row = t.RetrievalCorrection(evaluation_id=evaluation_id, query_id=query_id, category=category, user_id=user_id, note=note.strip())
        session.add(row)
        session.flush()
        detail = {"evaluation": evaluation_id, "question": query_id, "before": before.category, "after": category}
        audit.record(session, "correct_failure", "retrieval_correction", row.id, actor_id=user_id, detail=detail, reason=note.strip())


def decision_of(evaluation_id: int, prices: Prices | None = None, num_pairs: int | None = None) -> Decision:
    """Should the encoder be fine-tuned, by this ladder, its failures as corrected, and what people said about the index."""
    report = open_report(evaluation_id)
    with read_session() as session:
        name = _get(session, evaluation_id).index_name
        encoder = session.scalar(select(t.RetrievalModel).where(t.RetrievalModel.name == report["encoder"]))
    use = satisfaction(asked(name)) if name else None
    causes = Counter(one.category for one in failed(evaluation_id)) if questions(evaluation_id) else Counter(report["failures"])
    names = {stage["name"] for stage in report["stages"]}
    team = len(judged_questions(name).questions) if name and num_pairs is None else num_pairs
    facts = Facts(
        metrics={metric: value["mean"] for metric, value in report["chosen"].items()},
        num_queries=report["num_queries"],
        failures=dict(causes),
        satisfaction=use.score if use else None,
        failure_rate=sum(causes.values()) / report["num_queries"] if report["num_queries"] else None,
        issue_rate=use.issue_rate if use else None,
        num_pairs=team,
        has_reranker="rerank" in names,
        has_doc2query="doc2query" in names,
        is_encoder_local=None if not report["encoder"] else encoder is None or encoder.form != "api",
        has_frozen_set=report["num_queries"] > 0,
        has_rollback=True if name and any(one.status == retrieval_trials.PROMOTED for one in retrieval_trials.listing(name)) else None,
        queries_needed=report["queries_needed"],
    )
    return decide(facts, report["thresholds"], prices)


def drift(evaluation_id: int) -> dict[str, float] | None:
    """Metric -> change against the ladder before it on the very same questions of the same index; None when there is none."""
    with read_session() as session:
        row = _get(session, evaluation_id)
        mine = t.RetrievalEvaluation
        older = session.scalars(select(mine).where(mine.index_name == row.index_name, mine.id < row.id).order_by(mine.id.desc()).limit(50))
        before = next((one for one in older if one.report.get("set_hash") == row.report.get("set_hash")), None)
        if before is None:
            return None
        pairs = {m: (before.report["chosen"][m]["mean"], value["mean"]) for m, value in row.report["chosen"].items()}
    return {metric: b - a for metric, (a, b) in pairs.items() if a is not None and b is not None}


def revalidate_monthly(user_id: int, index_name: str, config: dict[str, Any]) -> None:
    """Measure again on the first of every month, and learn every Monday. Raises Forbidden, UserError for a bad config."""
    with write_session() as session:
        require_role(session.get(t.User, user_id), Role.ENGINEER, Role.ADMIN)
        schedules.put(session, f"retrieval of {index_name}: re-validation", "evaluate_retrieval", config, MONTHLY, by=user_id)
        schedules.put(session, f"retrieval of {index_name}: learning", "learn_retrieval", {"index": index_name}, WEEKLY, by=user_id)


def scheduled(index_name: str) -> list[tuple[str, datetime | None]]:
    """The schedules of an index with their next times."""
    with read_session() as session:
        rows = schedules.listed(session)
        return [(row.name, row.next_at) for row in rows if row.is_active and row.name.startswith(f"retrieval of {index_name}:")]


def _get(session: Session, evaluation_id: int) -> t.RetrievalEvaluation:
    row = session.get(t.RetrievalEvaluation, evaluation_id)
    if row is None:
        raise NotFound("retrieval.no_such_evaluation", id=evaluation_id)
    return row
