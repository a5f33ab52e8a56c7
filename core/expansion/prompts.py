"""The instruction that asks a model for an expansion: its versions, and the one in force.

A search proposes, a person decides: nothing that a job found is used before an engineer or administrator put it in force with a
reason, and going back is doing so again with the earlier one. An instruction is in force for the model that it was measured with
and for no other: a model that was trained on the shipped instruction answers best to that. Ask and export ask `current()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit
from core.errors import NotFound, UserError
from core.expansion.schema import DEFAULT
from core.models import get_version, require_role
from core.records import Role
from db import tables as t
from db.engine import read_session, write_session

LONGEST = 8000


@dataclass(frozen=True, slots=True)
class PromptShown:
    """One version as lists show it; `id` 0 is the shipped instruction."""

    id: int
    text: str
    origin: str
    model: str
    scores: dict[str, Any]
    job_id: int | None
    created_by: str
    created_at: datetime | None
    is_in_force: bool


def current(model: str) -> str:
    """The instruction in force for a model version: the newest that a person chose for it, else the shipped one."""
    with read_session() as session:
        row = _in_force(session, model)
        return row.text if row else DEFAULT


def listing() -> list[PromptShown]:
    """Every version, newest first, the shipped one last."""
    with read_session() as session:
        shown = []
        for row in session.scalars(select(t.ExpansionPrompt).order_by(t.ExpansionPrompt.id.desc())):
            in_force = _in_force(session, row.model)
            author = session.get(t.User, row.created_by) if row.created_by else None
            shown.append(
                PromptShown(
                    row.id, row.text, row.origin, row.model, row.scores, row.job_id, author.display_name if author else "",
                    row.created_at, in_force is not None and row.id == in_force.id,
                )
            )  # fmt: skip
        return [*shown, PromptShown(0, DEFAULT, "shipped", "", {}, None, "", None, not any(one.is_in_force for one in shown))]


def keep(text: str, *, origin: str, model: str, scores: dict[str, Any], job_id: int | None, created_by: int | None = None) -> int:
    """Store a version without using it; returns its id. A job that runs again keeps one version."""
    with write_session() as session:
        if job_id:
            known = select(t.ExpansionPrompt).where(t.ExpansionPrompt.job_id == job_id, t.ExpansionPrompt.text == text)
            if (row := session.scalar(known)) is not None:
                return row.id
        row = t.ExpansionPrompt(
            text=text, origin=origin, model=model, scores=scores, job_id=job_id or None, created_by=created_by
        )  # fmt: skip
        session.add(row)
        session.flush()
        return row.id


def apply(prompt_id: int, *, by: int, reason: str, model: str = "") -> None:
    """Put a version in force for the model it was measured with, or the shipped one (0) for `model`.

    Raises Forbidden, NotFound("expansion_export.no_prompt" / "models.no_such_version"), UserError("expansion_export.reason_missing").
    """
    if not reason.strip():
        raise UserError("expansion_export.reason_missing")
    with write_session() as session:
        actor = require_role(session.get(t.User, by), Role.ENGINEER, Role.ADMIN)
        row = session.get(t.ExpansionPrompt, prompt_id) if prompt_id else None
        if prompt_id and row is None:
            raise NotFound("expansion_export.no_prompt", id=prompt_id)
        name = row.model if row else get_version(session, model).name
        use = t.ExpansionPromptUse(prompt_id=row.id if row else None, model=name, reason=reason.strip(), created_by=actor.id)
        session.add(use)
        detail = {"model": name, "text": row.text if row else DEFAULT}
        audit.record(
            session, "apply_expansion_prompt", "expansion_prompt", prompt_id, actor_id=actor.id, detail=detail, reason=reason.strip()
        )


def _in_force(session: Session, model: str) -> t.ExpansionPrompt | None:
    uses = select(t.ExpansionPromptUse).where(t.ExpansionPromptUse.model == model).order_by(t.ExpansionPromptUse.id.desc())
    use = session.scalar(uses.limit(1))
    return session.get(t.ExpansionPrompt, use.prompt_id) if use and use.prompt_id else None
