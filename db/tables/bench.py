"""Batch comparisons on the bench: one question set through two versions, as a job."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class BenchBatch(Base):
    """A finished batch comparison. Its rows (questions and both answers) lie in `rows_path`, whose SHA-256 is kept here."""

    __tablename__ = "bench_batches"

    id: Mapped[pk] = mapped_column(init=False)
    name: Mapped[short]
    #: the older side, and the one that is held against it
    first_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    second_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    rows_path: Mapped[str]
    rows_sha256: Mapped[short]
    first_with_evidence: Mapped[bool] = mapped_column(default=False)
    second_with_evidence: Mapped[bool] = mapped_column(default=False)
    #: counts, paired outcomes, slices, decoding, versions of rules and reward (shape: core.bench_report)
    report: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"), index=True, default=None)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
