"""The one table from an exception to what a person is told: HTTP status, sentence, or a short id and a traceback in the log."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

from core.errors import Conflicting, Forbidden, NotFound, Unavailable, UserError
from core.i18n import error_text, translate

logger = logging.getLogger("consilium")

#: first match counts
STATUS: tuple[tuple[type[UserError], int], ...] = (
    (NotFound, 404),
    (Forbidden, 403),
    (Conflicting, 409),
    (Unavailable, 503),
    (UserError, 400),
)


@dataclass(frozen=True, slots=True)
class Told:
    """What is said about an error. `error_id` is set only for a bug and stands beside the traceback in the log."""

    status: int
    code: str
    text: str
    error_id: str | None = None


def describe(error: Exception, language: str) -> Told:
    """The sentence for `error`. Anything but a `UserError` is logged with its traceback under a short id."""
    if isinstance(error, UserError):
        status = next(number for kind, number in STATUS if isinstance(error, kind))
        return Told(status, error.code, error_text(error, language))
    error_id = secrets.token_hex(4)
    logger.error("error %s", error_id, exc_info=error)
    return Told(500, "unexpected", translate("errors.unexpected", language, id=error_id), error_id)
