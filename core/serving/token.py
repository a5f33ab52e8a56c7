"""The token that the web process shows to the model server. Loopback alone does not keep other users of the machine out.

`CONSILIUM_MODEL_SERVER_TOKEN` wins; otherwise one is made once and kept in `secrets.json` in the home folder, readable by
its owner only. Called by the server and by its clients; whoever comes first makes it. Other secrets of a home lie beside it.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets

from core.errors import UserError
from core.home import Home

NAME = "model_server_token"


def server_token(home: Home) -> str:
    """The shared token. Raises UserError("serving.bad_secrets") when secrets.json cannot be read as JSON."""
    return home.settings.model_server_token or kept_secret(home, NAME)


def kept_secret(home: Home, name: str) -> str:
    """A secret of this home, made at the first call. Raises as `server_token`."""
    path = home.root / "secrets.json"
    with (home.locks / "secrets.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two processes starting together must agree on one
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            token = str(values.get(name, ""))
        except (ValueError, AttributeError) as error:
            raise UserError("serving.bad_secrets", path=path) from error
        if not token:
            token = secrets.token_urlsafe(32)
            scratch = path.with_suffix(f".{os.getpid()}.tmp")
            with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump({**values, name: token}, file)
            scratch.replace(path)
    return token
