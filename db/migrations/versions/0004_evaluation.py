"""requests to promote over a closed gate"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A table of its own; serving events already hold a second actor."""
    op.create_table(
        "promotion_requests",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("requested_by", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("signed_name", sa.String(length=200), nullable=False),
        sa.Column("gates", sa.JSON(), nullable=False),
        sa.Column("expires_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.Column("serving_version_id", sa.Integer(), nullable=True),
        sa.Column("content_hash", sa.String(length=200), nullable=False),
        sa.Column("status", sa.String(length=200), nullable=False),
        sa.Column("second_by", sa.Integer(), nullable=True),
        sa.Column("second_reason", sa.Text(), nullable=False),
        sa.Column("second_signed_name", sa.String(length=200), nullable=False),
        sa.Column("second_gates", sa.JSON(), nullable=False),
        sa.Column("event_id", sa.Integer(), nullable=True),
        sa.Column("decided_at", db.base.UtcDateTime(timezone=True), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint("second_by IS NULL OR second_by <> requested_by", name=op.f("ck_promotion_requests_two_people")),
        sa.CheckConstraint("status IN ('open','promoted','declined','expired')", name=op.f("ck_promotion_requests_status")),
        sa.ForeignKeyConstraint(["event_id"], ["serving_events.id"], name=op.f("fk_promotion_requests_event_id_serving_events")),
        sa.ForeignKeyConstraint(["requested_by"], ["users.id"], name=op.f("fk_promotion_requests_requested_by_users")),
        sa.ForeignKeyConstraint(["second_by"], ["users.id"], name=op.f("fk_promotion_requests_second_by_users")),
        sa.ForeignKeyConstraint(
            ["serving_version_id"], ["model_versions.id"], name=op.f("fk_promotion_requests_serving_version_id_model_versions")
        ),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name=op.f("fk_promotion_requests_version_id_model_versions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotion_requests")),
    )
    with op.batch_alter_table("promotion_requests") as batch:
        batch.create_index(
            "uq_promotion_requests_open",
            ["version_id"],
            unique=True,
            sqlite_where=sa.text("status = 'open'"),
            postgresql_where=sa.text("status = 'open'"),
        )
