"""teacher: verdicts, second opinions, usage, endpoint states, prices, alarms, proposals"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('teacher_states',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('endpoint', sa.String(length=200), nullable=False),
    sa.Column('detail', sa.JSON(), nullable=False),
    sa.Column('updated_at', db.base.UtcDateTime(timezone=True), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_teacher_states')),
    sa.UniqueConstraint('endpoint', name=op.f('uq_teacher_states_endpoint'))
    )
    op.create_table('teacher_prices',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('model', sa.String(length=200), nullable=False),
    sa.Column('input_usd', sa.Double(), nullable=False),
    sa.Column('output_usd', sa.Double(), nullable=False),
    sa.Column('cached_input_usd', sa.Double(), nullable=True),
    sa.Column('as_of', sa.String(length=200), nullable=False),
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('created_by', sa.Integer(), nullable=True),
    sa.Column('created_at', db.base.UtcDateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['created_by'], ['users.id'], name=op.f('fk_teacher_prices_created_by_users')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_teacher_prices'))
    )
    with op.batch_alter_table('teacher_prices', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_teacher_prices_model'), ['model'], unique=False)

    op.create_table('teacher_alarms',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('kind', sa.String(length=200), nullable=False),
    sa.Column('teacher', sa.String(length=200), nullable=False),
    sa.Column('rubric_version', sa.String(length=200), nullable=False),
    sa.Column('detail', sa.JSON(), nullable=False),
    sa.Column('job_id', sa.Integer(), nullable=True),
    sa.Column('created_at', db.base.UtcDateTime(timezone=True), nullable=False),
    sa.Column('closed_by', sa.Integer(), nullable=True),
    sa.Column('closed_reason', sa.Text(), nullable=False),
    sa.Column('closed_at', db.base.UtcDateTime(timezone=True), nullable=True),
    sa.CheckConstraint("kind IN ('version','distribution','consistency')", name=op.f('ck_teacher_alarms_kind')),
    sa.ForeignKeyConstraint(['closed_by'], ['users.id'], name=op.f('fk_teacher_alarms_closed_by_users')),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_teacher_alarms_job_id_jobs')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_teacher_alarms'))
    )
    op.create_table('teacher_usage',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('run_token', sa.String(length=200), nullable=False),
    sa.Column('day', sa.String(length=200), nullable=False),
    sa.Column('teacher', sa.String(length=200), nullable=False),
    sa.Column('rubric_version', sa.String(length=200), nullable=False),
    sa.Column('job_id', sa.Integer(), nullable=True),
    sa.Column('num_asked', sa.Integer(), nullable=False),
    sa.Column('num_cached', sa.Integer(), nullable=False),
    sa.Column('num_scored', sa.Integer(), nullable=False),
    sa.Column('num_unscored', sa.Integer(), nullable=False),
    sa.Column('num_audits', sa.Integer(), nullable=False),
    sa.Column('num_requests', sa.Integer(), nullable=False),
    sa.Column('prompt_tokens', sa.Integer(), nullable=False),
    sa.Column('cached_tokens', sa.Integer(), nullable=False),
    sa.Column('completion_tokens', sa.Integer(), nullable=False),
    sa.Column('cost_usd', sa.Double(), nullable=False),
    sa.Column('num_cost_unknown', sa.Integer(), nullable=False),
    sa.Column('reserved_usd', sa.Double(), nullable=False),
    sa.Column('unclear_usd', sa.Double(), nullable=False),
    sa.Column('reasons', sa.JSON(), nullable=False),
    sa.Column('faults', sa.JSON(), nullable=False),
    sa.Column('created_at', db.base.UtcDateTime(timezone=True), nullable=False),
    sa.Column('updated_at', db.base.UtcDateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_teacher_usage_job_id_jobs')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_teacher_usage')),
    sa.UniqueConstraint('run_token', 'day', name=op.f('uq_teacher_usage_run_token'))
    )
    with op.batch_alter_table('teacher_usage', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_teacher_usage_day'), ['day'], unique=False)
        batch_op.create_index(batch_op.f('ix_teacher_usage_job_id'), ['job_id'], unique=False)

    op.create_table('teacher_proposals',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('inspection', sa.String(length=200), nullable=False),
    sa.Column('kind', sa.String(length=200), nullable=False),
    sa.Column('subject', sa.String(length=200), nullable=False),
    sa.Column('dataset_id', sa.Integer(), nullable=False),
    sa.Column('sample_id', sa.Integer(), nullable=True),
    sa.Column('urgency', sa.Double(), nullable=False),
    sa.Column('detail', sa.JSON(), nullable=False),
    sa.Column('status', sa.String(length=200), nullable=False),
    sa.Column('decided_by', sa.Integer(), nullable=True),
    sa.Column('decided_reason', sa.Text(), nullable=False),
    sa.Column('decided_at', db.base.UtcDateTime(timezone=True), nullable=True),
    sa.Column('job_id', sa.Integer(), nullable=True),
    sa.Column('created_at', db.base.UtcDateTime(timezone=True), nullable=False),
    sa.CheckConstraint("kind IN ('red_team','weight','best_answer')", name=op.f('ck_teacher_proposals_kind')),
    sa.CheckConstraint("status IN ('proposed','accepted','rejected')", name=op.f('ck_teacher_proposals_status')),
    sa.ForeignKeyConstraint(['dataset_id'], ['datasets.id'], name=op.f('fk_teacher_proposals_dataset_id_datasets')),
    sa.ForeignKeyConstraint(['decided_by'], ['users.id'], name=op.f('fk_teacher_proposals_decided_by_users')),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_teacher_proposals_job_id_jobs')),
    sa.ForeignKeyConstraint(['sample_id'], ['samples.id'], name=op.f('fk_teacher_proposals_sample_id_samples')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_teacher_proposals')),
    sa.UniqueConstraint('inspection', 'kind', 'subject', name=op.f('uq_teacher_proposals_inspection'))
    )
    with op.batch_alter_table('teacher_proposals', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_teacher_proposals_dataset_id'), ['dataset_id'], unique=False)

    op.create_table('teacher_verdicts',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('key', sa.String(length=200), nullable=False),
    sa.Column('teacher', sa.String(length=200), nullable=False),
    sa.Column('rubric_version', sa.String(length=200), nullable=False),
    sa.Column('teacher_score', sa.Double(), nullable=False),
    sa.Column('safety_flag', sa.Boolean(), nullable=True),
    sa.Column('critique', sa.Text(), nullable=False),
    sa.Column('suggested_answer', sa.Text(), nullable=True),
    sa.Column('prompt_hash', sa.String(length=200), nullable=False),
    sa.Column('completion_hash', sa.String(length=200), nullable=False),
    sa.Column('sample_id', sa.Integer(), nullable=True),
    sa.Column('reported_model', sa.String(length=200), nullable=False),
    sa.Column('fingerprint', sa.String(length=200), nullable=False),
    sa.Column('prompt_tokens', sa.Integer(), nullable=False),
    sa.Column('completion_tokens', sa.Integer(), nullable=False),
    sa.Column('cost_usd', sa.Double(), nullable=True),
    sa.Column('latency_s', sa.Double(), nullable=True),
    sa.Column('source', sa.String(length=200), nullable=False),
    sa.Column('job_id', sa.Integer(), nullable=True),
    sa.Column('created_at', db.base.UtcDateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_teacher_verdicts_job_id_jobs')),
    sa.ForeignKeyConstraint(['sample_id'], ['samples.id'], name=op.f('fk_teacher_verdicts_sample_id_samples')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_teacher_verdicts')),
    sa.UniqueConstraint('key', name=op.f('uq_teacher_verdicts_key'))
    )
    with op.batch_alter_table('teacher_verdicts', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_teacher_verdicts_sample_id'), ['sample_id'], unique=False)
        batch_op.create_index('ix_teacher_verdicts_teacher', ['teacher', 'rubric_version', 'id'], unique=False)

    op.create_table('teacher_audits',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('verdict_id', sa.Integer(), nullable=False),
    sa.Column('teacher', sa.String(length=200), nullable=False),
    sa.Column('rubric_version', sa.String(length=200), nullable=False),
    sa.Column('first_score', sa.Double(), nullable=False),
    sa.Column('second_score', sa.Double(), nullable=False),
    sa.Column('first_flag', sa.Boolean(), nullable=True),
    sa.Column('second_flag', sa.Boolean(), nullable=True),
    sa.Column('critique', sa.Text(), nullable=False),
    sa.Column('reported_model', sa.String(length=200), nullable=False),
    sa.Column('fingerprint', sa.String(length=200), nullable=False),
    sa.Column('job_id', sa.Integer(), nullable=True),
    sa.Column('created_at', db.base.UtcDateTime(timezone=True), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_teacher_audits_job_id_jobs')),
    sa.ForeignKeyConstraint(['verdict_id'], ['teacher_verdicts.id'], name=op.f('fk_teacher_audits_verdict_id_teacher_verdicts')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_teacher_audits'))
    )
    with op.batch_alter_table('teacher_audits', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_teacher_audits_verdict_id'), ['verdict_id'], unique=False)
