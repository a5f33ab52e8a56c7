"""Rows for training and evaluating expanders, and the evaluations that were made: the list, one report, its outputs.

A set is split by family, so that no paraphrase of a test query was trained on. A stored set brings its own split; a file is split by
`core.expansion.families`, whatever order its rows have, the same in every run: 80 % train, 10 % val, 10 % test.
Called by the expansion trainings, the commands and pages/expansion.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from sqlalchemy import select

from core.errors import NotFound, UserError
from core.expansion import families, schema
from core.expansion.schema import Line, Row
from core.home import Home, current_home
from db import tables as t
from db.engine import read_session, write_session

SPLITS = ("train", "val", "test")
REPORT = "expansion_report.json"


class Output(TypedDict):
    """One query's answer with its score. `grounded` is None where no relevant passage is known; recalls are None likewise."""

    query: str
    language: str
    slices: dict[str, str]
    output: str
    finished: bool
    valid: bool
    num_lines: int
    num_bad: int
    reward: float
    rubric: float
    points: float
    maximum: int
    rating: str
    grounded: float | None
    dimensions: dict[str, float]
    deductions: NotRequired[list[dict[str, Any]]]
    recall_plain: float | None
    recall_expanded: float | None


class Mean(TypedDict):
    """A mean over queries with its 95 % bootstrap interval; None without a value."""

    n: int
    mean: float | None
    ci_low: float | None
    ci_high: float | None


class Slice(Mean):
    by: str
    value: str


class Retrieval(TypedDict):
    """recall@10 with the plain query and with its expansion, and the paired gain."""

    n: int
    plain: float
    expanded: float
    gain: Mean


class Summary(TypedDict):
    """One expander on the queries. `drift`: mean KL to `drift_from`, nats per token of its own outputs; None when not measured."""

    reward: Mean
    rubric: Mean
    grounded: Mean
    valid_outputs: int
    valid_lines: float | None
    finished: int
    ratings: dict[str, int]
    dimensions: dict[str, float]
    slices: list[Slice]
    by_language: dict[str, Retrieval]
    retrieval: Retrieval | None
    drift: float | None
    drift_from: str
    seconds: float


class Evaluated(TypedDict):
    summary: Summary
    outputs: list[Output]


class Report(TypedDict):
    """What training.expansion_evaluate writes."""

    name: str
    source: str
    corpus: str
    queries_hash: str
    settings: dict[str, Any]
    models: dict[str, Evaluated]


@dataclass(frozen=True, slots=True)
class Listed:
    """One evaluation in the list."""

    id: int
    name: str
    source: str
    num_queries: int
    queries_hash: str
    summary: Mapping[str, Any]
    job_id: int | None
    created_at: datetime


def rows_of(data: str, splits: Collection[str], home: Home | None = None) -> list[Row]:
    """The rows of a stored set (those kept) or of a file, of the given splits. Empty when a split has none.

    Raises NotFound("expansion_training.no_such_data") and as `schema.read_rows`.
    """
    stored = _stored(data, splits)
    if stored is not None:
        return stored
    path = (home or current_home()).root / Path(data).expanduser()
    if not path.is_file():
        raise NotFound("expansion_training.no_such_data", data=data)
    rows = schema.read_rows(path)
    return [row for row, split in zip(rows, splits_of(rows), strict=True) if split in splits]


def _stored(name: str, splits: Collection[str]) -> list[Row] | None:
    """Rows without a split (none was drawn, or they came later) are split as a file is."""
    with read_session() as session:
        found = session.scalar(select(t.ExpansionSet).where(t.ExpansionSet.name == name))
        if found is None:
            return None
        query = select(t.ExpansionRow).where(t.ExpansionRow.set_id == found.id, t.ExpansionRow.status == "kept")
        kept = list(session.scalars(query.order_by(t.ExpansionRow.number)))
    rows = [
        Row(one.query, tuple(Line(kind, text) for kind, text in one.lines), one.language or None, one.family or None,
            one.source or None, one.number, one.extra)
        for one in kept
    ]  # fmt: skip
    given = [one.split or "" for one in kept]
    drawn = given if all(given) else splits_of(rows, given)
    return [row for row, split in zip(rows, drawn, strict=True) if split in splits]


def splits_of(rows: Sequence[Row], given: Sequence[str] = ()) -> list[str]:
    """ "train", "val" or "test" per row; wordings of one question share theirs. `given`: splits that stand already ("" for none); a row
    without one takes that of its family."""
    groups = families.families(rows)
    known = {group: split for group, split in zip(groups, given, strict=False) if split}
    drawn = families.split(rows, groups=groups)
    mine = list(given) or [""] * len(rows)
    return [mine[i] or known.get(group, drawn[i]) for i, group in enumerate(groups)]


def queries_of(source: str, limit: int, home: Home | None = None) -> list[Row]:
    """Queries to evaluate on: the test split of a set or file of rows, or every line of a text file; each query once.

    Raises UserError("expansion_training.no_queries") and as `rows_of`.
    """
    path = (home or current_home()).root / Path(source).expanduser()
    if path.is_file() and path.suffix != ".jsonl":
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = [Row(line.strip(), (), number=n) for n, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    else:
        rows = rows_of(source, ("test",), home) or rows_of(source, SPLITS, home)
    once = list({row.query: row for row in rows}.values())
    if not once:
        raise UserError("expansion_training.no_queries", source=source)
    # a fixed choice that does not depend on the order of the file
    once.sort(key=lambda row: hashlib.sha256(row.query.encode()).digest())
    return once[: limit or None]


def read_outputs(path: Path) -> list[tuple[str, str]]:
    """(query, output) of every line of a file of existing outputs; output may be text or a list of [kind, text].

    Raises UserError("expansion_training.bad_output_line") with the line.
    """
    found = []
    if not path.is_file():
        raise NotFound("expansion_training.no_such_data", data=path)
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            output = row["output"]
            text = output if isinstance(output, str) else "\n".join(f"{kind}: {text}" for kind, text in output)
            found.append((str(row["query"]), text))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError("expansion_training.bad_output_line", file=path.name, line=number) from error
    if not found:
        raise UserError("expansion_training.no_queries", source=path.name)
    return found


def queries_hash(queries: Sequence[str]) -> str:
    """The same for the same queries in any order."""
    return hashlib.sha256("\n".join(sorted(queries)).encode()).hexdigest()


def store(report: Report, path: Path, job_id: int, home: Home) -> int:
    """Write the report file and its row; returns the id."""
    path.write_text(json.dumps(report, ensure_ascii=False), encoding="utf-8")
    summary = {
        name: {"reward": one["summary"]["reward"], "valid_lines": one["summary"]["valid_lines"], "retrieval": one["summary"]["retrieval"]}
        for name, one in report["models"].items()
    }
    number = len(next(iter(report["models"].values()))["outputs"])
    with write_session() as session:
        row = t.ExpansionEvaluation(
            name=report["name"],
            source=report["source"],
            num_queries=number,
            queries_hash=report["queries_hash"],
            path=home.relative(path),
            summary=summary,
            job_id=job_id or None,
        )
        session.add(row)
        session.flush()
        return row.id


def listing() -> list[Listed]:
    """Evaluations, newest first."""
    with read_session() as session:
        rows = session.scalars(select(t.ExpansionEvaluation).order_by(t.ExpansionEvaluation.id.desc()))
        return [Listed(r.id, r.name, r.source, r.num_queries, r.queries_hash, r.summary, r.job_id, r.created_at) for r in rows]


def open_report(evaluation_id: int, home: Home | None = None) -> Report:
    """Raises NotFound("expansion_training.no_such_evaluation" / "expansion_training.report_missing")."""
    with read_session() as session:
        row = session.get(t.ExpansionEvaluation, evaluation_id)
    if row is None:
        raise NotFound("expansion_training.no_such_evaluation", id=evaluation_id)
    path = (home or current_home()).resolve(row.path)
    if not path.is_file():
        raise NotFound("expansion_training.report_missing", path=row.path)
    return cast(Report, json.loads(path.read_text(encoding="utf-8")))


def versions() -> list[tuple[str, str]]:
    """(name, kind) of the model versions that expand queries, newest first."""
    with read_session() as session:
        query = select(t.ModelVersion).where(t.ModelVersion.task == "expansion").order_by(t.ModelVersion.id.desc())
        return [(row.name, row.kind) for row in session.scalars(query)]
