"""`./run.sh` and `./run.sh COMMAND`: the command line, in the language of the settings.

An error that a person can mend is one sentence and exit code 2; anything else is a traceback in logs/command.log, a short id
on the terminal and exit code 1.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import typer
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app import commands
from app.console import help_text, language, say, word
from app.errors import describe
from app.launcher import LOOPBACK, Launcher
from core import accounts
from core.errors import Unavailable, UserError
from core.home import Home, open_home
from core.jobs import views as jobs
from core.logs import JsonLines
from core.overview import has_datasets
from core.settings import load_settings
from db.engine import explain

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
commands.register(cli)

#: `serve` brings the database up itself, once it is the only one on it; `restore` writes another home than the one in force
WITHOUT_DATABASE = ("serve", "settings", "test", "fuzz", "restore")


@cli.callback(help=help_text("about"))
def prepare(context: typer.Context) -> None:
    """Commands that read or write the database find it at this version, also on a new data folder."""
    if context.invoked_subcommand not in WITHOUT_DATABASE:
        migrate_home()


@cli.command(help=help_text("serve"))
def serve(
    port: int = typer.Option(-1, help=help_text("port"), show_default=False),
    empty: bool = typer.Option(False, "--empty", help=help_text("empty")),
    no_browser: bool = typer.Option(False, "--no-browser", help=help_text("no_browser")),
) -> None:
    """Start web, worker and model server and keep them running until Ctrl-C."""
    settings = load_settings()
    home = open_home(settings)
    log_to(home, "launcher")

    def tell(line: str) -> None:
        with suppress(OSError):  # a terminal that has gone, or a full disk behind it, ends nobody
            say(line)
        logging.getLogger("consilium.launcher").info(line)

    launcher = Launcher(home, settings.port if port < 0 else port, tell)
    launcher.claim()
    tell(word("starting", path=home.root))
    if settings.host not in LOOPBACK and not settings.secure_cookies:
        tell(word("not_encrypted", host=settings.host))
    migrate_home()
    link = accounts.first_admin_link()
    num_jobs = 0 if empty else offer_demo()

    def on_ready(address: str) -> None:
        tell(word("ready", address=address))
        start_at = address
        if link is not None:
            start_at = f"{address}/login/once/{link}"
            say(f"{word('admin_link')}\n  {start_at}")  # a secret: shown, never logged
        if num_jobs:
            tell(word("demo_queued", num=num_jobs))
        if not no_browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform in ("darwin", "win32")):
            typer.launch(start_at)

    launcher.run(on_ready)
    tell(word("stopped"))
    left = [f"{job.id} ({job.kind})" for job in jobs.newest(status="running")]
    if left:
        tell(word("jobs_go_on", jobs=", ".join(left)))


def migrate_home() -> None:
    """Bring the database to this version. Raises Unavailable("start.migration_failed")."""
    from alembic.util import CommandError

    try:
        open_home(with_migration=True)
    except (CommandError, SQLAlchemyError) as error:
        if isinstance(error, DBAPIError) and (told := explain(error)) is not None:  # locked, damaged, on a full disk
            raise told from error
        raise Unavailable("start.migration_failed", reason=str(error).splitlines()[0]) from error


def offer_demo() -> int:
    """Queue the demo on a home that has no data yet; returns the number of jobs."""
    return 0 if has_datasets() or jobs.was_demo_run() else len(jobs.start_demo(None))


def log_to(home: Home, name: str) -> None:
    """Send log lines of this process to logs/<name>.log. Raises UserError("home_not_writable")."""
    try:
        handler = logging.FileHandler(home.logs / f"{name}.log", encoding="utf-8")
    except OSError as error:
        raise UserError("home_not_writable", path=home.logs, reason=error.strerror or error) from error
    handler.setFormatter(JsonLines(name))
    logger = logging.getLogger("consilium")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def main() -> int:
    """Run one command; the edge where errors become sentences."""
    try:
        code = cli(prog_name="./run.sh", standalone_mode=False)
    except typer.TyperException as error:  # a mistyped command or option
        say(error.format_message(), is_error=True)
        say(word("see_help"), is_error=True)
        return 2
    except typer.Abort:
        return 130
    except UserError as error:
        say(describe(error, language()).text, is_error=True)
        return 2
    except Exception as error:  # the edge: everything else is a bug
        log_to(open_home(), "command")
        say(describe(error, language()).text, is_error=True)
        return 1
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
