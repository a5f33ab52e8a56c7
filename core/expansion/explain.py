"""A deduction as a sentence. Called by the CLI and the pages."""

from __future__ import annotations

from core.expansion.points import Deduction
from core.i18n import translate


def explain(deduction: Deduction, language: str) -> str:
    """One sentence in "en" or "zh" that says which line lost the points and why."""
    return translate(f"expansion.{deduction.reason_key}", language, line=deduction.line, **deduction.facts)
