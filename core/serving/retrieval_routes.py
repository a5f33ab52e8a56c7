"""POST /v1/embeddings (OpenAI's JSON) and POST /v1/rerank (the JSON that Cohere and Jina made common) on the model server.

A rerank with `budget_ms` answers in time with what was scored in that time, in the order the documents came; those that were not
reached are absent from `results`. Mounted by core.model_server.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from core.errors import UserError
from core.retrieval import retrieval_models as registry
from core.serving.small_models import SmallModels, Work

MAX_TEXTS = 2048
MAX_CHARACTERS = 100_000


class EmbeddingsRequest(BaseModel):
    """`dimensions` is accepted only when it is the model's own: cutting vectors silently would break an index."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1)
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class RerankRequest(BaseModel):
    """`documents` in the order of the stage before; `top_n` cuts the answer, not the work."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1)
    query: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    documents: list[str] = Field(max_length=MAX_TEXTS)
    top_n: int | None = Field(default=None, ge=1)
    budget_ms: float | None = Field(default=None, gt=0, le=600_000)


def routes(models: SmallModels, authorised: Callable[..., None]) -> APIRouter:
    """The two routes around `models`."""
    router = APIRouter(dependencies=[Depends(authorised)])

    @router.post("/v1/embeddings")
    async def embeddings(body: EmbeddingsRequest) -> dict[str, Any]:
        texts = body.texts
        check_size(texts)
        content_hash = await asyncio.to_thread(known_embedding, body.model)
        vectors = await asyncio.wrap_future(models.submit(Work(body.model, texts)))
        if body.dimensions is not None and vectors and len(vectors[0]) != body.dimensions:
            raise UserError("serving.unsupported", name="dimensions")
        is_base64 = body.encoding_format == "base64"
        data = [
            {
                "object": "embedding",
                "index": i,
                "embedding": base64.b64encode(v.astype("<f4").tobytes()).decode() if is_base64 else v.tolist(),
            }
            for i, v in enumerate(vectors)
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}  # nobody is billed here
        return {"object": "list", "model": body.model, "data": data, "usage": usage, "consilium": {"content_hash": content_hash}}

    @router.post("/v1/rerank")
    async def rerank(body: RerankRequest) -> dict[str, Any]:
        started = time.monotonic()
        check_size(body.documents)
        row = await asyncio.to_thread(registry.get, body.model, "reranker")
        deadline = started + body.budget_ms / 1000 if body.budget_ms is not None else None
        scores: list[float | None] = []
        if body.documents:
            scores = await in_time(models.submit(work := Work(body.model, body.documents, body.query, deadline)), work)
        results = [{"index": i, "relevance_score": score} for i, score in enumerate(scores) if score is not None]
        best = sorted(results, key=lambda found: -float(str(found["relevance_score"])))[: body.top_n]
        about = {"content_hash": row.content_hash, "num_scored": len(results), "ms": round((time.monotonic() - started) * 1000, 1)}
        return {"model": body.model, "results": best, "consilium": about}

    return router


async def in_time(future: Any, work: Work) -> list[float | None]:
    """The scores, or those there are when the deadline passes (the weights may still be loading, others may be before us)."""
    if work.deadline is None:
        found: list[float | None] = await asyncio.wrap_future(future)
        return found
    done, _ = await asyncio.wait([waiting := asyncio.wrap_future(future)], timeout=max(0.0, work.deadline - time.monotonic()))
    if done:
        return list(waiting.result())
    future.cancel()
    return list(work.done)


def check_size(texts: list[str]) -> None:
    """Raises UserError("serving.bad_request") for more than one request may hold."""
    if len(texts) > MAX_TEXTS:
        raise UserError("serving.bad_request", where="input", reason=f"more than {MAX_TEXTS} texts")
    if any(len(text) > MAX_CHARACTERS for text in texts):
        raise UserError("serving.bad_request", where="input", reason=f"a text of more than {MAX_CHARACTERS} characters")


def known_embedding(name: str) -> str:
    """The hash of a model that computes here. Raises NotFound, and UserError("serving.unsupported") for an endpoint of others."""
    from core.retrieval.encoders import open_encoder

    if name not in registry.BUILT_IN and registry.get(name, "embedding").form == "api":
        raise UserError("serving.unsupported", name=f"model={name}")
    return open_encoder(name, place="server").hash
