"""The log of what was asked of a teacher and what came back: JSON lines by day, redacted, of bounded size.

Keys never reach a line. Question and answer are written only when the setting allows it, and then without what identifies a
person (`redact`); otherwise their hashes are. A failed write is reported once and never stops a judgement.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = "deepseek_teacher"
MAX_FILE_BYTES = 20_000_000
MAX_FILES = 30

_log = logging.getLogger("consilium.teacher")

#: order matters: what is longest and surest first
_PATTERNS = (
    ("key", re.compile(r"\b(?:sk|pk|rk|api|key|hf|ghp|glpat)[-_][A-Za-z0-9_-]{12,}\b|\bBearer\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)),
    ("email", re.compile(r"[A-Za-z0-9._%+-]+[@＠][A-Za-z0-9.-]+\.[A-Za-z]{2,}")),
    ("id", re.compile(r"(?<!\d)(?:\d{6}(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]|\d{15})(?!\d)")),
    ("id", re.compile(r"(?<!\d)\d{3}-\d{2}-\d{4}(?!\d)")),
    ("record", re.compile(
        r"(?:病历号|住院号|门诊号|就诊号|病案号|医保号|护照号?|MRN|patient\s+id|passport(?:\s+no\.?)?)\s*[:：#]?\s*[A-Za-z0-9-]{4,}",
        re.IGNORECASE)),
    ("phone", re.compile(r"(?<![\d.])(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}(?!\d)")),
    ("phone", re.compile(r"(?<![\d.])0\d{2,3}[- ]\d{7,8}(?!\d)|(?<![\d.])\+\d{1,3}[- ]?(?:\(?\d{2,4}\)?[- ]?){2,4}\d{2,4}(?!\d)")),
    ("card", re.compile(r"(?<!\d)(?:\d[ -]?){15,18}\d(?!\d)")),
)  # fmt: skip
_WIDE = str.maketrans("０１２３４５６７８９", "0123456789")


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` without keys, e-mail addresses, telephone, identity, record and card numbers; `secrets` are removed verbatim."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "[key]")
    text = text.translate(_WIDE)
    for name, pattern in _PATTERNS:
        text = pattern.sub(f"[{name}]", text)
    return text


class Journal:
    """Appends to `folder`/YYYY-MM-DD.jsonl; a full file is followed by YYYY-MM-DD.1.jsonl, and the oldest files go."""

    def __init__(
        self,
        folder: Path,
        *,
        with_text: bool = False,
        secrets: tuple[str, ...] = (),
        max_file_bytes: int = MAX_FILE_BYTES,
        max_files: int = MAX_FILES,
    ) -> None:
        self.folder, self.with_text, self.secrets = folder, with_text, secrets
        self.max_file_bytes, self.max_files = max_file_bytes, max_files
        self._has_complained = False

    def text(self, words: str) -> str:
        """`words` as they may be logged: redacted, or a hash and a length."""
        if self.with_text:
            return redact(words, self.secrets)
        return f"sha256:{hashlib.sha256(words.encode()).hexdigest()[:16]} ({len(words)} characters)"

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line. Every string in it is redacted again, whatever the caller did."""
        line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **self._clean(entry)}, ensure_ascii=False) + "\n"
        data = line.encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self._file(len(data))
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, data)  # one write: lines of several processes do not mix
            finally:
                os.close(descriptor)
        except OSError as error:
            if not self._has_complained:
                _log.warning("teacher log not written: %s", error)
            self._has_complained = True

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            return redact(value, self.secrets)
        if isinstance(value, Mapping):
            return {k: v if k in ("key", "teacher", "rubric_version") else self._clean(v) for k, v in value.items()}
        return [self._clean(v) for v in value] if isinstance(value, list) else value

    def _file(self, num_bytes: int) -> Path:
        """Today's file with room for a line; makes room among the files when it starts a new one."""
        day, number = f"{datetime.now(UTC):%Y-%m-%d}", 0
        while True:
            path = self.folder / (f"{day}.{number}.jsonl" if number else f"{day}.jsonl")
            if not path.exists():
                self._drop_oldest()
                return path
            if path.stat().st_size + num_bytes <= self.max_file_bytes:
                return path
            number += 1

    def _drop_oldest(self) -> None:
        files = sorted(self.folder.glob("*.jsonl"), key=lambda p: p.stat().st_mtime)
        for path in files[: max(0, len(files) - self.max_files + 1)]:
            path.unlink(missing_ok=True)
