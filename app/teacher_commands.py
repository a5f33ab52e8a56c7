"""`./run.sh teacher ...`: verdicts out and in, and how the teacher is doing."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from app.console import help_text, language, say
from core.errors import NotFound
from core.i18n import translate
from core.teacher import exchange, report

DEFAULT_FILE = typer.Argument(Path("teacher_judgements.jsonl"))

teacher_commands = typer.Typer(help=help_text("teacher"), no_args_is_help=True)


def _path(path: Path) -> Path:
    """From where the person stood: run.sh changes to its own folder."""
    return (Path(os.environ.get("CONSILIUM_CALLED_FROM", ".")) / path.expanduser()).resolve()


@teacher_commands.command("export", help=help_text("teacher_export"))
def teacher_export(path: Path = DEFAULT_FILE, teacher: str = "", rubric: str = "") -> None:
    """Write the stored verdicts as JSON lines."""
    target, num = _path(path), 0
    scratch = target.with_name(target.name + ".part")
    with scratch.open("w", encoding="utf-8") as out:
        for line in exchange.export_lines(teacher, rubric):
            out.write(line)
            num += 1
    scratch.replace(target)
    say(translate("teacher.cli_exported", language(), num=num, path=target))


@teacher_commands.command("import", help=help_text("teacher_import"))
def teacher_import(path: Path) -> None:
    """Add the verdicts of a file; those that are here already stand."""
    source = _path(path)
    if not source.is_file():
        raise NotFound("start.no_such_file", path=source)
    with source.open("rb") as lines:
        done = exchange.import_lines(lines, by=None, name=source.name)
    counts = {"new": done.num_new, "known": done.num_known, "different": done.num_different, "bad": done.num_bad}
    say(translate("teacher.brought_in", language(), **counts))
    for number, reason in done.bad_lines:
        say(translate("teacher.bad_line", language(), number=number, reason=reason), is_error=True)


@teacher_commands.command("status", help=help_text("teacher_status"))
def teacher_status() -> None:
    """Volume, cache, money and alarms in a line."""
    view = report.view()
    cached = f"{view.total.num_cached / view.total.num_asked:.0%}" if view.total.num_asked else "–"
    numbers = {
        "judged": view.total.num_asked,
        "cached": cached,
        "usd": f"{view.month.usd:.4f}",
        "possible": f"{view.month.possible_usd:.4f}",
    }
    say(translate("teacher.cli_status", language(), **numbers, alarms=sum(a.is_open for a in view.alarms)))
