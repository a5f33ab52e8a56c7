"""What the reward watch said about trained versions, and what people answered. Reads hack_watch.json from beside the weights.

A flag is a question; it stays open until an engineer or administrator answers it: harmless (looked at and explained) or hack
(the policy does exploit the reward). Promotion may ask `open_flags`: a flag without an answer, or answered "hack", is open.
Answers are appended, with an audit entry in the same transaction. Called by the Reward page and by promotion.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit
from core.errors import NotFound, UserError
from core.home import Home, current_home
from core.models import get_version, require_role
from core.permit import permit
from core.records import Role, VersionKind
from db import tables as t
from db.engine import read_session, write_session

FILE = "hack_watch.json"
ANSWERS = ("harmless", "hack")
MIN_REASON = 5


@dataclass(frozen=True, slots=True)
class FlagShown:
    """One flag and its newest answer; `answer` is empty while nobody has answered."""

    key: str
    code: str
    feature: str
    value: float
    threshold: float
    numbers: dict[str, float]
    answer: str
    reason: str
    answered_by: str

    @property
    def is_open(self) -> bool:
        return self.answer != "harmless"


@dataclass(frozen=True, slots=True)
class Watched:
    """One version and its report; `report` is None when the run wrote none (trained before there was a watch)."""

    version: str
    job_id: int | None
    report: dict[str, Any] | None
    flags: tuple[FlagShown, ...]


def newest(limit: int = 10) -> list[Watched]:
    """The newest RL versions."""
    home = current_home()
    with read_session() as session:
        query = select(t.ModelVersion).where(t.ModelVersion.kind == VersionKind.RL.value).order_by(t.ModelVersion.id.desc())
        return [_watched(session, home, row) for row in session.scalars(query.limit(limit)).all()]


def open_flags(session: Session, version: t.ModelVersion) -> list[FlagShown]:
    """Flags of a version that nobody has called harmless; empty also when there is no report."""
    return [flag for flag in _watched(session, current_home(), version).flags if flag.is_open]


def answer(user_id: int, version: str, flag: str, *, answer: str, reason: str) -> None:
    """Answer one flag ("code:feature"). Raises Forbidden, NotFound("models.no_such_version", "reward.no_such_flag") and
    UserError("reward.reason_missing"); ValueError for a word that is no answer."""
    permit("hack_reports.answer", user_id)
    if answer not in ANSWERS:
        raise ValueError(answer)
    reason = reason.strip()
    if len(reason) < MIN_REASON:
        raise UserError("reward.reason_missing")
    home = current_home()
    with read_session() as session:  # the report is a file: read it before the write lock is taken
        known = {one.key for one in _watched(session, home, get_version(session, version)).flags}
    if flag not in known:
        raise NotFound("reward.no_such_flag", flag=flag, version=version)
    with write_session() as session:
        user = require_role(session.get(t.User, user_id), Role.ENGINEER, Role.ADMIN)
        row = get_version(session, version)
        session.add(t.HackAnswer(model_version_id=row.id, flag=flag, answer=answer, reason=reason, user_id=user.id))
        detail = {"version": version, "flag": flag, "answer": answer}
        audit.record(session, "answer_hack_flag", "model_version", row.id, actor_id=user.id, detail=detail, reason=reason)


def _watched(session: Session, home: Home, row: t.ModelVersion) -> Watched:
    report = _read(home, row)
    query = (
        select(t.HackAnswer, t.User.display_name)
        .join(t.User, t.User.id == t.HackAnswer.user_id)
        .where(t.HackAnswer.model_version_id == row.id)
        .order_by(t.HackAnswer.id)
    )
    answers = {found.flag: (found.answer, found.reason, name) for found, name in session.execute(query)}
    flags = []
    for flag in (report or {}).get("flags", []):
        key = f"{flag['code']}:{flag['feature']}"
        said = answers.get(key, ("", "", ""))
        flags.append(FlagShown(key, flag["code"], flag["feature"], flag["value"], flag["threshold"], flag["numbers"], *said))
    return Watched(row.name, row.job_id, report, tuple(flags))


def _read(home: Home, row: t.ModelVersion) -> dict[str, Any] | None:
    """The file beside the weights, else the one in the run folder. Half-written or foreign files count as none."""
    places = [home.resolve(row.path) / FILE] if row.path else []
    if row.job_id is not None:
        places.append(home.run_dir(row.job_id) / FILE)
    for path in places:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict) and isinstance(found.get("flags"), list):
            return found
    return None
