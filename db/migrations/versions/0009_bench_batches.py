"""batch runs on the bench, and answers with evidence"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Pairs of before were answered without evidence."""
    with op.batch_alter_table("bench_pairs") as batch:
        batch.add_column(sa.Column("left_with_evidence", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("right_with_evidence", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.add_column(sa.Column("evidence", sa.JSON(), nullable=False, server_default="[]"))
    op.create_table(
        "bench_batches",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("first_version_id", sa.Integer(), nullable=False),
        sa.Column("second_version_id", sa.Integer(), nullable=False),
        sa.Column("rows_path", sa.Text(), nullable=False),
        sa.Column("rows_sha256", sa.String(length=200), nullable=False),
        sa.Column("first_with_evidence", sa.Boolean(), nullable=False),
        sa.Column("second_with_evidence", sa.Boolean(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["first_version_id"], ["model_versions.id"], name=op.f("fk_bench_batches_first_version_id_model_versions")
        ),
        sa.ForeignKeyConstraint(
            ["second_version_id"], ["model_versions.id"], name=op.f("fk_bench_batches_second_version_id_model_versions")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_bench_batches_job_id_jobs")),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_bench_batches_created_by_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bench_batches")),
    )
    op.create_index(op.f("ix_bench_batches_job_id"), "bench_batches", ["job_id"], unique=False)
