"""Bring a database to the newest schema with Alembic; safe to call at every start and from several processes."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

SCRIPTS = Path(__file__).resolve().parent / "migrations"


def alembic_config(url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def newest_revision() -> str:
    """The schema that this program needs."""
    return str(ScriptDirectory.from_config(alembic_config("")).get_current_head())


def migrate(url: str) -> None:
    """Upgrade `url` to the newest revision, creating it when absent."""
    command.upgrade(alembic_config(url), "head")
