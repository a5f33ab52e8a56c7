"""Stable names for people that do not tell who they are: HMAC of the account under a key that never leaves the data folder."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from contextlib import suppress

from core.home import Home

KEY_FILE = "pseudonyms.key"


class Pseudonyms:
    """`of(user_id)` is the same in every export of one data folder and says nothing outside it."""

    def __init__(self, home: Home) -> None:
        path = home.root / KEY_FILE
        if not path.is_file():
            scratch = path.with_suffix(f".{os.getpid()}")
            scratch.touch(mode=0o600)
            scratch.write_bytes(secrets.token_bytes(32))
            with suppress(FileExistsError):  # somebody else was first: their key counts
                os.link(scratch, path)
            scratch.unlink()
        self._key = path.read_bytes()

    def of(self, user_id: int | None) -> str | None:
        """`reviewer-` and ten hex digits; None for nobody."""
        if user_id is None:
            return None
        return "reviewer-" + hmac.new(self._key, str(user_id).encode(), hashlib.sha256).hexdigest()[:10]
