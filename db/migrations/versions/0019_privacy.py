"""rows held back because they seem to identify a person, and what is done with such rows"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quarantine_items",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=True),
        sa.Column("kinds", sa.JSON(), nullable=False),
        sa.Column("preview", sa.Text(), nullable=False),
        sa.Column("place", sa.String(length=200), nullable=False),
        sa.Column("sample_id", sa.Integer(), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Integer(), nullable=True),
        sa.Column("decided_at", db.base.UtcDateTime(timezone=True), nullable=True),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status IN ('held','released','surrogate','dropped')", name=op.f("ck_quarantine_items_status")),
        sa.CheckConstraint("place IN ('import','teacher')", name=op.f("ck_quarantine_items_place")),
        sa.CheckConstraint(
            "status = 'held' OR (decided_by IS NOT NULL AND decided_at IS NOT NULL AND reason <> '')",
            name=op.f("ck_quarantine_items_decided"),
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_quarantine_items_dataset_id_datasets")),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name=op.f("fk_quarantine_items_sample_id_samples")),
        sa.ForeignKeyConstraint(["decided_by"], ["users.id"], name=op.f("fk_quarantine_items_decided_by_users")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_quarantine_items_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine_items")),
    )
    op.create_index("ix_quarantine_items_waiting", "quarantine_items", ["status", "dataset_id"], unique=False)
    op.create_index(op.f("ix_quarantine_items_sample_id"), "quarantine_items", ["sample_id"], unique=False)
    op.create_table(
        "privacy_policies",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("action", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=False),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint("action IN ('quarantine','surrogate','off')", name=op.f("ck_privacy_policies_action")),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_privacy_policies_created_by_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_privacy_policies")),
    )
