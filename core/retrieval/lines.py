"""What every reader of a document format gives: its lines, which of them are headings, and the page each stands on. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a document. `page` counts from 1; None where the format has no pages."""

    text: str
    is_heading: bool = False
    page: int | None = None


class Unreadable(Exception):
    """Why a file was left out: `code` names its sentence in assets/i18n, `params` fill it. Never leaves `read_folder`."""

    def __init__(self, code: str, **params: Any) -> None:
        self.code, self.params = code, params
        super().__init__(code)
