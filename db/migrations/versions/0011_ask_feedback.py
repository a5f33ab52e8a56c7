"""what people did with passages, and how an index is searched by default"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ask_feedback",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("event_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=200), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=True),
        sa.Column("parent", sa.Integer(), nullable=True),
        sa.Column("after_ms", sa.Integer(), nullable=True),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('up','down','helped','not_helped','opened')", name=op.f("ck_ask_feedback_kind")),
        sa.ForeignKeyConstraint(["event_id"], ["ask_events.id"], name=op.f("fk_ask_feedback_event_id_ask_events")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_ask_feedback_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ask_feedback")),
    )
    op.create_index(op.f("ix_ask_feedback_event_id"), "ask_feedback", ["event_id"], unique=False)
    op.create_table(
        "search_plans",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("index_name", sa.String(length=200), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("calibration", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_search_plans_created_by_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_plans")),
    )
    op.create_index(op.f("ix_search_plans_index_name"), "search_plans", ["index_name"], unique=False)
    with op.batch_alter_table("ask_events") as batch:
        batch.add_column(sa.Column("channel", sa.String(length=200), server_default="", nullable=False))
        batch.add_column(sa.Column("details", sa.JSON(), server_default="{}", nullable=False))
