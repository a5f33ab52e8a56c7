"""`./run.sh expansion-train`, `expansion-evaluate`, `expansion-compare`: trainings from YAML, and their figures. Thin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from app.console import help_text, language, say
from core.expansion import compare, runs, runs_plan, runs_yaml
from core.i18n import translate

LOOSE = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def register(
    cli: typer.Typer,
    as_meant: Callable[[Path], Path],
    run_or_queue: Callable[..., None],
    shortcut: Callable[[str], Callable[..., None]],
) -> None:
    """Add the commands."""

    def train(
        stage: runs_yaml.Stage = typer.Argument(..., help=help_text("expansion_stage")),  # noqa: B008
        config: Path = typer.Option(..., "--config", help=help_text("expansion_config")),  # noqa: B008 - typer reads the default
        accelerate: Path | None = typer.Option(None, "--accelerate", help=help_text("expansion_accelerate")),  # noqa: B008
        dry_run: bool = typer.Option(False, "--dry-run", help=help_text("expansion_dry_run")),
        foreground: bool = typer.Option(False, "--foreground", help=help_text("foreground")),
    ) -> None:
        asked = runs_yaml.read(as_meant(config), stage, accelerate=as_meant(accelerate) if accelerate else None)
        if dry_run:
            for line in runs_plan.plan(asked, language()):
                say(line)
            return
        run_or_queue(asked.kind, asked.config.model_dump(), is_foreground=foreground)

    cli.command("expansion-train", help=help_text("expansion_train"))(train)
    cli.command("expansion-evaluate", help=help_text("expansion_evaluate"), context_settings=LOOSE)(shortcut("expansion_evaluate"))
    cli.command("expansion-compare", help=help_text("expansion_compare"))(compare_two)


def compare_two(evaluation: int, baseline: str, candidate: str) -> None:
    """Paired differences of two expanders of one evaluation."""
    found = compare.compare(runs.open_report(evaluation), baseline, candidate)
    lines: list[Any] = [*found.measures.values(), *found.slices]
    for one in lines:
        name = f"{one.by} {one.value}".strip()
        say(
            f"{name:<24} n={one.n:<5} {one.baseline:.3f} -> {one.candidate:.3f}  {one.difference:+.3f} "
            f"[{one.ci_low:+.3f}, {one.ci_high:+.3f}] p={one.p_value if one.p_holm is None else one.p_holm:.4f}"
        )
    valid = " -> ".join("-" if v is None else f"{v:.2%}" for v in found.valid)
    say(translate("expansion_training.valid_lines", language()) + f" {valid}")
