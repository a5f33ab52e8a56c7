"""retrieval evaluations, corrections of failure categories, trials"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "retrieval_evaluations",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("index_name", sa.String(length=200), nullable=False),
        sa.Column("index_id", sa.Integer(), nullable=True),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("report_path", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["index_id"], ["search_indexes.id"], name=op.f("fk_retrieval_evaluations_index_id_search_indexes")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_retrieval_evaluations_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrieval_evaluations")),
    )
    op.create_table(
        "retrieval_corrections",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("query_id", sa.String(length=200), nullable=False),
        sa.Column("category", sa.String(length=200), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["retrieval_evaluations.id"], name=op.f("fk_retrieval_corrections_evaluation_id_retrieval_evaluations")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_retrieval_corrections_user_id_users")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrieval_corrections")),
    )
    op.create_table(
        "retrieval_trials",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("index_name", sa.String(length=200), nullable=False),
        sa.Column("change", sa.String(length=200), nullable=False),
        sa.Column("control_index_id", sa.Integer(), nullable=True),
        sa.Column("candidate_index_id", sa.Integer(), nullable=True),
        sa.Column("control_plan", sa.JSON(), nullable=False),
        sa.Column("candidate_plan", sa.JSON(), nullable=False),
        sa.Column("verdict", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=200), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("num_looks", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("created_at", db.base.UtcDateTime(timezone=True), nullable=False),
        sa.Column("ended_at", db.base.UtcDateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('kept_aside','accepted','running','promoted','stopped','rolled_back')", name=op.f("ck_retrieval_trials_status")
        ),
        sa.CheckConstraint("share >= 0 AND share <= 1", name=op.f("ck_retrieval_trials_share")),
        sa.ForeignKeyConstraint(
            ["control_index_id"], ["search_indexes.id"], name=op.f("fk_retrieval_trials_control_index_id_search_indexes")
        ),
        sa.ForeignKeyConstraint(
            ["candidate_index_id"], ["search_indexes.id"], name=op.f("fk_retrieval_trials_candidate_index_id_search_indexes")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_retrieval_trials_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrieval_trials")),
    )
    op.create_table(
        "retrieval_exposures",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("trial_id", sa.Integer(), nullable=False),
        sa.Column("event_id", sa.Integer(), nullable=False),
        sa.Column("arm", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["retrieval_trials.id"], name=op.f("fk_retrieval_exposures_trial_id_retrieval_trials")),
        sa.ForeignKeyConstraint(["event_id"], ["ask_events.id"], name=op.f("fk_retrieval_exposures_event_id_ask_events")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrieval_exposures")),
        sa.UniqueConstraint("event_id", name=op.f("uq_retrieval_exposures_event_id")),
    )
    op.create_index(op.f("ix_retrieval_evaluations_index_name"), "retrieval_evaluations", ["index_name"], unique=False)
    op.create_index(op.f("ix_retrieval_corrections_evaluation_id"), "retrieval_corrections", ["evaluation_id"], unique=False)
    op.create_index(op.f("ix_retrieval_trials_index_name"), "retrieval_trials", ["index_name"], unique=False)
    op.create_index(op.f("ix_retrieval_exposures_trial_id"), "retrieval_exposures", ["trial_id"], unique=False)
    op.create_index(
        "uq_retrieval_trials_running",
        "retrieval_trials",
        ["index_name"],
        unique=True,
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
