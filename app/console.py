"""Speaking on the terminal, in the language of the settings."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from core.errors import UserError
from core.i18n import translate
from core.settings import load_settings


@cache
def language() -> str:
    """The settings' language; English when the settings themselves cannot be read."""
    try:
        return load_settings().language
    except UserError:
        return "en"


def word(key: str, **params: Any) -> str:
    """A sentence of the `start` catalogue."""
    return translate(f"start.{key}", language(), **params)


def help_text(command: str) -> str:
    """What a command or option is for."""
    return translate(f"cli.{command}", language())


def say(line: str, *, is_error: bool = False) -> None:
    """One line to the terminal, at once."""
    print(line, file=sys.stderr if is_error else sys.stdout, flush=True)
