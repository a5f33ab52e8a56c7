"""Writing rows to a file: JSONL, CSV, Parquet, JSON and Markdown. Streams where the format allows it; returns count and SHA-256.

CSV cells that a spreadsheet would run as a formula get an apostrophe in front (OWASP, CSV injection); lists and objects are JSON
text in CSV. Parquet keeps lists, and holds objects with free keys as JSON text, because its columns have fixed types.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from core.errors import UserError

DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
#: what a browser is told about the file
MEDIA_TYPES = {
    "jsonl": "application/x-ndjson",
    "json": "application/json",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "md": "text/markdown",
}
PARQUET_ROWS = 2000


def write(path: Path, rows: Iterable[dict[str, Any]], form: str, *, title: str = "") -> tuple[int, str]:
    """Write `rows` in `form`; returns (number of rows, SHA-256 of the file). Raises UserError("exports.no_such_format")."""
    writer = WRITERS.get(form)
    if writer is None:
        raise UserError("exports.no_such_format", format=form, known=", ".join(WRITERS))
    num = writer(path, iter(rows), title)
    with path.open("rb") as file:
        return num, hashlib.file_digest(file, "sha256").hexdigest()


def safe_cell(value: Any) -> Any:
    """A value for a CSV cell: text that looks like a formula is defused, numbers stay numbers, nothing is an empty cell."""
    if isinstance(value, list | dict):
        value = json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value.startswith(DANGEROUS) else value


def _jsonl(path: Path, rows: Iterator[dict[str, Any]], _title: str) -> int:
    num = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            num += 1
    return num


def _json(path: Path, rows: Iterator[dict[str, Any]], _title: str) -> int:
    num = 0
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for num, row in enumerate(rows, 1):
            file.write(("\n" if num == 1 else ",\n") + json.dumps(row, ensure_ascii=False))
        file.write("\n]\n")
    return num


def _csv(path: Path, rows: Iterator[dict[str, Any]], _title: str) -> int:
    """Columns of all rows, in the order in which they first appear: a rule that scored only some rows has its column too."""
    kept = list(rows)
    columns = list(dict.fromkeys(name for row in kept for name in row))
    with path.open("w", encoding="utf-8-sig", newline="") as file:  # with a mark, or Excel reads Chinese as noise
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({name: safe_cell(row.get(name)) for name in columns} for row in kept)
    return len(kept)


def _parquet(path: Path, rows: Iterator[dict[str, Any]], _title: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = [{name: _plain(name, value) for name, value in row.items()} for row in rows]
    columns = list(dict.fromkeys(name for row in kept for name in row))
    table = pa.table({name: pa.array([row.get(name) for row in kept]) for name in columns})
    pq.write_table(table, path, row_group_size=PARQUET_ROWS)
    return len(kept)


#: columns whose items are objects of one fixed shape, which Parquet can hold as they are
CHATS = frozenset({"prompt", "chosen", "rejected", "completion", "messages"})


def _plain(name: str, value: Any) -> Any:
    is_free = isinstance(value, dict) or (isinstance(value, list) and name not in CHATS and any(isinstance(v, dict | list) for v in value))
    return json.dumps(value, ensure_ascii=False) if is_free else value


def _markdown(path: Path, rows: Iterator[dict[str, Any]], title: str) -> int:
    """One section per row: short values as a table, long texts as quotes. Text of a model never becomes markup."""
    num = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(f"# {title}\n")
        for num, row in enumerate(rows, 1):
            file.write(f"\n## {num}\n\n| | |\n|---|---|\n")
            short = {k: v for k, v in row.items() if v is not None and not (isinstance(v, str) and (len(v) > 60 or "\n" in v))}
            for name, value in short.items():
                file.write(f"| {name} | {_escaped(_short(value))} |\n")
            for name, value in row.items():
                if value is not None and name not in short:
                    quoted = "\n".join(f"> {_escaped(line)}" for line in str(value).splitlines())
                    file.write(f"\n**{name}**\n\n{quoted}\n")
    return num


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _escaped(text: str) -> str:
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, "\\" + mark)
    return text


WRITERS: dict[str, Callable[[Path, Iterator[dict[str, Any]], str], int]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
    "md": _markdown,
}
