"""An OpenAI-compatible /embeddings endpoint (text-embedding-3-* and all that speak alike).

The key is read from the environment variable whose name is stored, at the moment of the call; it stands in no log, error or
manifest. Rate limits and 5xx are tried again a few times; every fault is a sentence. Called by `core.retrieval.encoders`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from core.errors import Unavailable, UserError
from core.privacy_doors import outside_texts

TIMEOUT = httpx.Timeout(60.0, connect=5.0)
#: texts of one request (OpenAI takes 2,048 and 300,000 tokens in all)
LOT = 128
MAX_TRIES = 4
MAX_WAIT_S = 20.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: the widths of OpenAI's models, so that an index can be planned before the first call
KNOWN = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}


@dataclass(slots=True)
class EmbeddingEndpoint:
    """Where to ask. `wanted` is sent as `dimensions` when above 0 (text-embedding-3-* shorten their vectors)."""

    name: str
    url: str
    model: str
    key_variable: str
    wanted: int
    _seen: int = 0

    @property
    def hash(self) -> str:
        """Stands for the weights that we cannot see: the address, the model and the width."""
        return hashlib.sha256(f"{self.url}\0{self.model}\0{self.wanted}".encode()).hexdigest()

    @property
    def dimension(self) -> int:
        known = self.wanted or self._seen or KNOWN.get(self.model, 0)
        return known or int(self.embed(["dimension"]).shape[1])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(n, dimension) float32, as the endpoint gives them.

        Raises UserError("embedding.key_missing"), Unavailable("embedding.endpoint_down" / "embedding.endpoint_refused" /
        "embedding.endpoint_busy" / "embedding.endpoint_error" / "embedding.endpoint_odd").
        """
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        texts = outside_texts(texts)
        headers = {"Authorization": f"Bearer {key}"} if (key := self._key()) else {}
        is_remote = (urlsplit(self.url).hostname or "") not in LOOPBACK
        lots = []
        with httpx.Client(timeout=TIMEOUT, trust_env=is_remote, headers=headers) as client:
            for start in range(0, len(texts), LOT):
                lots.append(self._lot(client, texts[start : start + LOT]))
        found = np.concatenate(lots)
        if found.shape[1] != (self.wanted or self._seen or found.shape[1]):
            raise Unavailable("embedding.wrong_dimension", name=self.name, found=found.shape[1], wanted=self.wanted or self._seen)
        self._seen = int(found.shape[1])
        return found

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "") if self.key_variable else ""
        if self.key_variable and not key:
            raise UserError("embedding.key_missing", name=self.name, variable=self.key_variable)
        return key

    def _lot(self, client: httpx.Client, texts: Sequence[str]) -> np.ndarray:
        # an empty input is refused by OpenAI; a space is not
        body: dict[str, Any] = {"model": self.model, "input": [text or " " for text in texts], "encoding_format": "float"}
        if self.wanted:
            body["dimensions"] = self.wanted
        for attempt in range(1, MAX_TRIES + 1):
            try:
                response = client.post(f"{self.url}/embeddings", json=body)
            except httpx.HTTPError as error:
                if attempt == MAX_TRIES or isinstance(error, httpx.UnsupportedProtocol):
                    # without the cause: its text may hold the request with its headers
                    raise Unavailable("embedding.endpoint_down", name=self.name, reason=type(error).__name__) from None
                time.sleep(min(MAX_WAIT_S, 0.5 * 2**attempt))
                continue
            if response.status_code not in (408, 429) and response.status_code < 500:
                break
            if attempt < MAX_TRIES:
                time.sleep(_wait_s(response, attempt))
        return self._read(response, len(texts))

    def _read(self, response: httpx.Response, num: int) -> np.ndarray:
        if response.status_code in (401, 403):
            raise Unavailable("embedding.endpoint_refused", name=self.name, variable=self.key_variable)
        if response.status_code == 429:
            raise Unavailable("embedding.endpoint_busy", name=self.name)
        if not response.is_success:
            raise Unavailable("embedding.endpoint_error", name=self.name, status=response.status_code)
        try:
            rows = sorted(response.json()["data"], key=lambda row: row["index"])
            found = np.array([row["embedding"] for row in rows], dtype=np.float32)
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable("embedding.endpoint_odd", name=self.name) from error
        if found.ndim != 2 or len(found) != num or not np.isfinite(found).all():
            raise Unavailable("embedding.endpoint_odd", name=self.name)
        return found


def embedding_endpoint(name: str, manifest: Mapping[str, Any]) -> EmbeddingEndpoint:
    """The endpoint of a registered row (see `retrieval_models.add_endpoint`)."""
    stored = manifest
    return EmbeddingEndpoint(name, stored["url"], stored["model"], stored.get("key_variable", ""), int(stored.get("dimension", 0)))


def _wait_s(response: httpx.Response, attempt: int) -> float:
    said = response.headers.get("retry-after", "")
    return min(MAX_WAIT_S, float(said)) if said.replace(".", "", 1).isdigit() else min(MAX_WAIT_S, 0.5 * 2**attempt)
