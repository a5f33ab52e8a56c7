"""DATA_CARD.md: what a dataset is, where it comes from, what was refused and why, in words a regulator can follow."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from core.i18n import translate
from core.jobs.configs import ImportConfig

if TYPE_CHECKING:
    from core.importing.importer import Report


def write_card(path: Path, config: ImportConfig, report: Report, content_hash: str, *, file_name: str) -> None:
    """Write the card; counts come from the report, nothing is estimated."""
    path.write_text(card_text(config, report, content_hash, file_name), encoding="utf-8")


def card_text(config: ImportConfig, report: Report, content_hash: str, file_name: str) -> str:
    """The card as Markdown."""
    lines = [
        f"# Data card: {config.dataset}",
        "",
        f"- File: `{file_name}`, SHA-256 `{report.file_sha256}`, encoding {report.encoding or 'binary'}",
        f"- Imported: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC as kind `{report.kind}`, split seed {config.seed}",
        f"- Source: {config.source or 'not stated'}; licence: {config.licence or 'not stated'}",
        f"- Content hash of the samples: `{content_hash}`",
        "",
        "## Rows",
        "",
        f"{report.num_rows} read, {report.num_imported} imported, {report.num_rejected} refused, "
        f"{report.num_exact_duplicates} repeated a prompt exactly, {report.num_near_duplicates} nearly.",
        f"Stored with them: {report.num_completions} completions, {report.num_pairs} preference pairs, "
        f"{report.num_judgements} judgements, {report.num_conflicts} conflicts.",
        "",
        *_table("Column mapping", ("field", "column"), report.mapping),
        *_table("Splits", ("split", "samples"), report.splits),
        *_table("Languages", ("language", "samples"), report.languages),
        *_table("Risk (given, or from the danger-sign lexicon)", ("risk", "samples"), report.risks),
    ]
    lines += _privacy(report)
    refused = {translate(f"data.{code}_short", "en"): count for code, count in report.rejected_by_reason.items()}
    lines += _table("Refused rows", ("reason", "rows"), refused)
    return "\n".join(lines) + "\n"


def _privacy(report: Report) -> list[str]:
    """What was done with rows that identify a person."""
    words = {
        "quarantine": f"{report.num_quarantined} rows seemed to identify a person and were held in quarantine.",
        "surrogate": f"{report.num_surrogates} rows seemed to identify a person; surrogates were put in their place.",
        "off": f"Not done: de-identification was switched off by {report.privacy_note}",
    }
    found = {translate(f"privacy.kind_{kind}", "en"): num for kind, num in report.identifiers.items()}
    return ["## De-identification", "", words[report.privacy_action], "", *_table("Found", ("kind", "times"), found)]


def _table(title: str, head: tuple[str, str], values: dict[str, str] | dict[str, int]) -> list[str]:
    if not values:
        return []
    rows = [f"| {key} | {value} |" for key, value in sorted(values.items())]
    return [f"## {title}", "", f"| {head[0]} | {head[1]} |", "|---|---|", *rows, ""]
