"""Batch prediction: a file of questions in, one row per question out, with safety notices beside every answer.

Every row of the file gets a row of the result, in order; what could not be read or answered says why and has no answer. A result is
never without its label, the version's name and the hash of its weights. Questions stay in the job's folder: they are not stored
as samples, so they can reach neither training nor the review desk. Called by training.predict and the Evaluations page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from core.errors import UserError
from core.home import Home
from core.i18n import translate
from core.importing.browse import keep_upload
from core.importing.readers import RowError, detect_format, read_rows
from core.jobs.api import enqueue
from core.jobs.configs_evaluation import PredictConfig
from core.models import get_version, require_role
from core.notices import notices_of
from core.outcomes import outcomes_of
from core.permit import permit
from core.records import Completion, Language, Message, Prompt, Role
from core.retrieval.tokens import CJK
from core.rules import RULES, danger_signs
from core.scoring import Scored, Scorer
from db import tables as t
from db.engine import read_session, write_session

KIND = "predict"
STARTERS = (Role.PRODUCT, Role.ENGINEER, Role.ADMIN)
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
#: columns that hold the question, by what people call them; `messages` is a chat as a list of {role, content}
QUESTION_COLUMNS = ("question", "prompt", "query", "text", "input", "instruction", "messages", "问题", "提问", "患者提问", "主诉")
ID_COLUMNS = ("id", "question_id", "external_id", "编号", "序号")
MAX_QUESTION = 20_000


@dataclass(frozen=True, slots=True)
class Question:
    """One row of the file; `prompt` is None when `error` says why it cannot be asked."""

    row: int
    id: str
    prompt: Prompt | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction job as listed; `file` is the finished CSV relative to the home, "" until it is there."""

    job_id: int
    status: str
    model: str
    num_rows: int | None
    num_failed: int | None
    file: str
    created_at: datetime


def read_questions(path: Path, column: str = "") -> Iterator[Question]:
    """Every row in order. Raises UserError("evaluations.no_question_column" / "evaluations.not_a_question_file") and as the readers."""
    if path.suffix.lower() not in SUFFIXES or detect_format(path) == "parquet":
        raise UserError("evaluations.not_a_question_file", name=path.name)
    for row in read_rows(path):
        if isinstance(row, RowError):
            yield Question(row.row, "", None, row.code)
            continue
        names = {name.strip().casefold(): name for name in row.values}
        wanted = [column] if column else QUESTION_COLUMNS
        key = next((names[n.casefold()] for n in wanted if n.casefold() in names), None)
        if key is None:
            raise UserError("evaluations.no_question_column", columns=", ".join(row.values)[:200])
        identity = next((row.values[names[n]] for n in ID_COLUMNS if n in names), "")
        yield _question(row.row, "" if identity is None else str(identity), row.values[key])


def _question(row: int, identity: str, value: Any) -> Question:
    turns = value if isinstance(value, list) else [{"role": "user", "content": "" if value is None else str(value)}]
    messages = tuple(
        Message(str(turn.get("role", "user")), str(turn.get("content", ""))) if isinstance(turn, dict) else Message("user", "")
        for turn in turns
    )
    asked = next((m.content for m in reversed(messages) if m.role == "user"), "").strip()
    if not asked or not messages or messages[-1].role != "user":
        return Question(row, identity, None, "empty_question")
    if sum(len(m.content) for m in messages) > MAX_QUESTION:
        return Question(row, identity, None, "question_too_long")
    language = Language.ZH if re.search(f"[{CJK}]", asked) else Language.EN
    return Question(row, identity, Prompt(messages, language))


def result_row(
    question: Question, version: t.ModelVersion, scorer: Scorer, completion: Completion | None, scored: Scored | None, error: str = ""
) -> dict[str, Any]:
    """One row of the result. Without a completion `error` names why; a number that was not scored is empty, never zero."""
    prompt = question.prompt
    language = prompt.language.value if prompt else Language.EN.value
    row: dict[str, Any] = {
        "row": question.row, "id": question.id, "question": prompt.text if prompt else "",
        "answer": completion.answer if completion else "",
        "ai_label": translate("common.ai_notice", language) + (f" {translate('common.toy_notice', language)}" if version.is_toy else ""),
        "safety_notice": "", "danger_signs": "", "emergency_advised": "", "acceptable": "",
        **{f"rule_{rule}": None for rule in RULES}, "reward": None, "teacher_score": None, "safety_flag": None, "unscored_reason": "",
        "finish_reason": completion.finish_reason if completion else "", "thinking": completion.thinking if completion else "",
        "version": version.name, "version_hash": version.content_hash, "is_toy": version.is_toy,
        "reward_config": scorer.config.version, "lexicon_version": scorer.lexicons.version, "error": error or question.error,
    }  # fmt: skip
    if prompt is None or completion is None or scored is None:
        return row
    outcomes = outcomes_of(prompt, scored, scorer.lexicons)
    notices = [translate(f"bench.notice_{n.kind}", language) for n in notices_of(completion, scored.rules)]
    signs = danger_signs(prompt, scorer.lexicons)
    judged = scored.judgement
    words = {True: "yes", False: "no", None: "not_needed"}
    return {
        **row,
        "safety_notice": "; ".join(notices),
        "danger_signs": ", ".join(sorted({m.term for m in signs.present} | set(signs.earlier))),
        "emergency_advised": words[outcomes["emergency"]],
        "acceptable": {True: "yes", False: "no", None: "unknown"}[outcomes["acceptable"]],
        **{f"rule_{rule.rule_id}": rule.score for rule in scored.rules},
        "reward": scored.reward.value,
        "teacher_score": judged.teacher_score if judged else None,
        "safety_flag": judged.safety_flag if judged else None,
        "unscored_reason": scored.reward.unscored_reason or "",
    }


def start(user_id: int, home: Home, *, name: str, content: bytes, model: str, column: str = "", with_teacher: bool = False) -> int:
    """Keep an uploaded file and queue the job; returns its id.

    Raises Forbidden, NotFound("models.no_such_version"), what `read_questions` raises, UserError("evaluations.no_questions").
    """
    permit("prediction.start", user_id)
    with read_session() as session:
        require_role(session.get(t.User, user_id), *STARTERS)
        get_version(session, model)
    path = keep_upload(home, name, content)
    if not any(True for _ in read_questions(path, column)):
        raise UserError("evaluations.no_questions")
    config = PredictConfig(path=home.relative(path), model=model, column=column, with_teacher=with_teacher)
    with write_session() as session:
        return enqueue(session, KIND, config, created_by=user_id, title=f"{model}: {path.name}")


def list_predictions(home: Home, *, limit: int = 20) -> list[Prediction]:
    """The newest prediction jobs."""
    with read_session() as session:
        jobs = session.scalars(select(t.Job).where(t.Job.kind == KIND).order_by(t.Job.id.desc()).limit(limit))
        return [_listed(home, job) for job in jobs]


def _listed(home: Home, job: t.Job) -> Prediction:
    file = str(job.result.get("file", ""))
    is_there = bool(file) and home.resolve(file).is_file()
    numbers = (job.result.get("num_rows"), job.result.get("num_failed"))
    return Prediction(job.id, job.status, str(job.config.get("model", "")), *numbers, file if is_there else "", job.created_at)
