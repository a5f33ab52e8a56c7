"""an index for the few cases that wait for an arbiter"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    waiting = sa.text("arbitration_at IS NOT NULL")
    op.create_index("ix_conflicts_arbitration", "conflicts", ["arbitration_at"], sqlite_where=waiting, postgresql_where=waiting)
