"""Asking the model server for what needs torch: POST /v1/embeddings and /v1/rerank on loopback. Called by encoders and rerankers."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np

from core.errors import NotFound, Unavailable, UserError
from core.home import current_home
from core.serving.token import server_token

#: the first request may have to wait until weights are loaded
TIMEOUT = httpx.Timeout(2.0, read=60.0, write=10.0)
#: texts of one request: larger lots would hold up the questions of others
LOT = 64
#: what a late reranker may take beyond its budget before its client stops waiting
GRACE_S = 0.03


def embed(name: str, texts: Sequence[str], dimension: int) -> np.ndarray:
    """(n, dimension) float32. Raises Unavailable("embedding.server_down" / "embedding.server_busy" ...) with a sentence."""
    lots = []
    for start in range(0, len(texts), LOT):
        body = {"model": name, "input": list(texts[start : start + LOT]), "encoding_format": "base64"}
        rows = _post("/v1/embeddings", body, TIMEOUT)["data"]
        lots.append(np.stack([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows]))
    found = np.concatenate(lots) if lots else np.zeros((0, dimension), np.float32)
    if found.shape != (len(texts), dimension):
        raise Unavailable("embedding.wrong_dimension", name=name, found=found.shape[-1], wanted=dimension)
    return np.asarray(found, dtype=np.float32)


def rerank(name: str, query: str, passages: Sequence[str], budget_ms: float | None) -> list[float | None]:
    """A score per passage, None for what did not come within the budget. A server that is late or busy has scored nothing."""
    body: dict[str, Any] = {"model": name, "query": query, "documents": list(passages), "budget_ms": budget_ms}
    scores: list[float | None] = [None] * len(passages)
    read = TIMEOUT.read if budget_ms is None else budget_ms / 1000 + GRACE_S
    started = time.monotonic()
    try:
        results = _post("/v1/rerank", body, httpx.Timeout(2.0, read=read, write=10.0))["results"]
    except Unavailable:
        if budget_ms is not None and time.monotonic() - started >= budget_ms / 1000:
            return scores
        raise
    for row in results:
        scores[row["index"]] = float(row["relevance_score"])
    return scores


def _post(path: str, body: dict[str, Any], timeout: httpx.Timeout) -> dict[str, Any]:
    home = current_home()
    headers = {"Authorization": f"Bearer {server_token(home)}"}
    url = f"http://127.0.0.1:{home.settings.model_server_port}{path}"
    try:
        # loopback, plain HTTP: neither a proxy nor certificates, whose loading takes longer than the answer
        with httpx.Client(timeout=timeout, trust_env=False, verify=False) as client:  # noqa: S501
            response = client.post(url, headers=headers, json=body)
        if response.is_success:
            return dict(response.json())
        code = str(response.json()["error"]["code"])
    except httpx.ConnectError as error:
        raise Unavailable("embedding.server_down") from error
    except httpx.TimeoutException as error:
        raise Unavailable("embedding.server_late") from error
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise Unavailable("embedding.server_broken") from error
    if response.status_code == 404:
        raise NotFound("embedding.no_such_model", name=body["model"])
    if response.status_code == 503:
        raise Unavailable("embedding.server_busy")
    raise UserError("embedding.server_refused", reason=code)
