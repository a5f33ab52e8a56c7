"""`./run.sh export KIND`: write an export and say where it lies."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from app.console import help_text, say
from core.exports import service
from core.exports.rows import Filter


def export(
    kind: str,
    form: str = typer.Option("", "--format", help=help_text("export_format")),
    dataset: str = typer.Option("", help=help_text("dataset")),
    language: str = typer.Option("", help=help_text("export_language")),
    since: datetime | None = typer.Option(None, help=help_text("export_since")),  # noqa: B008 - typer reads the default
) -> None:
    """Prints the path of the file; its manifest lies beside it."""
    made = service.make(None, kind, form, Filter(dataset, language, since.replace(tzinfo=UTC) if since else None))
    say(f"{made.num_rows} {made.sha256}", is_error=True)
    say(str(service.file_of(made.id)[1]))
