"""Words of the screens in the language of the person who looks at them."""

from __future__ import annotations

from typing import Any

from app.session import language
from core.i18n import translate


def t(key: str, **params: Any) -> str:
    """The sentence for `area.key` in the current person's language, placeholders filled."""
    return translate(key, language(), **params)
