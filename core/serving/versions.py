"""What a request names: a model version as stored now, with the place of its weights, which must be those that were registered."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from core.errors import Unavailable
from core.home import Home
from core.models import Weights, all_versions, check_weights, get_version
from core.policy import VersionFiles, version_files
from core.records import JobStatus, VersionKind
from db import tables as t
from db.engine import read_session


@dataclass(frozen=True, slots=True)
class Served:
    """A version that this server can answer with. The hashes tell two sets of weights under one name apart."""

    name: str
    content_hash: str
    is_toy: bool
    files: VersionFiles
    base_hash: str
    task: str

    @property
    def base(self) -> tuple[str, str]:
        """What must be in memory: where the base lies, and its hash."""
        return self.files.base, self.base_hash


def served_version(home: Home, name: str) -> Served:
    """The version, its weights and those of its base verified against their hashes (read once per change on disk).

    Raises NotFound("models.no_such_version"), Unavailable("serving.weights_changed") and as `core.policy.version_files`.
    """
    with read_session() as session:
        row = get_version(session, name)
        files = version_files(session, home, row)
        base = row if files.adapter is None else session.get_one(t.ModelVersion, row.base_version_id)
    for one in (base, row):
        if check_weights(home, one) in (Weights.CHANGED, Weights.MISSING):
            raise Unavailable("serving.weights_changed", name=one.name)
    return Served(row.name, row.content_hash, row.is_toy, files, base.content_hash, row.task)


def local_versions() -> list[t.ModelVersion]:
    """Every version whose weights are ours, newest first."""
    with read_session() as session:
        return [row for row in all_versions(session) if row.kind != VersionKind.EXTERNAL]


def is_gpu_job_running() -> bool:
    """Does a job of the gpu queue hold the accelerator now?"""
    with read_session() as session:
        running = t.Job.status == JobStatus.RUNNING.value
        return bool(session.scalar(select(func.count()).select_from(t.Job).where(running, t.Job.queue == "gpu")))
