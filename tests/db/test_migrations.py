"""The migrations lead to exactly the tables that the code maps, from an empty file and from the first release's schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from db import tables
from db.base import Base
from db.migrate import alembic_config, migrate
from tests.databases import Databases

assert tables  # mapping the tables fills Base.metadata


def differences(url: str) -> list[Any]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"include_object": is_ours})
            return list(compare_metadata(context, Base.metadata))
    finally:
        engine.dispose()


def is_ours(_object: Any, name: str | None, kind: str, *_rest: Any) -> bool:
    """Full-text tables are no mapped ones: each database has its own."""
    return not (kind == "table" and name is not None and name.startswith("case_search"))


def test_an_empty_database_gets_the_mapped_schema(databases: Databases) -> None:
    assert differences(databases.template_url) == []


@pytest.mark.parametrize("revision", ["0001"])
def test_rows_of_an_earlier_release_live_on(revision: str, tmp_path: Path, databases: Databases) -> None:
    url = databases.blank(tmp_path)
    command.upgrade(alembic_config(url), revision)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO reward_configs (version, chain, emergency, risk_penalty, teacher, conflict_threshold, status, reason,"
                " created_at) VALUES ('v1', 0.35, 0.25, 0.15, 0.25, 0.3, 'approved', 'shipped', '2026-11-20 08:00:00')"
            )
        )
    engine.dispose()
    migrate(url)
    assert differences(url) == []
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version, status FROM reward_configs")).all() == [("v1", "approved")]
    engine.dispose()
