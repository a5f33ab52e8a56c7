"""exports and webhooks"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "exports",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=200), nullable=False),
        sa.Column("format", sa.String(length=200), nullable=False),
        sa.Column("num_rows", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=200), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_exports_created_by_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("last_entry_id", sa.Integer(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("num_failures", sa.Integer(), nullable=False),
        sa.Column("next_try_at", db.base.UtcDateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("last_delivered_at", db.base.UtcDateTime(timezone=True), nullable=True),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_webhooks_created_by_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_table(
        "guidelines",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("version", sa.String(length=200), nullable=False),
        sa.Column("text_en", sa.Text(), nullable=False),
        sa.Column("text_zh", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("version", name=op.f("uq_guidelines_version")),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_guidelines_created_by_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guidelines")),
    )
    op.create_table(
        "guideline_flags",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("guideline_id", sa.Integer(), nullable=False),
        sa.Column("paragraph", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("conflict_id", sa.Integer(), nullable=True),
        sa.Column("closed_by", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("closed_at", db.base.UtcDateTime(timezone=True), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["guideline_id"], ["guidelines.id"], name=op.f("fk_guideline_flags_guideline_id_guidelines")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_guideline_flags_user_id_users")),
        sa.ForeignKeyConstraint(["conflict_id"], ["conflicts.id"], name=op.f("fk_guideline_flags_conflict_id_conflicts")),
        sa.ForeignKeyConstraint(["closed_by"], ["users.id"], name=op.f("fk_guideline_flags_closed_by_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guideline_flags")),
    )
    op.create_table(
        "rooms",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("guideline_version", sa.String(length=200), nullable=False),
        sa.Column("stage", sa.String(length=200), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.Column("closed_at", db.base.UtcDateTime(timezone=True), nullable=True),
        sa.CheckConstraint("stage IN ('blind','discussion','second','closed')", name=op.f("ck_rooms_stage")),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_rooms_created_by_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rooms")),
    )
    op.create_table(
        "room_cases",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("room_id", sa.Integer(), nullable=False),
        sa.Column("conflict_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.UniqueConstraint("room_id", "conflict_id", name=op.f("uq_room_cases_room_id")),
        sa.ForeignKeyConstraint(["room_id"], ["rooms.id"], name=op.f("fk_room_cases_room_id_rooms")),
        sa.ForeignKeyConstraint(["conflict_id"], ["conflicts.id"], name=op.f("fk_room_cases_conflict_id_conflicts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_room_cases")),
    )
    op.create_table(
        "room_members",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("room_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.UniqueConstraint("room_id", "user_id", name=op.f("uq_room_members_room_id")),
        sa.ForeignKeyConstraint(["room_id"], ["rooms.id"], name=op.f("fk_room_members_room_id_rooms")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_room_members_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_room_members")),
    )
    op.create_table(
        "room_opinions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("room_id", sa.Integer(), nullable=False),
        sa.Column("conflict_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(length=200), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("room_id", "conflict_id", "user_id", "round", name=op.f("uq_room_opinions_room_id")),
        sa.ForeignKeyConstraint(["room_id"], ["rooms.id"], name=op.f("fk_room_opinions_room_id_rooms")),
        sa.ForeignKeyConstraint(["conflict_id"], ["conflicts.id"], name=op.f("fk_room_opinions_conflict_id_conflicts")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_room_opinions_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_room_opinions")),
    )
    op.create_index(op.f("ix_room_cases_room_id"), "room_cases", ["room_id"], unique=False)
    op.create_index(op.f("ix_room_members_room_id"), "room_members", ["room_id"], unique=False)
    op.create_index(op.f("ix_room_opinions_room_id"), "room_opinions", ["room_id"], unique=False)
