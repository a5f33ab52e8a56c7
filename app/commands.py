"""Every command but `serve` (the body of `app.__main__`). Each is a few lines: read options, call core, print."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import typer

from app import (
    access_commands,
    ask_commands,
    audit_commands,
    checks,
    expansion_commands,
    expansion_export_commands,
    expansion_train_commands,
    index_commands,
    postgres_commands,
    release_commands,
    retrieval_commands,
)
from app.console import help_text, language, say, word
from app.export_commands import export
from app.reward_commands import reward_commands
from app.teacher_commands import teacher_commands
from core import accounts, health
from core.errors import NotFound, UserError
from core.home import current_home
from core.i18n import error_text
from core.jobs import files, forms
from core.jobs import views as jobs
from core.jobs.kinds import KINDS, job_kind
from core.jobs.tasks import argv_of
from core.records import CancelMode, Message
from core.settings import ROOT, describe, load_settings
from db.engine import read_session

#: options of `train KIND` are drawn from the kind's config, so typer must let them through
LOOSE = {"allow_extra_args": True, "ignore_unknown_options": True}
FOREGROUND = typer.Option(False, "--foreground", help=help_text("foreground"))

user_commands = typer.Typer(help=help_text("user"), no_args_is_help=True)
job_commands = typer.Typer(help=help_text("jobs"), no_args_is_help=True)


def register(cli: typer.Typer) -> None:
    """Add all commands to the command line."""
    cli.add_typer(user_commands, name="user")
    access_commands.register(cli, user_commands)
    cli.command("import", help=help_text("import"))(import_file)
    cli.command(help=help_text("export"))(export)
    index_commands.register(cli, as_meant, run_or_queue)
    cli.command(help=help_text("ask"))(ask_commands.ask)
    cli.command(help=help_text("mcp"))(ask_commands.mcp)
    cli.command(help=help_text("predict"))(predict)
    cli.command(help=help_text("train"), context_settings={**LOOSE, "help_option_names": []})(train)
    for kind in ("sample", "score"):
        cli.command(kind, help=help_text(kind), context_settings={**LOOSE, "help_option_names": []})(_shortcut(kind))
    cli.add_typer(job_commands, name="jobs")
    release_commands.register(cli, as_meant, run_or_queue)
    retrieval_commands.register(cli, _shortcut)
    expansion_commands.register(cli, as_meant, _shortcut)
    expansion_export_commands.register(expansion_commands.expansion_commands, _shortcut)
    expansion_train_commands.register(cli, as_meant, run_or_queue, _shortcut)
    cli.command(help=help_text("demo"))(demo)
    cli.command(help=help_text("settings"))(settings)
    audit_commands.register(cli, as_meant)
    postgres_commands.register(cli, as_meant)
    cli.add_typer(reward_commands, name="reward")
    cli.add_typer(teacher_commands, name="teacher")
    cli.command(help=help_text("fuzz"))(fuzz)
    cli.command(help=help_text("test"), context_settings={**LOOSE, "help_option_names": []})(test)


# --- accounts -------------------------------------------------------------------------------------------------------------


def _say_link(username: str, user_id: int) -> None:
    say(f"{word('user_link', name=username)}\n  {health.address()}/login/once/{accounts.make_link(user_id, by=None)}")


@user_commands.command("add", help=help_text("user_add"))
def user_add(username: str, role: str = typer.Option("clinician"), name: str = typer.Option("", help=help_text("display_name"))) -> None:
    """Add an account and print its one-time link."""
    _say_link(username, accounts.create_user(username, name or username, role, by=None))


@user_commands.command("list", help=help_text("user_list"))
def user_list() -> None:
    """One line per account."""
    for account in accounts.list_accounts():
        state = "" if account.is_active else word("disabled")
        seen = f"{account.last_seen_at:%Y-%m-%d %H:%M}" if account.last_seen_at else "-"
        say(f"{account.username:<20} {account.role:<10} {seen:<17} {account.display_name} {state}".rstrip())


@user_commands.command("reset", help=help_text("user_reset"))
def user_reset(username: str) -> None:
    """Print a one-time link with which the person sets a new password."""
    _say_link(username, accounts.find_user(username))


# --- jobs -----------------------------------------------------------------------------------------------------------------


def parse_options(kind: str, arguments: list[str]) -> dict[str, Any]:
    """`--lora-r 8 --models a,b --rescore` as values of the kind's config. Raises UserError("start.bad_option")."""
    known = {field.name: field for field in forms.fields(kind)}
    values: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        option, has_value, value = rest.pop(0).partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if not option.startswith("--") or name not in known:
            raise UserError("start.bad_option", option=option, kind=kind)
        kind_of = known[name].type
        if not has_value:
            if rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            elif kind_of == "switch":
                value = "true"
            else:
                raise UserError("start.option_needs_value", option=option, kind=kind)
        if kind_of == "names":
            values[name] = [part.strip() for part in value.split(",") if part.strip()]
        elif kind_of == "mapping":
            values[name] = dict(part.partition("=")[::2] for part in value.split(",") if part)
        else:
            values[name] = value
    return values


def _describe_kind(kind: str) -> None:
    found = job_kind(kind)
    say(f"./run.sh train {kind}  -  {found.zh if language() == 'zh' else found.en}\n")
    for field in forms.fields(kind):
        default = word("required") if field.is_required else json.dumps(field.default, ensure_ascii=False)
        say(f"  --{field.name.replace('_', '-'):<20} {field.zh if language() == 'zh' else field.en} [{default}]")


def run_or_queue(kind: str, values: dict[str, Any], *, is_foreground: bool) -> None:
    """Put a job in the queue, or run its script here and now, without the queue, and leave with its exit code."""
    if not is_foreground:
        say(word("job_queued", id=jobs.start(kind, values, None)))
        return
    config = forms.validated(kind, values)
    home = current_home()
    run_dir = home.runs / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text(config.model_dump_json(indent=1), encoding="utf-8")
    environment = {**os.environ, "CONSILIUM_HOME": str(home.root)}
    command = argv_of(kind, config.model_dump(), run_dir)
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    say(word("job_ended", code=code, path=run_dir))
    if code:
        raise typer.Exit(code)


def train(context: typer.Context, kind: str = typer.Argument("", metavar="KIND")) -> None:
    """`train sft --name my-sft`: any job kind with the options of its config."""
    arguments = [a for a in context.args if a != "--foreground"]
    if kind in ("", "--help", "-h"):
        say(help_text("train") + "\n")
        for found in KINDS.values():
            say(f"  {found.name:<10} {found.zh if language() == 'zh' else found.en}")
        return
    if "--help" in arguments or "-h" in arguments:
        _describe_kind(kind)
        return
    job_kind(kind)
    run_or_queue(kind, parse_options(kind, arguments), is_foreground="--foreground" in context.args)


def _shortcut(kind: str) -> Any:
    def command(context: typer.Context) -> None:
        train(context, kind)

    return command


@job_commands.command("list", help=help_text("jobs_list"))
def jobs_list(status: str = "", limit: int = 20) -> None:
    """Newest first."""
    for job in jobs.newest(status=status or None, limit=limit):
        done, total = job.progress.get("done", 0), job.progress.get("total", 0)
        say(f"{job.id:>6} {job.kind:<10} {job.status:<10} {f'{done}/{total}' if total else '-':<12} {job.title}".rstrip())


@job_commands.command("cancel", help=help_text("jobs_cancel"))
def jobs_cancel(job_id: int, save: bool = typer.Option(False, "--save", help=help_text("jobs_save"))) -> None:
    """Stop a job, at once or after saving a checkpoint."""
    job = jobs.stop(job_id, CancelMode.STOP_AND_SAVE if save else CancelMode.STOP_NOW, None)
    say(f"{job.id} {job.kind} {job.status}")


@job_commands.command("log", help=help_text("jobs_log"))
def jobs_log(job_id: int, lines: int = 200) -> None:
    """The end of a job's log."""
    job = jobs.get(job_id)
    say(files.tail(current_home().run_dir(job.id) / "log.txt", lines).text)
    if job.error.get("code"):
        say(error_text(UserError(job.error["code"], **job.error.get("params", {})), language()), is_error=True)


def demo() -> None:
    """Queue the demo chain again."""
    say(word("demo_queued", num=len(jobs.start_demo(None))))


def as_meant(path: Path) -> Path:
    """A path typed on the command line, from where the person stood: run.sh changes to its own folder."""
    return (Path(os.environ.get("CONSILIUM_CALLED_FROM", ".")) / path.expanduser()).resolve()


# --- data, index, models ----------------------------------------------------------------------------------------------------


def import_file(
    path: Path,
    dataset: str = typer.Option(..., help=help_text("dataset")),
    kind: str = typer.Option("", help=help_text("import_kind")),
    mapping: list[str] = typer.Option([], "--map", help=help_text("import_map")),  # noqa: B008 - typer reads the default
    source: str = "",
    licence: str = "",
    split: str = "",
    queue: bool = typer.Option(False, "--queue", help=help_text("queue")),
) -> None:
    """Import a JSONL, JSON, CSV or Parquet file."""
    path = as_meant(path)
    if not path.is_file():
        raise NotFound("start.no_such_file", path=path)
    values = {"path": str(path), "dataset": dataset, "kind": kind, "source": source, "licence": licence, "split": split}
    columns = dict(part.partition("=")[::2] for part in mapping)
    run_or_queue("import", {**values, "mapping": columns}, is_foreground=not queue)


def predict(
    question: str,
    model: str = typer.Option("", help=help_text("model")),
    temperature: float = 0.2,
    seed: int = 0,
    max_new_tokens: int = 512,
    queue: bool = typer.Option(False, "--queue", help=help_text("queue")),
) -> None:
    """Stream a version's answer from the model server; of a file of questions, write a table of answers."""
    from core.model_client import stream_chat
    from core.models import serving_version
    from core.prediction import SUFFIXES

    if not model:
        with read_session() as session:
            serving = serving_version(session)
        model = serving.name if serving else load_settings().serve_model
    if not model:
        raise NotFound("start.no_version_serving")
    if Path(question).suffix.lower() in SUFFIXES:
        path = as_meant(Path(question))
        if not path.is_file():
            raise NotFound("start.no_such_file", path=path)
        values = {"path": str(path), "model": model, "temperature": temperature, "seed": seed, "max_new_tokens": max_new_tokens}
        run_or_queue("predict", values, is_foreground=not queue)
        return
    pieces = stream_chat(model, [Message("user", question)], temperature=temperature, seed=seed, max_new_tokens=max_new_tokens)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def fuzz(minutes: float = typer.Argument(10, help=help_text("fuzz_minutes"))) -> None:
    """Run all fuzzers for so many minutes together; installs their own packages first."""
    raise typer.Exit(checks.fuzz(minutes))


def test(context: typer.Context) -> None:
    """Run all checks, or pytest with these arguments."""
    raise typer.Exit(checks.run(context.args))


# --- looking --------------------------------------------------------------------------------------------------------------


def settings() -> None:
    """Every setting with the value in force."""
    for row in describe(load_settings()):
        say(f"{row['name']:<22} {row['value'] or '-':<28} {row[language()]} [{row['variable']}]")
