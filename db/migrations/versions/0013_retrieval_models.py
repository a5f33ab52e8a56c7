"""embedding models, rerankers and question writers"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "retrieval_models",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("form", sa.String(length=200), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("content_hash", sa.String(length=200), nullable=False),
        sa.Column("base", sa.String(length=200), nullable=False),
        sa.Column("status", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('embedding','reranker','doc2query')", name=op.f("ck_retrieval_models_kind")),
        sa.CheckConstraint("status IN ('candidate','accepted','refused','retired')", name=op.f("ck_retrieval_models_status")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_retrieval_models_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrieval_models")),
        sa.UniqueConstraint("name", name=op.f("uq_retrieval_models_name")),
    )
