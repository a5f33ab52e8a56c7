"""Two kinds of error: a `UserError` is one sentence and the next step for a person; anything else is a bug.

A `UserError` carries a code; its sentences stand in both languages in `assets/i18n` (`core.i18n.error_text`): a plain code
in errors.toml, a dotted one (`desk.stale_save`) in the catalogue of its area.
The edge (`app.errors`) turns it into a message; every other exception becomes a traceback in the log and a short id.
"""

from __future__ import annotations

from typing import Any


class UserError(Exception):
    """Something a person can mend. `code` names its sentences in assets/i18n; `params` fill their placeholders."""

    def __init__(self, code: str, **params: Any) -> None:
        self.code = code
        self.params = params
        super().__init__(f"{code} {params}" if params else code)


class NotFound(UserError):
    """The thing asked for does not exist (HTTP 404)."""


class Forbidden(UserError):
    """The signed-in person's role does not allow this (HTTP 403)."""


class Conflicting(UserError):
    """Somebody else was first, or the shown state is stale (HTTP 409). Nothing was overwritten."""


class Unavailable(UserError):
    """A part that should answer does not: database locked, disk full, model server down (HTTP 503)."""
