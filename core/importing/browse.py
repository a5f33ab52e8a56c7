"""What the Data page shows: datasets, their samples page by page, refused rows. Reads only."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from core.errors import UserError
from core.home import Home
from core.i18n import translate
from core.importing.importer import check_request
from core.jobs.api import enqueue
from core.jobs.configs import ImportConfig
from core.models import check_role
from core.records import Role
from db import tables as t
from db.engine import read_session, write_session

UNSAFE = re.compile(r"[^\w.\-]+")


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One dataset as listed."""

    id: int
    name: str
    kind: str
    num_samples: int
    num_rejected: int
    created_at: datetime
    card_path: str
    report: dict[str, Any]


def list_datasets() -> list[DatasetRow]:
    """All datasets, newest first."""
    with read_session() as session:
        rows = session.scalars(select(t.Dataset).order_by(t.Dataset.id.desc()))
        return [
            DatasetRow(d.id, d.name, d.kind, d.num_samples, int(d.report.get("num_rejected", 0)), d.created_at, d.card_path, d.report)
            for d in rows
        ]


def samples_page(dataset_id: int, *, split: str = "", search: str = "", page: int = 0, size: int = 20) -> tuple[list[t.Sample], int]:
    """One page of samples and how many match. `search` is a plain substring of the prompt."""
    query = select(t.Sample).where(t.Sample.dataset_id == dataset_id)
    if split:
        query = query.where(t.Sample.split == split)
    if search.strip():
        query = query.where(t.Sample.text.contains(search.strip(), autoescape=True))
    with read_session() as session:
        total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
        rows = list(session.scalars(query.order_by(t.Sample.id).offset(page * size).limit(size)))
    return rows, total


def splits_of(dataset_id: int) -> list[str]:
    """Splits that hold samples."""
    with read_session() as session:
        return list(session.scalars(select(t.Sample.split).where(t.Sample.dataset_id == dataset_id).distinct().order_by(t.Sample.split)))


def reason_text(error: dict[str, Any], language: str) -> str:
    """The sentence for one refused row."""
    return translate(f"data.{error['code']}", language, **error["params"])


def rejected_file(home: Home, card_path: str) -> bytes:
    """All refused rows as JSONL with the reason in words; empty when none."""
    path = home.resolve(card_path).parent / "rejected.jsonl" if card_path else Path()
    if not card_path or not path.is_file():
        return b""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        error = json.loads(line)
        lines.append(json.dumps({**error, "reason": reason_text(error, "en")}, ensure_ascii=False))
    return "\n".join(lines).encode()


def card_markdown(home: Home, card_path: str) -> str:
    """The data card's text, or an empty string."""
    path = home.resolve(card_path)
    return path.read_text(encoding="utf-8") if card_path and path.is_file() else ""


def keep_upload(home: Home, name: str, content: bytes) -> Path:
    """Store an uploaded file under a name that cannot leave the uploads folder; returns its path.

    Raises UserError("data.file_too_large") and UserError("disk_full").
    """
    limit = home.settings.max_upload_mb
    if len(content) > limit * 1_000_000:
        raise UserError("data.file_too_large", size=len(content) // 1_000_000, limit=limit)
    safe = UNSAFE.sub("_", Path(name).name).lstrip(".") or "upload"
    folder = home.uploads / secrets.token_hex(8)
    try:
        folder.mkdir(mode=0o700)
        path = folder / safe[-120:]
        path.write_bytes(content)
    except OSError as error:
        raise UserError("disk_full") from error
    return path


def start_import(path: Path, config: ImportConfig, created_by: int | None) -> int:
    """Check what can be checked at once, then queue the import; returns the job's id."""
    check_role(created_by, Role.ENGINEER, Role.ADMIN)
    if not config.dataset.strip():
        raise UserError("data.name_needed")
    with read_session() as session:
        check_request(session, config, path)
    with write_session() as session:
        return enqueue(session, "import", config, created_by=created_by, title=config.dataset, priority=10)
