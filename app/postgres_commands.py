"""`./run.sh move-to-postgres URL` and `move-to-sqlite FILE`: the whole record into another database, verified there before it counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from app.console import help_text, language, say
from core import database_move
from core.home import current_home
from core.i18n import translate
from core.settings import load_settings


def register(cli: typer.Typer, as_meant: Callable[[Path], Path]) -> None:
    """Add the commands; `as_meant` reads a path from where the person stood."""

    def move_to_sqlite(file: Path) -> None:
        """The way back."""
        _move(f"sqlite:///{as_meant(file)}")

    cli.command("move-to-postgres", help=help_text("move_to_postgres"))(move_to_postgres)
    cli.command("move-to-sqlite", help=help_text("move_to_sqlite"))(move_to_sqlite)


def move_to_postgres(url: str) -> None:
    """Into an empty database; what lies in SQLite stays as it is."""
    _move(load_settings({"CONSILIUM_DATABASE_URL": url}).url)


def _move(url: str) -> None:
    made = database_move.move(current_home(), url, on_table=lambda name, rows: say(f"  {name:<28} {rows:>10,}"))
    said = translate(
        "postgres.moved",
        language(),
        url=made.url,
        tables=made.num_tables,
        rows=made.num_rows,
        entries=made.num_entries,
        decisions=made.num_decisions,
    )
    say(said)
