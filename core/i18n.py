"""Catalogues of sentences in both languages: `assets/i18n/<area>.toml`, one table per key with `en` and `zh`.

Pure but for reading the catalogue once. A key is `area.name`; a missing key raises in tests and shows the key on screen.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import UserError

CATALOGUES = Path(__file__).resolve().parents[1] / "assets" / "i18n"
LANGUAGES = ("en", "zh")


@cache
def catalogue(area: str) -> dict[str, dict[str, Any]]:
    """All keys of one area. Raises FileNotFoundError for an unknown area."""
    with (CATALOGUES / f"{area}.toml").open("rb") as file:
        return tomllib.load(file)


def translate(key: str, language: str, **params: Any) -> str:
    """The sentence for `area.name` in `language`, placeholders filled. Falls back to the key itself, never raises."""
    area, _, name = key.partition(".")
    try:
        text = str(catalogue(area)[name][language])
    except (FileNotFoundError, KeyError):
        return key
    try:
        return text.format(**params)
    except (KeyError, IndexError, ValueError):
        return text


def error_text(error: UserError, language: str) -> str:
    """One clear sentence and the next step for an error a person can mend."""
    key = error.code if "." in error.code else f"errors.{error.code}"
    return translate(key, language, **error.params)
