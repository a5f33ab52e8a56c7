"""`./run.sh retrieval ...`: measure a ladder, read the decision, see and move trials. Thin: read options, call core, print."""

from __future__ import annotations

import json
from collections.abc import Callable

import typer

from app.console import help_text, say
from core import retrieval_reports, retrieval_trials

LOOSE = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

retrieval_commands = typer.Typer(help=help_text("retrieval"), no_args_is_help=True)


def register(cli: typer.Typer, shortcut: Callable[[str], Callable[..., None]]) -> None:
    """Add the commands; `shortcut` makes one that queues a job kind with its options."""
    retrieval_commands.command("evaluate", help=help_text("retrieval_evaluate"), context_settings=LOOSE)(shortcut("evaluate_retrieval"))
    retrieval_commands.command("learn", help=help_text("retrieval_learn"), context_settings=LOOSE)(shortcut("learn_retrieval"))
    cli.add_typer(retrieval_commands, name="retrieval")


@retrieval_commands.command("list", help=help_text("retrieval_list"))
def list_ladders() -> None:
    """One line per ladder."""
    for one in retrieval_reports.listing():
        chosen = "-" if one.chosen is None else f"{one.chosen:.3f}"
        when = f"{one.created_at:%Y-%m-%d %H:%M}"
        say(f"{one.id:>5}  {when}  {one.name:<20} {one.source:<20} n={one.num_queries:<6} {one.best_leg:<10} {chosen}")


@retrieval_commands.command("decide", help=help_text("retrieval_decide"))
def decide(ladder: int) -> None:
    """The decision with its evidence, as JSON."""
    say(json.dumps(retrieval_reports.decision_of(ladder).as_record(), ensure_ascii=False, indent=1))


@retrieval_commands.command("trials", help=help_text("retrieval_trials"))
def list_trials() -> None:
    """One line per trial."""
    for one in retrieval_trials.listing():
        say(f"{one.id:>5}  {one.index_name:<16} {one.change:<10} {one.status:<12} {one.share:>4.0%}  {one.verdict.get('reason', '')}")
