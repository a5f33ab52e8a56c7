"""sets of query expansions, their rows, and who changed which row and why"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "expansion_sets",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_expansion_sets_created_by_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expansion_sets")),
        sa.UniqueConstraint("name", name=op.f("uq_expansion_sets_name")),
    )
    op.create_table(
        "expansion_rows",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("set_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("lines", sa.JSON(), nullable=False),
        sa.Column("language", sa.String(length=200), nullable=False),
        sa.Column("family", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("extra", sa.JSON(), nullable=False),
        sa.Column("split", sa.String(length=200), nullable=True),
        sa.Column("status", sa.String(length=200), nullable=False),
        sa.Column("rubric", sa.Double(), nullable=True),
        sa.Column("num_edits", sa.Integer(), nullable=False),
        sa.CheckConstraint("split IS NULL OR split IN ('train','val','test')", name=op.f("ck_expansion_rows_split")),
        sa.CheckConstraint("status IN ('kept','rejected')", name=op.f("ck_expansion_rows_status")),
        sa.CheckConstraint("rubric IS NULL OR (rubric >= 0 AND rubric <= 1)", name=op.f("ck_expansion_rows_rubric")),
        sa.ForeignKeyConstraint(["set_id"], ["expansion_sets.id"], name=op.f("fk_expansion_rows_set_id_expansion_sets")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expansion_rows")),
        sa.UniqueConstraint("set_id", "number", name=op.f("uq_expansion_rows_set_id")),
    )
    op.create_index("ix_expansion_rows_order", "expansion_rows", ["set_id", "status", "rubric"], unique=False)
    op.create_table(
        "expansion_edits",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("row_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=False),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('fix','reject','restore')", name=op.f("ck_expansion_edits_kind")),
        sa.ForeignKeyConstraint(["row_id"], ["expansion_rows.id"], name=op.f("fk_expansion_edits_row_id_expansion_rows")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_expansion_edits_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expansion_edits")),
    )
    op.create_index(op.f("ix_expansion_edits_row_id"), "expansion_edits", ["row_id"], unique=False)
