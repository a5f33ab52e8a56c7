"""Model versions as screens list them: plain records, read in one go. Called by the Models page and by the bench."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from core import promotion
from core.home import current_home
from core.models import Weights, all_versions, check_weights, get_version, lineage
from core.promotion import EventShown
from core.records import VersionKind, VersionStatus
from core.safety import OpenCase, open_cases
from db import tables as t
from db.engine import read_session


@dataclass(frozen=True, slots=True)
class VersionShown:
    """One version. `lineage` is its chain of names, itself first: rl, sft, base."""

    name: str
    kind: str
    status: str
    is_toy: bool
    content_hash: str
    lineage: tuple[str, ...]
    num_open_cases: int
    created_at: datetime
    job_id: int | None


@dataclass(frozen=True, slots=True)
class VersionDetail:
    """What the page of one version shows beside its line in the list."""

    path: str
    weights: Weights
    manifest: dict[str, Any]
    endpoint_url: str
    endpoint_model: str
    note: str
    created_by: str
    cases: tuple[OpenCase, ...]
    #: (evaluation id, its name, mean reward, low, high) of every report that measured it, newest first
    measured: tuple[tuple[int, str, float | None, float | None, float | None], ...]


@dataclass(frozen=True, slots=True)
class Service:
    """Who serves, since when and by whom, and what is one press away."""

    name: str
    content_hash: str
    since: EventShown | None
    previous: tuple[str, ...]


def list_versions() -> list[VersionShown]:
    """Every version, newest first."""
    with read_session() as session:
        cases: dict[int | None, int] = dict(
            session.execute(
                select(t.Completion.model_version_id, func.count(t.SafetyCase.id))
                .join(t.SafetyCase, t.SafetyCase.completion_id == t.Completion.id)
                .where(t.SafetyCase.closed_at.is_(None))
                .group_by(t.Completion.model_version_id)
            ).all()
        )
        return [
            VersionShown(
                row.name,
                row.kind,
                row.status,
                row.is_toy,
                row.content_hash,
                tuple(v.name for v in lineage(session, row)),
                cases.get(row.id, 0),
                row.created_at,
                row.job_id,
            )
            for row in all_versions(session)
        ]


def version_detail(name: str) -> VersionDetail:
    """One version's manifest, weights on disk, open safety cases and measurements. Raises NotFound("models.no_such_version")."""
    with read_session() as session:
        row = get_version(session, name)
        author = session.get(t.User, row.created_by) if row.created_by else None
        measured = []
        for evaluation in session.scalars(select(t.Evaluation).order_by(t.Evaluation.id.desc()).limit(200)):
            one = evaluation.report.get("versions", {}).get(name)
            if one is not None:
                measured.append((evaluation.id, evaluation.name, one.get("mean"), one.get("ci_low"), one.get("ci_high")))
        cases = tuple(open_cases(session, row.id))
    return VersionDetail(
        row.path,
        check_weights(current_home(), row),
        row.manifest,
        row.endpoint_url,
        row.endpoint_model,
        row.note,
        author.display_name if author else "",
        cases,
        tuple(measured),
    )


def service() -> Service | None:
    """The serving version, or None before the first promotion."""
    with read_session() as session:
        row = session.scalar(select(t.ModelVersion).where(t.ModelVersion.status == VersionStatus.SERVING))
        if row is None:
            return None
        events = promotion.history(session, limit=1)
        previous = tuple(v.name for v in promotion.previous_serving(session))
    return Service(row.name, row.content_hash, events[0] if events else None, previous)


def serving_history() -> list[EventShown]:
    """Promotions and roll-backs, newest first."""
    with read_session() as session:
        return promotion.history(session)


def default_pair(versions: list[VersionShown]) -> tuple[str | None, str | None]:
    """What a newcomer compares: the newest RL version against what it was trained from; else the two newest."""
    names = [v.name for v in versions if v.kind != VersionKind.BASE] or [v.name for v in versions]
    for version in versions:
        if version.kind == VersionKind.RL and len(version.lineage) > 1:
            return version.lineage[1], version.name
    newest = (names + [v.name for v in versions if v.name not in names] + [None, None])[:2]
    return newest[1], newest[0]
