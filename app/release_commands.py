"""`./run.sh package`: write, verify and load release packages. Registered by app.commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from app.console import language, say
from core import release, release_files
from core.errors import UserError
from core.home import current_home
from core.i18n import translate


def word(key: str, **params: Any) -> str:
    """A sentence of the `release` catalogue."""
    return translate(f"release.{key}", language(), **params)


def register(cli: typer.Typer, as_meant: Callable[[Path], Path], run_or_queue: Callable[..., None]) -> None:
    """Add `package VERSION --as NAME`, `package verify DIR` and `package load DIR`."""

    @cli.command("package", help=word("help_package"))
    def package(
        what: str = typer.Argument(..., metavar="VERSION|verify|load", help=word("help_what")),
        folder: str = typer.Argument("", metavar="[DIR]", help=word("help_folder")),
        name: str = typer.Option("", "--as", help=word("help_as")),
        out: str = typer.Option("", "--out", help=word("help_out")),
        with_base: bool = typer.Option(False, "--with-base", help=word("help_with_base")),
        base: str = typer.Option("", "--base", help=word("help_base")),
        queue: bool = typer.Option(False, "--queue", help=word("help_queue")),
    ) -> None:
        if what in ("verify", "load"):
            if not folder:
                raise UserError("release.needs_folder", command=what)
            place = as_meant(Path(folder))
            if what == "verify":
                manifest = release_files.verify(place)
                say(word("verified", name=manifest["name"], num=len(manifest["files"])))
            else:
                say(word("loaded", name=release.load(current_home(), place, base=base)))
            return
        if not name:
            raise UserError("release.needs_name")
        place_out = str(as_meant(Path(out))) if out else ""
        values = {"model": what, "name": name, "out": place_out, "with_base": with_base}
        run_or_queue("package", values, is_foreground=not queue)
