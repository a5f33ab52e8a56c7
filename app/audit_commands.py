"""`./run.sh audit verify | anchor`, `inspect CASE`, `backup PATH`, `restore PATH --into HOME`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import typer

from app.console import help_text, language, say
from core import audit_anchor, audit_rows, backup, inspection
from core.home import current_home
from core.i18n import translate
from core.settings import load_settings

audit_commands = typer.Typer(help=help_text("audit"), no_args_is_help=True)
_as_meant: list[Callable[[Path], Path]] = []


def register(cli: typer.Typer, as_meant: Callable[[Path], Path]) -> None:
    """Add the commands; `as_meant` reads a path from where the person stood."""
    _as_meant[:] = [as_meant]
    cli.add_typer(audit_commands, name="audit")
    cli.command("inspect", help=help_text("inspect"))(inspect_case)
    cli.command("backup", help=help_text("backup"))(back_up)
    cli.command("restore", help=help_text("restore"))(restore)


def _say(key: str, *, is_error: bool = False, **params: object) -> None:
    say(translate(f"trust.{key}", language(), **params), is_error=is_error)


@audit_commands.command("verify", help=help_text("audit_verify"))
def audit_verify() -> None:
    """Exit code 1 and the first bad entry when the record does not hold."""
    started = time.perf_counter()
    found = audit_rows.examine_all(current_home())
    if found.broken is not None:
        why = translate(f"trust.why_{found.broken.why}", language())
        _say("said_broken", is_error=True, entry=found.broken.entry_id, why=why)
        raise typer.Exit(1)
    seconds = f"{time.perf_counter() - started:.1f}"
    _say("said_verified", num=found.num_entries, points=found.num_points, rows=found.num_rows, seconds=seconds)


@audit_commands.command("anchor", help=help_text("audit_anchor"))
def anchor() -> None:
    """Also exit code 1 when the chain does not hold."""
    home = current_home()
    point = audit_anchor.write(home)
    if point is None:
        _say("said_nothing_to_anchor")
        return
    _say("said_anchored", entry=point.entry, hash=point.hash, path=", ".join(map(str, audit_anchor.folders(home))))
    if not point.holds:
        raise typer.Exit(1)


def inspect_case(case: int, out: Path = typer.Option(Path("."), help=help_text("inspect_out"))) -> None:  # noqa: B008 - typer reads the default
    """One zip."""
    target = _as_meant[0](out)
    path = target if target.suffix == ".zip" else target / f"case-{case}.zip"
    inspection.make(current_home(), case, path, by=None, language=language())
    _say("said_pack", id=case, path=path)


def back_up(path: Path) -> None:
    """While everything runs."""
    made = backup.backup(current_home(), _as_meant[0](path))
    size = f"{made.num_bytes / 1e6:.1f} MB"
    _say("said_backup", path=made.path, files=made.num_files, linked=made.num_linked, size=size, entries=made.entries)


def restore(path: Path, into: Path = typer.Option(..., help=help_text("restore_into"))) -> None:  # noqa: B008 - typer reads the default
    """Into an empty folder only."""
    made = backup.restore(_as_meant[0](path), _as_meant[0](into), load_settings())
    _say("said_restore", path=made.path, files=made.num_files, entries=made.entries)
