"""From an answer to everything behind it, and from a decision to everything that was made of it.

Down: answer -> model version -> run -> dataset and hash, reward, teacher -> decisions it learned from -> reviewers and guideline
versions. Up: decision -> exports, calibrated rewards, trained versions and every version trained from those. What a training took in
is written with what came out (`note_uses`, in the same transaction); datasets and rewards are named in a version's manifest.
A withdrawn, corrected or overruled decision lists the runs that learned from it, because those runs cannot unlearn it.
Called by the Record page, core.inspection, core.exports, training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from core import audit
from core.desk import plan
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.i18n import translate
from core.models import check_role, require_role
from core.models import lineage as ancestors
from core.records import Role
from core.signing import Proof, prove
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

MIN_REASON = 5
#: rows of one INSERT
AT_ONCE = 5000

#: what -> id -> the thing's hash at that time, "" where it has none
Taken = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True, slots=True)
class Behind:
    """One version on the way down: what made it and what it was made from. Lists of ids are sorted; None means not recorded."""

    version: str
    kind: str
    content_hash: str
    job_id: int | None
    job_kind: str | None
    dataset: dict[str, Any] | None
    reward_config: str | None
    teacher: dict[str, Any] | None
    adjudications: tuple[int, ...]
    votes: tuple[int, ...]
    reviewers: tuple[str, ...]
    guideline_versions: tuple[str, ...]
    rule_versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """Something made of a decision. `through` says by which way: direct, reward (by a calibrated reward), parent (by another version)."""

    kind: str
    name: str
    id: int
    job_id: int | None
    through: str
    #: of the thing it came through; "" when direct
    via: str = ""


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A signed decision that no longer counts. `why`: retracted, corrected, overruled."""

    adjudication_id: int
    conflict_id: int
    why: str
    reason: str
    at: datetime
    made: tuple[Made, ...] = field(default=())


def note_uses(session: Session, by_kind: str, by_id: int, taken: Taken) -> None:
    """Record what a version, export or reward_config was made from, once; a job that runs again adds nothing twice."""
    known = {
        (row[0], row[1]) for row in session.execute(select(t.Use.what, t.Use.what_id).where(t.Use.by_kind == by_kind, t.Use.by_id == by_id))
    }
    rows = [
        {"by_kind": by_kind, "by_id": by_id, "what": what, "what_id": what_id, "sha256": sha256}
        for what, ids in taken.items()
        for what_id, sha256 in sorted(ids.items())
        if (what, what_id) not in known
    ]
    for start in range(0, len(rows), AT_ONCE):
        session.execute(insert(t.Use), rows[start : start + AT_ONCE])


def behind_answer(session: Session, completion_id: int) -> list[Behind]:
    """The version that wrote an answer and those it was trained from, newest first; [] for an answer that no version wrote.

    Raises NotFound("trust.no_such_answer").
    """
    completion = session.get(t.Completion, completion_id)
    if completion is None:
        raise NotFound("trust.no_such_answer", id=completion_id)
    version = session.get(t.ModelVersion, completion.model_version_id) if completion.model_version_id else None
    return behind_version(session, version) if version else []


def behind_version(session: Session, version: t.ModelVersion) -> list[Behind]:
    """A version and its ancestors, each with what it was made from."""
    return [_behind(session, one) for one in ancestors(session, version)]


def made_of(session: Session, adjudication_id: int) -> list[Made]:
    """Exports, rewards calibrated on the decision, versions trained on it, with those rewards, or from those versions."""
    found: dict[tuple[str, int], Made] = {}
    uses = session.execute(
        select(t.Use.by_kind, t.Use.by_id).where(t.Use.what == "adjudication", t.Use.what_id == adjudication_id).order_by(t.Use.id)
    ).all()
    for by_kind, by_id in uses:
        if (made := _made(session, by_kind, by_id)) is not None:
            found[by_kind, by_id] = made
    versions = list(session.scalars(select(t.ModelVersion).order_by(t.ModelVersion.id)))
    rewards = {made.name: made for made in found.values() if made.kind == "reward_config"}
    for row in versions:
        reward = rewards.get(str(row.manifest.get("reward_config") or ""))
        if reward is not None:
            found.setdefault(("version", row.id), Made("version", row.name, row.id, row.job_id, "reward", reward.name))
    for row in versions:  # a version's parent is older than the version
        above = found.get(("version", row.parent_version_id or 0))
        if above is not None:
            found.setdefault(("version", row.id), Made("version", row.name, row.id, row.job_id, "parent", above.name))
    return list(found.values())


def overtaken(session: Session, *, limit: int = 200) -> list[Overtaken]:
    """Signed decisions that were retracted, corrected or overruled, newest first, each with what had been made of it."""
    rows: dict[int, Overtaken] = {}
    for gone, row in session.execute(
        select(t.Retraction, t.Adjudication).join(t.Adjudication, t.Adjudication.id == t.Retraction.adjudication_id)
    ):
        rows[row.id] = Overtaken(row.id, row.conflict_id, "retracted", gone.reason, gone.created_at)
    for later in session.scalars(select(t.Adjudication).where(t.Adjudication.supersedes_id.is_not(None))):
        reason = later.revision_reason or later.note
        rows.setdefault(
            later.supersedes_id or 0, Overtaken(later.supersedes_id or 0, later.conflict_id, "corrected", reason, later.created_at)
        )
    rulings = select(t.Adjudication).where(t.Adjudication.role == "arbiter", t.Adjudication.stage == "signed")
    for ruling in session.scalars(rulings).all():
        readers = select(t.Adjudication).where(
            t.Adjudication.conflict_id == ruling.conflict_id,
            t.Adjudication.stage == "signed",
            t.Adjudication.role == "reader",
            t.Adjudication.id < ruling.id,
        )
        for row in session.scalars(readers):
            if row.verdict != ruling.verdict:
                rows.setdefault(row.id, Overtaken(row.id, row.conflict_id, "overruled", ruling.note, ruling.created_at))
    newest = sorted(rows.values(), key=lambda one: one.at, reverse=True)[:limit]
    return [
        Overtaken(one.adjudication_id, one.conflict_id, one.why, one.reason, one.at, tuple(made_of(session, one.adjudication_id)))
        for one in newest
    ]


def retract(user_id: int, adjudication_id: int, *, reason: str, proof: Proof | None = None) -> list[Made]:
    """Withdraw a signed decision: nothing new is trained, calibrated or exported with it; returns what already was.

    The case is open again (`core.desk.plan.reopen`), for its reviewer too. The reviewer who signed it may retract, and an
    administrator. Raises Forbidden, UserError("trust.reason_missing"), NotFound("trust.no_such_decision"),
    Conflicting("trust.already_retracted"), and as `core.signing.prove`.
    """
    check_role(user_id, Role.CLINICIAN, Role.ADMIN)
    prove(user_id, proof)
    if len(reason.strip()) < MIN_REASON:
        raise UserError("trust.reason_missing")
    with write_session() as session:
        user = require_role(session.get(t.User, user_id), Role.CLINICIAN, Role.ADMIN)
        row = session.get(t.Adjudication, adjudication_id)
        if row is None or row.stage != "signed":
            raise NotFound("trust.no_such_decision", id=adjudication_id)
        if user.role != Role.ADMIN and row.user_id != user.id:
            raise Forbidden("trust.not_your_decision")
        if session.scalar(select(t.Retraction.id).where(t.Retraction.adjudication_id == row.id)) is not None:
            raise Conflicting("trust.already_retracted", id=row.id)
        session.execute(delete(t.PreferencePair).where(t.PreferencePair.adjudication_id == row.id))
        gone = t.Retraction(
            adjudication_id=row.id,
            user_id=user.id,
            reason=reason.strip(),
            signed_name=user.display_name,
            signed_meaning=translate("trust.meaning_retract", user.language or "en", name=user.display_name, id=row.id),
            created_at=utc_now(),
        )
        session.add(gone)
        session.flush()
        is_open = plan.reopen(session, session.get_one(t.Conflict, row.conflict_id), row)
        made = made_of(session, row.id)
        detail = {
            "adjudication": row.id,
            "case": row.conflict_id,
            "is_reopened": is_open,
            "made": [f"{one.kind} {one.name}" for one in made],
            "signature": {"name": gone.signed_name, "meaning": gone.signed_meaning, "at": gone.created_at.isoformat()},
        }
        audit.record(session, "retract_decision", "retraction", gone.id, actor_id=user.id, detail=detail, reason=gone.reason)
        return made


def behind_case(conflict_id: int) -> list[Behind]:
    """What is behind the answer of a case. Raises NotFound("trust.no_such_case")."""
    with read_session() as session:
        row = session.get(t.Conflict, conflict_id)
        if row is None:
            raise NotFound("trust.no_such_case", id=conflict_id)
        return behind_answer(session, row.completion_id)


def made_of_decision(adjudication_id: int) -> list[Made]:
    """As `made_of`. Raises NotFound("trust.no_such_decision")."""
    with read_session() as session:
        row = session.get(t.Adjudication, adjudication_id)
        if row is None or row.stage != "signed":
            raise NotFound("trust.no_such_decision", id=adjudication_id)
        return made_of(session, adjudication_id)


def all_overtaken() -> list[Overtaken]:
    """As `overtaken`."""
    with read_session() as session:
        return overtaken(session)


def _behind(session: Session, version: t.ModelVersion) -> Behind:
    uses = session.execute(select(t.Use.what, t.Use.what_id).where(t.Use.by_kind == "version", t.Use.by_id == version.id)).all()
    decisions = {what_id for what, what_id in uses if what == "adjudication"}
    reward = str(version.manifest.get("reward_config") or "")
    config = session.scalar(select(t.RewardConfig).where(t.RewardConfig.version == reward)) if reward else None
    if config is not None:
        fitted = select(t.Use.what_id).where(t.Use.by_kind == "reward_config", t.Use.by_id == config.id, t.Use.what == "adjudication")
        decisions |= set(session.scalars(fitted))
    job = session.get(t.Job, version.job_id) if version.job_id else None
    scored = select(t.RuleScore.lexicon_version).where(t.RuleScore.job_id == version.job_id).distinct()
    people = select(t.User.display_name).join(t.Adjudication, t.Adjudication.user_id == t.User.id)
    guidelines = select(t.Adjudication.guideline_version).where(t.Adjudication.guideline_version.is_not(None))
    return Behind(
        version=version.name,
        kind=version.kind,
        content_hash=version.content_hash,
        job_id=version.job_id,
        job_kind=job.kind if job else None,
        dataset=_dataset(session, version),
        reward_config=reward or None,
        teacher=version.manifest.get("teacher"),
        adjudications=tuple(sorted(decisions)),
        votes=tuple(sorted(what_id for what, what_id in uses if what == "vote")),
        reviewers=_among(session, people, decisions),
        guideline_versions=_among(session, guidelines, decisions),
        rule_versions=tuple(sorted(session.scalars(scored))) if version.job_id else (),
    )


def _dataset(session: Session, version: t.ModelVersion) -> dict[str, Any] | None:
    """The dataset as the manifest names it, with its id here and whether it is still the same."""
    named = version.manifest.get("dataset")
    if not isinstance(named, dict) or not named.get("name"):
        return None
    row = session.scalar(select(t.Dataset).where(t.Dataset.name == named["name"]))
    is_same = row is not None and row.content_hash == named.get("content_hash")
    return {**named, "id": row.id if row else None, "is_unchanged": is_same}


def _among(session: Session, query: Any, decisions: set[int]) -> tuple[str, ...]:
    found: set[str] = set()
    ids = sorted(decisions)
    for start in range(0, len(ids), 500):
        found |= set(session.scalars(query.where(t.Adjudication.id.in_(ids[start : start + 500]))))
    return tuple(sorted(found))


def _made(session: Session, by_kind: str, by_id: int) -> Made | None:
    if by_kind == "version":
        version = session.get(t.ModelVersion, by_id)
        return Made("version", version.name, version.id, version.job_id, "direct") if version else None
    if by_kind == "reward_config":
        config = session.get(t.RewardConfig, by_id)
        return Made("reward_config", config.version, config.id, config.job_id, "direct") if config else None
    export = session.get(t.Export, by_id)
    return Made("export", f"{export.kind} {export.id}", export.id, None, "direct") if export else None
