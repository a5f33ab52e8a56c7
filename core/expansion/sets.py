"""Stored sets of expansions: import, list, page through, fix or reject a row with a reason, split, export.

Every change of a row is an edit (who, why, before, after) and an entry of the audit chain in the same transaction. Rows are never
deleted; a rejected row stays with its reason and is not trained on. Called by pages/expansion_data.py, the CLI and training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.orm import Session

from core import audit
from core.errors import Conflicting, NotFound, UserError
from core.expansion import families, reward, schema
from core.expansion.schema import Line, Row
from core.models import check_role
from core.privacy_doors import screen_texts
from core.records import Role
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

ENGINEERS = (Role.ENGINEER, Role.ADMIN)
EDITORS = (Role.CLINICIAN, Role.ENGINEER, Role.ADMIN)

BLOCK = 1000
Order = Literal["number", "rubric"]


@dataclass(frozen=True, slots=True)
class Listed:
    id: int
    name: str
    source: str
    num_rows: int
    num_rejected: int
    num_edits: int
    mean_rubric: float | None
    splits: dict[str, int]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """One row with its state."""

    id: int
    row: Row
    status: str
    split: str | None
    rubric: float | None
    num_edits: int


@dataclass(frozen=True, slots=True)
class Edit:
    kind: str
    reason: str
    before: dict[str, Any]
    after: dict[str, Any]
    by: str
    at: datetime


def store(name: str, rows: Sequence[Row], *, source: str, by: int | None, card: dict[str, Any] | None = None) -> int:
    """A new set; its id. Raises UserError("expansion.name_empty" / "expansion.empty_set"), Conflicting("expansion.name_taken")."""
    check_role(by, *ENGINEERS)
    name = name.strip()
    if not name:
        raise UserError("expansion.name_empty")
    if not rows:
        raise UserError("expansion.empty_set", name=name)
    rows, card = _screened(rows, by, card or {})
    values = [_values(number, row) for number, row in enumerate(rows, 1)]
    with write_session() as session:
        if session.scalar(select(t.ExpansionSet.id).where(t.ExpansionSet.name == name)):
            raise Conflicting("expansion.name_taken", name=name)
        made = t.ExpansionSet(name=name, source=source, card=card or {}, created_by=by)
        session.add(made)
        session.flush()
        for start in range(0, len(values), BLOCK):
            session.execute(insert(t.ExpansionRow), [{"set_id": made.id, **value} for value in values[start : start + BLOCK]])
        audit.record(session, "expansion.import", "expansion_set", made.id, actor_id=by, detail={"name": name, "rows": len(rows)})
        return made.id


def listing() -> list[Listed]:
    """All sets, newest first."""
    r = t.ExpansionRow
    with read_session() as session:
        counts: dict[int, dict[str, Any]] = {}
        grouped = select(r.set_id, r.status, r.split, func.count(), func.sum(r.rubric), func.sum(r.num_edits)).group_by(
            r.set_id, r.status, r.split
        )
        for set_id, status, split, num, total, edits in session.execute(grouped):
            one = counts.setdefault(set_id, {"rows": 0, "rejected": 0, "edits": 0, "sum": 0.0, "splits": {}})
            one["rows"] += num
            one["edits"] += edits or 0
            if status == "rejected":
                one["rejected"] += num
            else:
                one["sum"] += total or 0.0
                one["splits"][split or ""] = one["splits"].get(split or "", 0) + num
        found = []
        for s in session.scalars(select(t.ExpansionSet).order_by(t.ExpansionSet.id.desc())):
            one = counts[s.id]
            kept = one["rows"] - one["rejected"]
            mean = one["sum"] / kept if kept else None
            found.append(Listed(s.id, s.name, s.source, one["rows"], one["rejected"], one["edits"], mean, one["splits"], s.created_at))
        return found


def id_of(name: str) -> int:
    """Raises NotFound("expansion.no_set")."""
    with read_session() as session:
        found = session.scalar(select(t.ExpansionSet.id).where(t.ExpansionSet.name == name))
    if found is None:
        raise NotFound("expansion.no_set", name=name)
    return found


def rows(session: Session, set_id: int, split: str | None = None) -> list[Row]:
    """The kept rows of a set in order, of one split ("train", "val", "test") or of all (None): what training reads."""
    r = t.ExpansionRow
    query = select(r).where(r.set_id == set_id, r.status == "kept").order_by(r.number)
    if split is not None:
        query = query.where(r.split == split)
    return [_row(one) for one in session.scalars(query)]


def kept_rows(set_id: int, split: str | None = None) -> list[Row]:
    """As `rows`, in a session of its own."""
    with read_session() as session:
        return rows(session, set_id, split)


def page(
    set_id: int, *, search: str = "", status: str = "", split: str = "", order: Order = "number", offset: int = 0, size: int = 20
) -> tuple[list[Stored], int]:
    """Rows of one page and how many there are in all; `order` "rubric" puts the worst first."""
    r = t.ExpansionRow
    where = [r.set_id == set_id]
    if search.strip():
        text = f"%{search.strip()}%"
        where.append(or_(r.query.ilike(text), r.source.ilike(text)))
    if status == "edited":
        where.append(r.num_edits > 0)
    elif status:
        where.append(r.status == status)
    if split:
        where.append(r.split == split)
    by = (r.rubric, r.number) if order == "rubric" else (r.number,)
    with read_session() as session:
        total = session.scalar(select(func.count()).select_from(r).where(*where)) or 0
        found = session.scalars(select(r).where(*where).order_by(*by).offset(offset).limit(size))
        return [Stored(one.id, _row(one), one.status, one.split, one.rubric, one.num_edits) for one in found], total


def fix(row_id: int, query: str, output: str, reason: str, *, by: int, seen_edits: int) -> float:
    """Replace the query and lines of a row; the new rubric 0..1. `seen_edits` is the row's num_edits as shown.

    Raises UserError("expansion.reason_needed" / "expansion.fix_invalid" / "expansion.query_missing" / "expansion.nothing_changed"),
    Conflicting("expansion.stale_row"), NotFound("expansion.no_row").
    """
    check_role(by, *EDITORS)
    parsed = schema.parse_output(output)
    if not query.strip():
        raise UserError("expansion.query_missing")
    if not parsed.is_valid or parsed.think:
        number, text = parsed.bad[0] if parsed.bad else (1, output.strip()[:40])
        raise UserError("expansion.fix_invalid", line=number, text=text[:60])
    rubric = reward.score(query.strip(), schema.render(parsed.lines)).rubric
    with write_session() as session:
        found = _open(session, row_id, reason, seen_edits)
        before = _state(found)
        after = {**before, "query": query.strip(), "lines": [[line.kind, line.text] for line in parsed.lines]}
        if after == before:
            raise UserError("expansion.nothing_changed")
        found.query, found.lines, found.rubric = after["query"], after["lines"], rubric
        _record(session, found, "fix", reason, before, by)
    return rubric


def reject(row_id: int, reason: str, *, by: int, seen_edits: int) -> None:
    """Take a row out of training. Raises as `fix`."""
    _set_status(row_id, "rejected", "reject", reason, by, seen_edits)


def restore(row_id: int, reason: str, *, by: int, seen_edits: int) -> None:
    """Take a rejected row in again. Raises as `fix`."""
    _set_status(row_id, "kept", "restore", reason, by, seen_edits)


def history(row_id: int) -> list[Edit]:
    """What was done to a row, oldest first."""
    e = t.ExpansionEdit
    with read_session() as session:
        found = session.execute(
            select(e, t.User.display_name).join(t.User, t.User.id == e.user_id).where(e.row_id == row_id).order_by(e.id)
        )
        return [Edit(one.kind, one.reason, one.before, one.after, name, one.created_at) for one, name in found]


def assign_splits(set_id: int, *, by: int | None, seed: int = 0) -> dict[str, int]:
    """Split the kept rows by family, 80 : 10 : 10; how many rows each split has. Raises UserError("expansion.empty_set")."""
    check_role(by, *ENGINEERS)
    r = t.ExpansionRow
    with read_session() as session:
        found = list(session.scalars(select(r).where(r.set_id == set_id, r.status == "kept").order_by(r.number)))
        ids, kept = [one.id for one in found], [_row(one) for one in found]
    if not kept:
        raise UserError("expansion.empty_set", name=str(set_id))
    splits = families.split(kept, seed)
    counts = {name: splits.count(name) for name in ("train", "val", "test")}
    with write_session() as session:
        session.execute(update(r).where(r.set_id == set_id).values(split=None))
        for name in counts:
            chosen = [i for i, split in zip(ids, splits, strict=True) if split == name]
            for start in range(0, len(chosen), BLOCK):
                session.execute(update(r).where(r.id.in_(chosen[start : start + BLOCK])).values(split=name))
        audit.record(session, "expansion.split", "expansion_set", set_id, actor_id=by, detail={"seed": seed, **counts})
    return counts


def _open(session: Session, row_id: int, reason: str, seen_edits: int) -> t.ExpansionRow:
    if not reason.strip():
        raise UserError("expansion.reason_needed")
    found = session.get(t.ExpansionRow, row_id)
    if found is None:
        raise NotFound("expansion.no_row", id=row_id)
    if found.num_edits != seen_edits:
        raise Conflicting("expansion.stale_row", line=found.number)
    return found


def _screened(rows: Sequence[Row], by: int | None, card: dict[str, Any]) -> tuple[list[Row], dict[str, Any]]:
    """Rows that identify nobody. A person's file is refused with the rows named; what a job made loses them, and the card says so."""
    said, held = screen_texts([[row.query, *(line.text for line in row.lines)] for row in rows], "expansion")
    if held and by is not None:
        raise UserError("privacy.rows_identify", num=len(held), rows=", ".join(str(rows[n].number or n + 1) for n in held[:20]))
    left = [row for number, row in enumerate(rows) if number not in set(held)]
    if not left:
        raise UserError("privacy.rows_identify", num=len(held), rows="1-" + str(len(rows)))
    made = [
        replace(row, query=texts[0], lines=tuple(replace(line, text=text) for line, text in zip(row.lines, texts[1:], strict=True)))
        for row, texts in zip(left, said, strict=True)
    ]
    return made, {**card, "num_withheld": len(held)} if held else card


def _set_status(row_id: int, status: str, kind: str, reason: str, by: int, seen_edits: int) -> None:
    check_role(by, *EDITORS)
    with write_session() as session:
        found = _open(session, row_id, reason, seen_edits)
        before = _state(found)
        if found.status == status:
            raise UserError("expansion.nothing_changed")
        found.status = status
        _record(session, found, kind, reason, before, by)


def _record(session: Session, found: t.ExpansionRow, kind: str, reason: str, before: dict[str, Any], by: int) -> None:
    found.num_edits += 1
    after = _state(found)
    session.add(
        t.ExpansionEdit(row_id=found.id, kind=kind, reason=reason.strip(), before=before, after=after, user_id=by, created_at=utc_now())
    )
    detail = {"set": found.set_id, "number": found.number, "before": before, "after": after}
    audit.record(session, f"expansion.{kind}", "expansion_row", found.id, actor_id=by, detail=detail, reason=reason.strip())


def _state(found: t.ExpansionRow) -> dict[str, Any]:
    return {"query": found.query, "lines": [list(line) for line in found.lines], "status": found.status}


def _values(number: int, row: Row) -> dict[str, Any]:
    return {
        "number": number,
        "query": row.query,
        "lines": [[line.kind, line.text] for line in row.lines],
        "language": row.language or schema.language_of(row.query),
        "family": row.family or "",
        "source": row.source or "",
        "extra": row.extra,
        "status": "kept",
        "rubric": reward.score(row.query, row.output).rubric,
        "num_edits": 0,
    }


def _row(one: t.ExpansionRow) -> Row:
    lines = tuple(Line(kind, text) for kind, text in one.lines)
    return Row(one.query, lines, one.language or None, one.family or None, one.source or None, one.number, dict(one.extra))
