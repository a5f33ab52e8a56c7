"""`./run.sh expansion export | converter | optimise-prompt | prompts | use-prompt`: ship an expansion model, find it a better prompt."""

from __future__ import annotations

from collections.abc import Callable

import typer

from app.console import language, say
from core import accounts
from core.expansion import gguf_converter, prompts
from core.home import current_home
from core.i18n import translate


def word(key: str, **params: object) -> str:
    return translate(f"expansion_export.{key}", language(), **params)


LOOSE = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def register(group: typer.Typer, shortcut: Callable[[str], Callable[..., None]]) -> None:
    """Add the commands to `./run.sh expansion`; `shortcut` makes one that queues a job kind with its options."""
    group.command("export", help=word("help_export"), context_settings=LOOSE)(shortcut("expansion_export"))
    group.command("optimise-prompt", help=word("help_optimise"), context_settings=LOOSE)(shortcut("expansion_prompt"))
    group.command("converter", help=word("help_converter"))(converter)
    group.command("prompts", help=word("help_prompts"))(list_prompts)
    group.command("use-prompt", help=word("help_use_prompt"))(use_prompt)


def converter() -> None:
    """Have llama.cpp's converter here: what the setting names, what is unpacked already, else downloaded."""
    found = gguf_converter.find(current_home().settings.gguf_converter) or gguf_converter.fetch()
    say(word("converter_ready", path=found.folder, origin=found.origin))


def list_prompts(full: bool = typer.Option(False, "--full", help=word("help_prompts_full"))) -> None:
    """One line per version, the one in force with a star."""
    for one in prompts.listing():
        scores = one.scores
        measured = f"{scores['before']:.3f} -> {scores['after']:.3f} n={scores['num_heldout']}" if scores else ""
        when = f"{one.created_at:%Y-%m-%d %H:%M}" if one.created_at else "-"
        say(f"{'*' if one.is_in_force else ' '}{one.id:>4}  {when:<16}  {one.origin:<8} {one.model:<20} {measured}".rstrip())
        if full:
            say("      " + one.text.replace("\n", "\n      "))


def use_prompt(
    prompt_id: int,
    by: str = typer.Option(..., help=word("help_by")),
    reason: str = typer.Option(..., help=word("help_reason")),
    model: str = typer.Option("", help=word("help_prompt_model")),
) -> None:
    """Put a version in force; the name of who decides and the reason go into the audit chain."""
    prompts.apply(prompt_id, by=accounts.find_user(by), reason=reason, model=model)
    list_prompts(full=False)
