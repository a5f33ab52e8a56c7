"""what a model version is for; term writers among retrieval's models; evaluations of query expansion"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("model_versions") as batch:
        batch.add_column(sa.Column("task", sa.String(length=200), nullable=False, server_default="answer"))
        batch.create_check_constraint(op.f("ck_model_versions_task"), "task IN ('answer','expansion')")
    with op.batch_alter_table("retrieval_models") as batch:
        batch.drop_constraint(op.f("ck_retrieval_models_kind"), type_="check")
        batch.create_check_constraint(op.f("ck_retrieval_models_kind"), "kind IN ('embedding','reranker','doc2query','expander')")
    op.create_table(
        "expansion_evaluations",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("num_queries", sa.Integer(), nullable=False),
        sa.Column("queries_hash", sa.String(length=200), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_expansion_evaluations_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expansion_evaluations")),
    )
