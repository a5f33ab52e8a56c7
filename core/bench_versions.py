"""What product staff choose from: every version beside the one in service, with what changed, how it measured and how people voted.

Reads only; promotion and roll-back are `core.promotion`'s. Called by the bench page.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.evaluation import report_of
from core.model_list import VersionShown, list_versions, service
from core.models import get_version
from core.standings import Standings, standings
from db import tables as t
from db.engine import read_session

#: facts of a manifest that explain a version, in the order in which they are shown
FACTS = ("kind", "trained_from", "dataset", "dataset_hash", "reward_config", "teacher", "kl")


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing known about a version, and the same of the version it is held against ("" where unknown)."""

    key: str
    value: str
    reference: str

    @property
    def has_changed(self) -> bool:
        return self.value != self.reference


@dataclass(frozen=True, slots=True)
class Candidate:
    """One version as a choice. `mean`, `low` and `high` are of the newest report that measured it (None: none did); `votes` are blind
    votes against the reference, None for the reference itself or without one."""

    version: VersionShown
    mean: float | None
    low: float | None
    high: float | None
    votes: Standings | None


def candidates(user_id: int) -> tuple[str | None, list[Candidate]]:
    """(the version that serves, every version), the serving one first, then the newest. Raises Forbidden."""
    serving = service()
    name = serving.name if serving else None
    measured = _measured()
    found = []
    for version in sorted(list_versions(), key=lambda v: v.name != name):
        votes = standings(user_id, version.name, name) if name and version.name != name else None
        found.append(Candidate(version, *measured.get(version.name, (None, None, None)), votes))
    return name, found


def facts(name: str, reference: str | None) -> list[Fact]:
    """What is known of `name`, beside the same of `reference`; facts that neither has are left out.

    Raises NotFound("models.no_such_version").
    """
    with read_session() as session:
        own = _facts(get_version(session, name), session)
        other = _facts(get_version(session, reference), session) if reference else {}
    return [Fact(key, own[key], other.get(key, "")) for key in FACTS if own[key] or other.get(key)]


def _facts(row: t.ModelVersion, session: Session) -> dict[str, str]:
    manifest = row.manifest
    dataset = manifest.get("dataset") or {}
    above = row.parent_version_id or row.base_version_id
    parent = session.get(t.ModelVersion, above) if above else None
    kl = manifest.get("kl")
    return {
        "kind": row.kind,
        "trained_from": parent.name if parent else "",
        "dataset": str(dataset.get("name", "")) + (f" ({dataset['split']})" if dataset.get("split") else ""),
        "dataset_hash": str(dataset.get("content_hash", ""))[:12],
        "reward_config": str(manifest.get("reward_config") or ""),
        "teacher": str((manifest.get("teacher") or {}).get("name", "")),
        "kl": f"{kl:.2f}" if isinstance(kl, int | float) and not isinstance(kl, bool) else "",
    }


def _measured() -> dict[str, tuple[float | None, float | None, float | None]]:
    """Version -> (mean reward, low, high) of the newest report that measured it."""
    found: dict[str, tuple[float | None, float | None, float | None]] = {}
    with read_session() as session:
        for row in session.scalars(select(t.Evaluation).order_by(t.Evaluation.id.desc()).limit(100)):
            for name, one in report_of(row)["versions"].items():
                found.setdefault(name, (one["mean"], one["ci_low"], one["ci_high"]))
    return found
