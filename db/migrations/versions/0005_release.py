"""release packages, the watch over the serving version, proposed roll-backs"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OPEN = sa.text("status = 'open'")


def upgrade() -> None:
    op.create_table(
        "releases",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("manifest_hash", sa.String(length=200), nullable=False),
        sa.Column("origin", sa.String(length=200), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint("origin IN ('built','loaded')", name=op.f("ck_releases_origin")),
        sa.ForeignKeyConstraint(["created_by"], ["users.id"], name=op.f("fk_releases_created_by_users")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_releases_job_id_jobs")),
        sa.ForeignKeyConstraint(["version_id"], ["model_versions.id"], name=op.f("fk_releases_version_id_model_versions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
        sa.UniqueConstraint("name", name=op.f("uq_releases_name")),
    )
    with op.batch_alter_table("releases") as batch:
        batch.create_index(batch.f("ix_releases_version_id"), ["version_id"], unique=False)
    op.create_table(
        "watch_looks",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("serving_event_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("num_pairs", sa.Integer(), nullable=False),
        sa.Column("num_worse", sa.Integer(), nullable=False),
        sa.Column("num_better", sa.Integer(), nullable=False),
        sa.Column("log_evidence", sa.Double(), nullable=False),
        sa.Column("incoming", sa.JSON(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_watch_looks_job_id_jobs")),
        sa.ForeignKeyConstraint(["serving_event_id"], ["serving_events.id"], name=op.f("fk_watch_looks_serving_event_id_serving_events")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watch_looks")),
    )
    with op.batch_alter_table("watch_looks") as batch:
        batch.create_index("ix_watch_looks_pair", ["serving_event_id", "id"], unique=False)
    op.create_table(
        "rollback_proposals",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("serving_version_id", sa.Integer(), nullable=False),
        sa.Column("target_version_id", sa.Integer(), nullable=False),
        sa.Column("look_id", sa.Integer(), nullable=False),
        sa.Column("finding", sa.String(length=200), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=200), nullable=False),
        sa.Column("event_id", sa.Integer(), nullable=True),
        sa.Column("decided_by", sa.Integer(), nullable=True),
        sa.Column("decision_reason", sa.Text(), nullable=False),
        sa.Column("decided_at", db.base.UtcDateTime(timezone=True), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status IN ('open','accepted','dismissed','overtaken')", name=op.f("ck_rollback_proposals_status")),
        sa.CheckConstraint("finding IN ('red_team','safety_cases')", name=op.f("ck_rollback_proposals_finding")),
        sa.ForeignKeyConstraint(["decided_by"], ["users.id"], name=op.f("fk_rollback_proposals_decided_by_users")),
        sa.ForeignKeyConstraint(["event_id"], ["serving_events.id"], name=op.f("fk_rollback_proposals_event_id_serving_events")),
        sa.ForeignKeyConstraint(["look_id"], ["watch_looks.id"], name=op.f("fk_rollback_proposals_look_id_watch_looks")),
        sa.ForeignKeyConstraint(
            ["serving_version_id"], ["model_versions.id"], name=op.f("fk_rollback_proposals_serving_version_id_model_versions")
        ),
        sa.ForeignKeyConstraint(
            ["target_version_id"], ["model_versions.id"], name=op.f("fk_rollback_proposals_target_version_id_model_versions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollback_proposals")),
    )
    with op.batch_alter_table("rollback_proposals") as batch:
        batch.create_index("uq_rollback_proposals_open", ["status"], unique=True, sqlite_where=OPEN, postgresql_where=OPEN)
