"""the audit chain says before and after; what an export or a training took; decisions withdrawn; when a password was last typed"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("audit_entries") as batch:
        batch.add_column(sa.Column("before_hash", sa.String(length=200), nullable=True))
        batch.add_column(sa.Column("after_hash", sa.String(length=200), nullable=True))
        batch.add_column(sa.Column("format", sa.Integer(), server_default="1", nullable=False))
    with op.batch_alter_table("login_sessions") as batch:
        batch.add_column(sa.Column("confirmed_at", db.base.UtcDateTime(timezone=True), nullable=True))
    op.create_table(
        "uses",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("by_kind", sa.String(length=200), nullable=False),
        sa.Column("by_id", sa.Integer(), nullable=False),
        sa.Column("what", sa.String(length=200), nullable=False),
        sa.Column("what_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=200), server_default="", nullable=False),
        sa.CheckConstraint("by_kind IN ('version','export','reward_config')", name=op.f("ck_uses_by_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uses")),
        sa.UniqueConstraint("by_kind", "by_id", "what", "what_id", name=op.f("uq_uses_by_kind")),
    )
    op.create_table(
        "retractions",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("adjudication_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("signed_name", sa.String(length=200), nullable=False),
        sa.Column("signed_meaning", sa.Text(), nullable=False),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["adjudication_id"], ["adjudications.id"], name=op.f("fk_retractions_adjudication_id_adjudications")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_retractions_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retractions")),
        sa.UniqueConstraint("adjudication_id", name=op.f("uq_retractions_adjudication_id")),
    )
    op.create_index("ix_uses_what", "uses", ["what", "what_id"])
