"""reward configs carry their evidence, decision and signature; answers to the reward watch"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Old rows stay as they are: approved without a signature, decided when they were made."""
    with op.batch_alter_table("reward_configs") as batch_op:
        batch_op.add_column(sa.Column("parent_version", sa.String(length=200), nullable=True))
        batch_op.add_column(sa.Column("evidence", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("verdict_thresholds", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("decided_at", db.base.UtcDateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("decision_reason", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("signed_name", sa.String(length=200), nullable=True))
        batch_op.add_column(sa.Column("job_id", sa.Integer(), nullable=True))
        batch_op.create_foreign_key(batch_op.f("fk_reward_configs_job_id_jobs"), "jobs", ["job_id"], ["id"])
        batch_op.create_check_constraint(batch_op.f("ck_reward_configs_status"), "status IN ('proposed','approved','rejected')")
    op.create_table(
        "hack_answers",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model_version_id", sa.Integer(), nullable=False),
        sa.Column("flag", sa.String(length=200), nullable=False),
        sa.Column("answer", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint("answer IN ('harmless','hack')", name=op.f("ck_hack_answers_answer")),
        sa.ForeignKeyConstraint(["model_version_id"], ["model_versions.id"], name=op.f("fk_hack_answers_model_version_id_model_versions")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_hack_answers_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hack_answers")),
    )
    with op.batch_alter_table("hack_answers") as batch_op:
        batch_op.create_index(batch_op.f("ix_hack_answers_model_version_id"), ["model_version_id"], unique=False)
