"""Files of a run folder as rows and objects, cached by size and time: a page that refreshes reads only what has changed.

A file that is missing, or is being written, is no error here. Called by core.training_runs.
"""

from __future__ import annotations

import csv
import json
from functools import lru_cache
from pathlib import Path
from typing import Any


def number(text: str | None) -> float | None:
    """A CSV field as a number; None for an empty or broken one."""
    try:
        return float(text) if text not in (None, "") else None
    except ValueError:
        return None


def _stamp(path: Path) -> tuple[str, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_mtime_ns, found.st_size


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none, or not yet a whole one."""
    stamp = _stamp(path)
    value = _read_json(stamp) if stamp else None
    return value if isinstance(value, dict) else None


def read_rows(path: Path) -> list[dict[str, str]] | None:
    """The rows of a CSV that belong to a rollout; None without the file."""
    stamp = _stamp(path)
    return _read_csv(stamp) if stamp else None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; the last line may be half written."""
    stamp = _stamp(path)
    return _read_lines(stamp) if stamp else []


@lru_cache(maxsize=16)
def _read_json(stamp: tuple[str, int, int]) -> Any:
    try:
        return json.loads(Path(stamp[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


@lru_cache(maxsize=8)
def _read_csv(stamp: tuple[str, int, int]) -> list[dict[str, str]]:
    try:
        with Path(stamp[0]).open(encoding="utf-8", newline="") as file:
            return [row for row in csv.DictReader(file) if (row.get("rollout") or "").isdigit()]
    except (OSError, ValueError, csv.Error):
        return []


@lru_cache(maxsize=8)
def _read_lines(stamp: tuple[str, int, int]) -> list[dict[str, Any]]:
    found = []
    try:
        text = Path(stamp[0]).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found
