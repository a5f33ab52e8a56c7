"""`./run.sh reward ...`: the reward in force in words, and the versions it had."""

from __future__ import annotations

import typer

from app.console import help_text, say
from core import reward_configs
from core.home import current_home
from core.reward_limits import weights_of

reward_commands = typer.Typer(help=help_text("reward"), no_args_is_help=True)


@reward_commands.command("rules", help=help_text("reward_rules"))
def reward_rules(version: str = typer.Option("", help=help_text("reward_version"))) -> None:
    """Print the rules; for the version in force also write the file anew."""
    if version:
        say(reward_configs.rules_markdown(version))
        return
    home = current_home()
    path = reward_configs.write_rules(home)
    say(path.read_text(encoding="utf-8"))
    say(str(path), is_error=True)


@reward_commands.command("list", help=help_text("reward_list"))
def reward_list() -> None:
    """One line per version, newest first."""
    for one in reward_configs.listing():
        numbers = " ".join(f"{name} {value:g}" for name, value in weights_of(one.config).items())
        mark = "*" if one.is_in_force else " "
        say(f"{mark} {one.config.version:<5} {one.status:<9} {numbers} conflict {one.config.conflict_threshold:g}  {one.reason}".rstrip())
