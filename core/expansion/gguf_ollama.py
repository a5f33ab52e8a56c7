"""Handing a finished GGUF to an Ollama that can be reached: its file as a blob, then the model made from it.

The same variable as Ollama's own client says where it is (OLLAMA_HOST, default 127.0.0.1:11434). Ollama from 0.34.1 on takes
finished GGUF files only and quantises nothing, so nothing else is ever sent (docs/expansion_export.md).
Source: Ollama's docs/api.md, "Create a model" and "Push a blob". Called by the export job and the command line.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from core.errors import Unavailable, UserError

PORT = 11434
#: making a model copies and checks the blob
CREATE = httpx.Timeout(10.0, read=900.0, write=900.0)
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Made:
    """What Ollama has now. `version` is the server's own."""

    name: str
    host: str
    version: str
    num_bytes: int


def host(environment: str | None = None) -> str:
    """The address of the Ollama server. Raises UserError("expansion_export.ollama_host") for something that is no address."""
    said = (os.environ.get("OLLAMA_HOST", "") if environment is None else environment).strip().strip("\"'")
    parts = urlsplit(said if "://" in said else f"http://{said}")
    try:
        port = parts.port or {"http": PORT if "://" not in said else 80, "https": 443}.get(parts.scheme)
    except ValueError:
        port = None
    if parts.scheme not in ("http", "https") or port is None:
        raise UserError("expansion_export.ollama_host", host=said)
    name = parts.hostname or "127.0.0.1"
    name = "127.0.0.1" if name in ("0.0.0.0", "::") else name  # noqa: S104 - what a server listens on is not where to find it
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}{parts.path.rstrip('/')}"


def hand_over(gguf: Path, name: str, *, template: str, instruction: str, parameters: dict[str, Any]) -> Made:
    """Send the file (not again when it is there) and make the model.

    Raises Unavailable("expansion_export.ollama_away") when nobody answers, Unavailable("expansion_export.ollama_refused") with
    what it said, UserError("expansion_export.ollama_host").
    """
    at = host()
    with gguf.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    body = {"model": name, "files": {gguf.name: digest}, "system": instruction, "parameters": parameters, "stream": False}
    if template:
        body["template"] = template
    try:
        with httpx.Client(base_url=at, timeout=CREATE, trust_env=not at.startswith("http://127.0.0.1")) as client:
            version = _json(client.get("/api/version"), at).get("version", "?")
            if client.head(f"/api/blobs/{digest}").status_code != httpx.codes.OK:
                _json(client.post(f"/api/blobs/{digest}", content=_blocks(gguf)), at)
            said = _json(client.post("/api/create", json=body), at)
    except httpx.HTTPError as error:
        raise Unavailable("expansion_export.ollama_away", host=at, reason=type(error).__name__) from error
    if said.get("status") != "success":
        raise Unavailable("expansion_export.ollama_refused", host=at, reason=str(said.get("error") or said.get("status"))[:300])
    return Made(name, at, str(version), gguf.stat().st_size)


def _json(response: httpx.Response, at: str) -> dict[str, Any]:
    """The body of a reply that is no error; an empty body is an empty object."""
    if response.is_error:
        raise Unavailable("expansion_export.ollama_refused", host=at, reason=f"{response.status_code} {response.text[:300]}")
    if not response.content:
        return {}
    try:
        found = response.json()
    except ValueError as error:
        raise Unavailable("expansion_export.ollama_refused", host=at, reason="not JSON: is this an Ollama?") from error
    return found if isinstance(found, dict) else {}


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block
