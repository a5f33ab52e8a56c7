"""teacher_judgements.jsonl out and in: verdicts that were paid for travel between homes, by key and without any patient's words.

A line holds the cache key, the verdict and hashes of prompt and completion; with the key alone the importing home finds the
verdict again when it asks about the same text with the same rubric. An import never replaces a verdict that is already there.
Called by the Teacher page and by `./run.sh teacher`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select

from core import audit
from core.models import require_role
from core.permit import permit
from core.records import Role
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

CHUNK = 500
HEX = r"^[0-9a-f]{64}$"


class Line(BaseModel):
    """One line of the file. Strict: a score as text or beyond its range is refused."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    key: str = Field(pattern=HEX)
    teacher: str = Field(min_length=1, max_length=200)
    rubric_version: str = Field(min_length=1, max_length=200)
    teacher_score: float = Field(ge=0, le=1, strict=True)
    safety_flag: bool | None = Field(default=None, strict=True)
    critique: str = ""
    suggested_answer: str | None = None
    prompt_hash: str = ""
    completion_hash: str = ""
    reported_model: str = Field(default="", max_length=200)
    fingerprint: str = Field(default="", max_length=200)
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cost_usd: float | None = Field(default=None, ge=0)
    latency_s: float | None = Field(default=None, ge=0)
    created_at: datetime | None = None


@dataclass(slots=True)
class Imported:
    """What an import did. `num_different`: already here with another verdict; ours stands. `bad_lines`: number and what is wrong."""

    num_new: int = 0
    num_known: int = 0
    num_different: int = 0
    num_bad: int = 0
    bad_lines: list[tuple[int, str]] = field(default_factory=list)


def export_lines(teacher: str = "", rubric_version: str = "") -> Iterator[str]:
    """All verdicts (of one teacher and rubric when named) as JSON lines, oldest first. They were scored; nothing else is kept."""
    last = 0
    while True:
        query = select(t.TeacherVerdict).where(t.TeacherVerdict.id > last).order_by(t.TeacherVerdict.id).limit(CHUNK)
        if teacher:
            query = query.where(t.TeacherVerdict.teacher == teacher)
        if rubric_version:
            query = query.where(t.TeacherVerdict.rubric_version == rubric_version)
        with read_session() as session:
            rows = list(session.scalars(query))
        for row in rows:
            values = {name: getattr(row, name) for name in Line.model_fields}
            yield Line(**values).model_dump_json() + "\n"
        if len(rows) < CHUNK:
            return
        last = rows[-1].id


def import_lines(lines: Iterable[str | bytes], *, by: int | None, name: str = "") -> Imported:
    """Add the verdicts of a file; `by` is an engineer or administrator (None: the command line). Raises Forbidden.

    A line that is not a verdict is counted and named, the others are taken.
    """
    permit("teacher.exchange.import_lines", by)
    done, chunk = Imported(), list[Line]()
    if by is not None:
        with read_session() as session:
            require_role(session.get(t.User, by), Role.ENGINEER, Role.ADMIN)
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        try:
            chunk.append(Line.model_validate_json(raw))
        except ValidationError as error:
            done.num_bad += 1
            if len(done.bad_lines) < 20:
                first = error.errors()[0]
                done.bad_lines.append((number, f"{'.'.join(map(str, first['loc']))} {first['msg']}".strip()))
        if len(chunk) == CHUNK:
            _store(chunk, done)
            chunk = []
    _store(chunk, done)
    counts = Counter({"new": done.num_new, "known": done.num_known, "different": done.num_different, "bad": done.num_bad})
    with write_session() as session:
        audit.record(session, "import_teacher_verdicts", "teacher_verdicts", name or "-", actor_id=by, detail=dict(counts))
    return done


def _store(chunk: list[Line], done: Imported) -> None:
    if not chunk:
        return
    with write_session() as session:
        query = select(t.TeacherVerdict).where(t.TeacherVerdict.key.in_([line.key for line in chunk]))
        known = {row.key: (row.teacher_score, row.safety_flag) for row in session.scalars(query)}
        for line in chunk:
            if line.key in known:
                done.num_known += 1
                done.num_different += known[line.key] != (line.teacher_score, line.safety_flag)
                continue
            values = line.model_dump(exclude={"created_at"})
            at = line.created_at if line.created_at and line.created_at.tzinfo else utc_now()
            session.add(t.TeacherVerdict(**values, source="imported", created_at=at))
            known[line.key] = (line.teacher_score, line.safety_flag)
            done.num_new += 1
