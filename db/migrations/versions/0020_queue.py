"""PostgreSQL: the words of cases in a GIN index, as FTS5 holds them on SQLite; whole numbers that may pass two thousand million"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

#: SQLite keeps 64 bits in every INTEGER
LARGE = [
    ("draws", "seed"),
    ("ask_feedback", "after_ms"),
    *(("teacher_usage", f"{kind}_tokens") for kind in ("prompt", "cached", "completion")),
]


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    # id = conflict id; body = our own tokens (core.retrieval.tokens) between blanks, for words that are a run of several tokens
    op.execute("CREATE TABLE case_search (id integer PRIMARY KEY, tokens tsvector NOT NULL, body text NOT NULL)")
    op.execute("CREATE INDEX ix_case_search_tokens ON case_search USING gin (tokens)")
    for table, column in LARGE:
        op.alter_column(table, column, type_=sa.BigInteger())
