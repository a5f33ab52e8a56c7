"""`./run.sh index ...`: build and update search indexes, list their versions, go back to one, move one to a search engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from app.console import help_text, say, word
from core.retrieval import index_versions

FOREGROUND = typer.Option(False, "--foreground", help=help_text("foreground"))
FOLDER = typer.Option("", "--kb-dir", "--folder", help=help_text("index_folder"))
NAME = typer.Option("guidelines", "--out", "--name", help=help_text("index_name"))
ENCODER = typer.Option("", help=help_text("index_encoder"))
WRITER = typer.Option("", help=help_text("index_writer"))
QUESTIONS = typer.Option(5, "--questions", help=help_text("index_questions"))
CHARACTERS = typer.Option(0, "--characters", help=help_text("index_characters"))

index_commands = typer.Typer(help=help_text("index"), no_args_is_help=True)


def register(cli: typer.Typer, as_meant: Callable[[Path], Path], run_or_queue: Callable[..., None]) -> None:
    """Add the commands; `as_meant` resolves a path as typed, `run_or_queue` starts a job."""

    def run(values: dict[str, Any], folder: str, *, is_foreground: bool) -> None:
        resolved = str(as_meant(Path(folder))) if folder else ""
        run_or_queue("index", {**values, "folder": resolved}, is_foreground=is_foreground)

    @index_commands.command("build", help=help_text("index_build"))
    def build(
        folder: str = FOLDER,
        name: str = NAME,
        encoder: str = ENCODER,
        writer: str = WRITER,
        questions: int = QUESTIONS,
        characters: int = CHARACTERS,
        foreground: bool = FOREGROUND,
    ) -> None:
        values: dict[str, Any] = {"name": name, "encoder": encoder, "writer": writer, "num_questions": questions}
        if characters:
            values |= {"chunk_unit": "character", "chunk_characters": characters}
        run(values, folder, is_foreground=foreground)

    @index_commands.command("update", help=help_text("index_update"))
    def update(folder: str = FOLDER, name: str = NAME, writer: str = WRITER, foreground: bool = FOREGROUND) -> None:
        run({"name": name, "action": "update", "writer": writer}, folder, is_foreground=foreground)

    @index_commands.command("move", help=help_text("index_move"))
    def move(
        to: str = typer.Option(..., "--to", help=help_text("index_to")),
        name: str = NAME,
        reason: str = typer.Option("", help=help_text("index_reason")),
        foreground: bool = FOREGROUND,
    ) -> None:
        run_or_queue("index_move", {"name": name, "to": to, "reason": reason}, is_foreground=foreground)

    @index_commands.command("prune", help=help_text("index_prune"))
    def prune(stats: Path, name: str = NAME, foreground: bool = FOREGROUND) -> None:
        run({"name": name, "action": "update", "prune_stats": str(as_meant(stats))}, "", is_foreground=foreground)

    cli.add_typer(index_commands, name="index")


@index_commands.command("list", help=help_text("index_list"))
def list_versions(name: str = typer.Argument("")) -> None:
    """One line per version; the star answers."""
    shown = index_versions.listing(name)
    for one in shown:
        made = f"v{one.based_on}+" if one.based_on else ""
        vectors = one.manifest.get("encoder")
        channels = f"{vectors['name']}/{one.manifest['dense']}" if vectors else "-"
        channels += f" @{one.manifest['engine']['kind']}" if one.manifest.get("engine") else ""
        say(
            f"{'*' if one.is_active else ' '} {one.name:<16} v{one.version:<4} {one.created_at:%Y-%m-%d %H:%M} {one.num_documents:>7} "
            f"{one.num_chunks:>8} {one.num_entries:>8}  {channels} {made} {one.note}".rstrip()
        )
    if not shown:
        say(word("index_none"))


@index_commands.command("activate", help=help_text("index_activate"))
def activate(name: str, version: int, reason: str = typer.Option("", help=help_text("index_reason"))) -> None:
    """Let a version answer: the roll-back, too."""
    shown = index_versions.activate(name, version, by=None, reason=reason)
    say(word("index_active", name=shown.name, version=shown.version, num=shown.num_chunks))
