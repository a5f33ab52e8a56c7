"""Alembic environment: online only, batch mode so that SQLite can alter tables; on PostgreSQL one process migrates at a time."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

from db import tables  # noqa: F401  (registers every table)
from db.base import Base

#: several machines may start at once: the later ones wait, and find the work done
MIGRATION_LOCK = 0x436F6E75

config = context.config
engine = create_engine(config.get_main_option("sqlalchemy.url") or "", poolclass=pool.NullPool)

with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        context.run_migrations()
engine.dispose()
