"""the review plan: draws, seats, arbitration, and the search over cases"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Old cases keep one reader and no seats; the search index fills itself when it is first used."""
    with op.batch_alter_table("conflicts") as batch:
        batch.add_column(sa.Column("overlap", sa.Integer(), nullable=False, server_default="1"))
        batch.add_column(sa.Column("arbitration_at", db.base.UtcDateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("order_gap", sa.Double(), nullable=True))
    op.create_index("ix_conflicts_gap", "conflicts", ["status", "order_gap", "gap"], unique=False)
    with op.batch_alter_table("adjudications") as batch:
        batch.add_column(sa.Column("role", sa.String(length=200), nullable=False, server_default="reader"))
        batch.add_column(sa.Column("taken", sa.JSON(), nullable=False, server_default="{}"))
    op.create_table(
        "draws",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("frame", sa.JSON(), nullable=False),
        sa.Column("frame_sha256", sa.String(length=200), nullable=False),
        sa.Column("items_sha256", sa.String(length=200), nullable=False),
        sa.Column("num_items", sa.Integer(), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_draws_created_by_users")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_draws_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_draws")),
        sa.UniqueConstraint("name", name=op.f("uq_draws_name")),
    )
    op.create_table(
        "draw_items",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("draw_id", sa.Integer(), nullable=False),
        sa.Column("conflict_id", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.String(length=200), nullable=False),
        sa.Column("stratum", sa.String(length=200), nullable=False),
        sa.Column("inclusion_probability", sa.Double(), nullable=False),
        sa.Column("unit_id", sa.Integer(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("repeat_of_id", sa.Integer(), nullable=True),
        sa.CheckConstraint("purpose IN ('conflict','control','repeat_same','repeat_other')", name=op.f("ck_draw_items_purpose")),
        sa.CheckConstraint("inclusion_probability > 0 AND inclusion_probability <= 1", name=op.f("ck_draw_items_probability")),
        sa.ForeignKeyConstraint(["conflict_id"], ["conflicts.id"], name=op.f("fk_draw_items_conflict_id_conflicts")),
        sa.ForeignKeyConstraint(["draw_id"], ["draws.id"], name=op.f("fk_draw_items_draw_id_draws")),
        sa.ForeignKeyConstraint(["repeat_of_id"], ["conflicts.id"], name=op.f("fk_draw_items_repeat_of_id_conflicts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_draw_items")),
        sa.UniqueConstraint("draw_id", "conflict_id", name=op.f("uq_draw_items_draw_id")),
    )
    with op.batch_alter_table("draw_items") as batch:
        batch.create_index(batch.f("ix_draw_items_conflict_id"), ["conflict_id"], unique=False)
    op.create_table(
        "assignments",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("conflict_id", sa.Integer(), nullable=False),
        sa.Column("seat", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("speciality", sa.String(length=200), nullable=True),
        sa.Column("draw_id", sa.Integer(), nullable=True),
        sa.Column("adjudication_id", sa.Integer(), nullable=True),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["adjudication_id"], ["adjudications.id"], name=op.f("fk_assignments_adjudication_id_adjudications")),
        sa.ForeignKeyConstraint(["conflict_id"], ["conflicts.id"], name=op.f("fk_assignments_conflict_id_conflicts")),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_assignments_created_by_users")),
        sa.ForeignKeyConstraint(["draw_id"], ["draws.id"], name=op.f("fk_assignments_draw_id_draws")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_assignments_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignments")),
        sa.UniqueConstraint("conflict_id", "seat", name=op.f("uq_assignments_conflict_id")),
    )
    with op.batch_alter_table("assignments") as batch:
        batch.create_index(batch.f("ix_assignments_user_id"), ["user_id"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        # rowid = conflict id; the words are our own tokens (core.retrieval.tokens), so FTS5 only has to split at blanks
        op.execute("CREATE VIRTUAL TABLE case_search USING fts5(body, content='', tokenize=\"unicode61 remove_diacritics 0\")")
