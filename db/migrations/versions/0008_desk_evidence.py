"""evidence attached to verdicts, what follows from a decision, tours seen"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Old decisions cite nothing and have no follow-ups."""
    with op.batch_alter_table("adjudications") as batch:
        batch.add_column(sa.Column("evidence", sa.JSON(), nullable=False, server_default="[]"))
    op.create_table(
        "shown_passages",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("sha256", sa.String(length=200), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("section", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("date", sa.String(length=200), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=True),
        sa.Column("index_name", sa.String(length=200), nullable=False),
        sa.Column("index_version", sa.Integer(), nullable=False),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shown_passages")),
        sa.UniqueConstraint("sha256", name=op.f("uq_shown_passages_sha256")),
    )
    op.create_table(
        "follow_ups",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=200), nullable=False),
        sa.Column("conflict_id", sa.Integer(), nullable=False),
        sa.Column("adjudication_id", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=200), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("closed_by", sa.Integer(), nullable=True),
        sa.Column("closed_at", db.base.UtcDateTime(timezone=True), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('gold','red_team','teacher_test','data_request')", name=op.f("ck_follow_ups_kind")),
        sa.CheckConstraint("status IN ('open','done','withdrawn')", name=op.f("ck_follow_ups_status")),
        sa.ForeignKeyConstraint(["conflict_id"], ["conflicts.id"], name=op.f("fk_follow_ups_conflict_id_conflicts")),
        sa.ForeignKeyConstraint(["adjudication_id"], ["adjudications.id"], name=op.f("fk_follow_ups_adjudication_id_adjudications")),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_follow_ups_created_by_users")),
        sa.ForeignKeyConstraint(["closed_by"], ["users.id"], name=op.f("fk_follow_ups_closed_by_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_follow_ups")),
        sa.UniqueConstraint("conflict_id", "kind", name=op.f("uq_follow_ups_conflict_id")),
    )
    op.create_index("ix_follow_ups_status", "follow_ups", ["status", "kind"], unique=False)
    op.create_table(
        "tours_seen",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("screen", sa.String(length=200), nullable=False),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_tours_seen_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tours_seen")),
        sa.UniqueConstraint("user_id", "screen", name=op.f("uq_tours_seen_user_id")),
    )
