"""Every request of a prompt search, on disk before it is sent and after it came back: what was spent, and what need not be asked again.

Two lines per request, each flushed to the disk: {"sent": KEY} and {"key": KEY, "text": ...}. A request that was sent and never came
back (a killed process) stays spent, because it may have been billed. The search itself is deterministic, so a run that starts
again walks the same way with the answers that are here and goes on where it was: no other state is kept.
Called by training.expansion_gepa. Safe between threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path


class BudgetSpent(Exception):
    """No request is left."""


class Ledger:
    """`budget`: requests allowed in all. `spent` counts every request ever sent, those of earlier attempts too."""

    def __init__(self, path: Path, budget: int) -> None:
        self.budget = budget
        self.spent = 0
        #: requests of earlier attempts
        self.spent_before = 0
        #: keys that this attempt has come by, asked anew or found here
        self.walked: set[str] = set()
        self._texts: dict[str, str] = {}
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            self._read(path)
        self._file = path.open("a", encoding="utf-8")
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write("\n")  # the kill fell into a line: what follows must not be joined to it
        self.spent_before = self.spent

    def _read(self, path: Path) -> None:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                self.spent += '"sent"' in line  # torn, but it had begun to say that something was sent
                continue
            self.spent += "sent" in row
            if "text" in row:
                self._texts[row["key"]] = row["text"]

    @property
    def left(self) -> int:
        """Requests that may still be sent, seen from where this attempt stands: what an earlier one asked further on is not gone
        yet, so the search decides as it did then; what was sent and lost is gone at once."""
        return self.budget - len(self.walked) - (self.spent - len(self._texts))

    def known(self, key: str) -> str | None:
        """The answer that is here."""
        with self._lock:
            self.walked.add(key)
            return self._texts.get(key)

    def send(self, key: str) -> None:
        """To be called before each request. Raises BudgetSpent when none is left."""
        with self._lock:
            if self.spent >= self.budget:
                raise BudgetSpent
            self.spent += 1
            self._write({"sent": key})

    def got(self, key: str, text: str) -> None:
        with self._lock:
            self._texts[key] = text
            self._write({"key": key, "text": text})

    def close(self) -> None:
        self._file.close()

    def _write(self, row: dict[str, str]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def key_of(model: str, messages: list[dict[str, str]]) -> str:
    """SHA-256 of who is asked what."""
    return hashlib.sha256(json.dumps([model, messages], ensure_ascii=False).encode()).hexdigest()
