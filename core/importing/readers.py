"""Files to raw rows: JSONL, JSON, CSV/TSV and Parquet, with row and line numbers and one clear reason per unreadable row.

Encodings are recognised, not guessed: a byte-order mark, then strict UTF-8, then strict GB18030 (the encoding Chinese
hospital exports are found in). Pure but for reading the file.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import UserError

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "csv", ".txt": "jsonl", ".parquet": "parquet"}
BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
#: Python knows them as encodings; no file is written in them, and some give half characters
NOT_OF_FILES = frozenset({"unicode-escape", "raw-unicode-escape", "utf-7", "idna", "punycode", "undefined"})
#: half of a character outside the basic plane, as JSON may write it; alone it is no text and cannot be stored
HALF = re.compile(r"\\u[dD][89a-fA-F]")
csv.field_size_limit(10_000_000)


@dataclass(frozen=True, slots=True)
class RawRow:
    """`row` counts records from 1, `line` is the line of the file on which the record ends (None where lines mean nothing)."""

    row: int
    line: int | None
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RowError:
    """A record that cannot be used: `code` names its sentence in assets/i18n/data.toml."""

    row: int
    line: int | None
    code: str
    params: dict[str, Any] = field(default_factory=dict)


def detect_format(path: Path) -> str:
    """jsonl, json, csv or parquet. Raises UserError for a missing, empty, binary or unknown file."""
    if not path.is_file():
        raise UserError("data.file_missing", path=path.name)
    if path.stat().st_size == 0:
        raise UserError("data.file_empty", path=path.name)
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"PAR1":
        return "parquet"
    if suffix not in FORMATS:
        raise UserError("data.format_unknown", path=path.name, known=", ".join(sorted(FORMATS)))
    if suffix == ".parquet":
        raise UserError("data.not_parquet", path=path.name)
    if b"\x00" in head and not head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError("data.file_binary", path=path.name)
    return FORMATS[suffix]


def detect_encoding(path: Path) -> str:
    """The first of BOM, UTF-8, GB18030 under which the whole file decodes. Raises UserError("data.encoding_unknown")."""
    with path.open("rb") as file:
        head = file.read(4)
    for mark, name in BOMS:
        if head.startswith(mark):
            return name
    for name in ("utf-8", "gb18030"):
        if _decodes(path, name):
            return name
    raise UserError("data.encoding_unknown", path=path.name)


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)(errors="strict")
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """The file as text; raises UserError for an encoding Python does not know or that does not fit."""
    try:
        known = codecs.lookup(encoding).name
        if known in NOT_OF_FILES:
            raise LookupError(known)
        return path.open(encoding=encoding, errors="strict", newline="")
    except (LookupError, ValueError):  # no such name, a codec that makes no text, a name with a null in it
        raise UserError("data.encoding_no_such", encoding=encoding) from None


def read_rows(path: Path, encoding: str = "") -> Iterator[RawRow | RowError]:
    """Every record of the file in order, unusable ones as RowError. Raises UserError for a file that cannot be read at all."""
    kind = detect_format(path)
    if kind == "parquet":
        yield from _read_parquet(path)
        return
    encoding = encoding or detect_encoding(path)
    with open_text(path, encoding) as file:
        try:
            yield from {"jsonl": _read_jsonl, "json": _read_json, "csv": _read_csv}[kind](file)
        except UnicodeDecodeError as error:
            raise UserError("data.encoding_wrong", encoding=encoding, position=error.start) from error


def clean(value: Any) -> Any:
    """NaN and numpy-like scalars become plain values; everything else stays as it is."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def _read_jsonl(file: io.TextIOWrapper) -> Iterator[RawRow | RowError]:
    row = 0
    for line_number, line in enumerate(file, 1):
        if not line.strip():
            continue
        row += 1
        yield _json_row(row, line_number, line)


def _json_row(row: int, line: int, text: str) -> RawRow | RowError:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return RowError(row, line, "row_not_json", {"reason": error.msg, "column": error.colno})
    except (RecursionError, ValueError) as error:
        return RowError(row, line, "row_not_json", {"reason": _why(error), "column": 1})
    if HALF.search(text) and not _is_text(value):
        return RowError(row, line, "row_not_json", {"reason": "half a character (\\ud800 to \\udfff)", "column": 1})
    if not isinstance(value, dict):
        return RowError(row, line, "row_not_object", {"found": type(value).__name__})
    return RawRow(row, line, {str(k): clean(v) for k, v in value.items()})


def _why(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else "a number with more than 4300 digits"


def _is_text(value: Any) -> bool:
    """Whether every text in a parsed value can be stored."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_json(file: io.TextIOWrapper) -> Iterator[RawRow | RowError]:
    try:
        value = json.load(file)
    except json.JSONDecodeError as error:
        raise UserError("data.json_broken", line=error.lineno, column=error.colno, reason=error.msg) from error
    except UnicodeDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise UserError("data.json_broken", line=1, column=1, reason=_why(error)) from None
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list)]
        value = lists[0] if len(lists) == 1 else [value]
    if not isinstance(value, list):
        raise UserError("data.json_not_list")
    for row, item in enumerate(value, 1):
        if isinstance(item, dict) and not _is_text(item):
            yield RowError(row, None, "row_not_json", {"reason": "half a character (\\ud800 to \\udfff)", "column": 1})
        elif isinstance(item, dict):
            yield RawRow(row, None, {str(k): clean(v) for k, v in item.items()})
        else:
            yield RowError(row, None, "row_not_object", {"found": type(item).__name__})


def _read_csv(file: io.TextIOWrapper) -> Iterator[RawRow | RowError]:
    sample = file.read(64_000)
    file.seek(0)
    first_line = sample.splitlines()[0] if sample else ""
    delimiter = max(",\t;|", key=first_line.count)
    reader = csv.reader(file, delimiter=delimiter)
    try:
        header = [h.strip().lstrip("\ufeff") for h in next(reader)]
    except (StopIteration, csv.Error):
        raise UserError("data.csv_no_header") from None
    if len(set(header)) != len(header) or not all(header):
        raise UserError("data.csv_bad_header", header=", ".join(header)[:200])
    row = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row += 1
            yield RowError(row, reader.line_num, "row_bad_csv", {"reason": str(error)})
            continue
        if not any(cell.strip() for cell in cells):
            continue
        row += 1
        if len(cells) != len(header):
            yield RowError(row, reader.line_num, "row_bad_width", {"found": len(cells), "expected": len(header)})
        else:
            yield RawRow(row, reader.line_num, dict(zip(header, cells, strict=True)))


def _read_parquet(path: Path) -> Iterator[RawRow | RowError]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        row = 0
        for batch in file.iter_batches(batch_size=2000):
            for values in batch.to_pylist():
                row += 1
                yield RawRow(row, None, {str(k): clean(v) for k, v in values.items()})
    except (pa.ArrowException, OSError) as error:
        raise UserError("data.parquet_broken", path=path.name, reason=str(error)[:200]) from error
