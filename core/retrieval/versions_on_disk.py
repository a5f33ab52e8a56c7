"""A version of an index as a folder: made elsewhere, complete before it is seen, checked before it is read.

Invariants: manifest.json is written last and names the SHA-256 of every other file; a folder without it, or with a file that
differs, is refused; a published folder is never written again. A file is hashed once per process: versions share files by
hard links, and what was true of an inode of that size and time is true of it in the next version. Called by
core.retrieval.index and the index job.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from core.errors import Unavailable

#: of the folder's files; a folder of another format is refused
FORMAT = 2
MANIFEST = "manifest.json"
_hashed: dict[tuple[int, int, int, int], str] = {}


def seal(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Add the checksums and write the manifest: from now on the folder is complete. Returns what was written."""
    manifest = {**manifest, "files": {str(path.relative_to(folder)): sha256(path) for path in _files(folder)}}
    (folder / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
    return manifest


def publish(scratch: Path, target: Path) -> None:
    """Put a finished scratch folder in its place in one step, its contents safe on disk first.

    Raises FileExistsError when `target` is there already: a published version is never replaced.
    """
    if target.exists():
        raise FileExistsError(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in [*scratch.rglob("*"), scratch]:
        _sync(path)
    scratch.rename(target)
    _sync(target.parent)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises Unavailable("ask.index_missing" / "ask.index_damaged")."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        dict(manifest["files"])
    except FileNotFoundError as error:
        raise Unavailable("ask.index_missing", path=folder) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable("ask.index_damaged", file=MANIFEST, path=folder) from error
    return manifest


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Raises Unavailable("ask.index_damaged") for the first file that is not what was built."""
    for name, digest in manifest["files"].items():
        path = folder / name
        if not path.is_file() or sha256(path) != digest:
            raise Unavailable("ask.index_damaged", file=name, path=folder)


def sha256(path: Path) -> str:
    """Of the file's bytes; computed once per process for the same inode, size and time of change."""
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in _hashed:
            _hashed[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return _hashed[key]


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST and p.suffix != ".lock")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
