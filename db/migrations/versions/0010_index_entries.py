"""entries of a search index, what a version was made from, and who switched to it"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import db.base

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Versions of before hold no pseudo-questions; who switched to them was not kept."""
    with op.batch_alter_table("search_indexes") as batch:
        batch.add_column(sa.Column("num_entries", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("based_on", sa.Integer(), nullable=True))
        batch.add_column(sa.Column("note", sa.Text(), nullable=False, server_default=""))
        batch.add_column(sa.Column("activated_at", db.base.UtcDateTime(timezone=True), nullable=True))
        batch.add_column(sa.Column("activated_by", sa.Integer(), nullable=True))
        batch.create_foreign_key(op.f("fk_search_indexes_activated_by_users"), "users", ["activated_by"], ["id"])
