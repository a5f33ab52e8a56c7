"""The local model server: OpenAI chat completions on loopback, for versions in the database, and the vectors and rerank scores
of retrieval's small models (core.serving.retrieval_routes). Its own process.

    python -m core.model_server

`model` in a request is the name of a model version. One base is in memory, adapters are switched per request, requests share
steps (core.serving). /health and /v1/models answer without loading torch. Errors are OpenAI's JSON with our sentence as
`message` (English) and `message_zh`. Started by the launcher; used through core.model_client or any OpenAI client.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse

from core.errors import Conflicting, Forbidden, NotFound, Unavailable, UserError
from core.home import Home, open_home
from core.i18n import error_text
from core.logs import log_as_json
from core.serving.protocol import ChatRequest, completion, piece
from core.serving.retrieval_routes import routes
from core.serving.scheduler import Done, Event, Failed, Scheduler, Ticket
from core.serving.small_models import SmallModels
from core.serving.token import server_token
from core.serving.versions import Served, local_versions, served_version

logger = logging.getLogger("consilium.model_server")

#: How often a waiting request looks whether its client is still there.
DISCONNECT_CHECK_S = 0.25
STATUS: tuple[tuple[type[UserError], int], ...] = (
    (NotFound, 404), (Forbidden, 401), (Conflicting, 409), (Unavailable, 503), (UserError, 400)
)  # fmt: skip


def create_app(home: Home, scheduler: Scheduler) -> FastAPI:
    """The server's application around a scheduler, which it starts and ends.

    Expansion models have a scheduler of their own: one base is in memory per scheduler, and Ask asks the answering model and the
    expander at the same moment, so with one they would throw each other out at every question.
    """
    token = server_token(home)
    expanding = Scheduler(home)
    lanes = (scheduler, expanding)

    def authorised(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not secrets.compare_digest(given.encode(), token.encode()):
            raise Forbidden("serving.bad_token")

    small_models = SmallModels(home, lambda: any(lane.is_answering() for lane in lanes))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        for lane in lanes:
            lane.start()
        small_models.start()
        yield
        await asyncio.to_thread(small_models.close)
        for lane in lanes:
            await asyncio.to_thread(lane.close)

    app = FastAPI(title="Consilium model server", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(UserError, on_user_error)
    app.add_exception_handler(RequestValidationError, on_bad_request)
    app.add_exception_handler(Exception, on_bug)
    app.include_router(routes(small_models, authorised))

    @app.get("/health")
    async def health() -> dict[str, object]:
        states = {**scheduler.state(), "expanding": expanding.state(), "small_models": small_models.state()}
        return {"status": "ok", "pid": os.getpid(), **states}

    @app.get("/v1/models", dependencies=[Depends(authorised)])
    def models() -> dict[str, object]:
        rows = [
            {
                "id": row.name,
                "object": "model",
                "created": int(row.created_at.timestamp()),
                "owned_by": "consilium",
                "consilium": {"kind": row.kind, "status": row.status, "is_toy": row.is_toy, "content_hash": row.content_hash},
            }
            for row in local_versions()
        ]
        return {"object": "list", "data": rows}

    @app.post("/admin/unload", dependencies=[Depends(authorised)], status_code=202)
    async def unload() -> dict[str, object]:
        for lane in lanes:
            lane.unload()
        small_models.unload()
        return {"status": "unloading"}

    @app.post("/v1/chat/completions", dependencies=[Depends(authorised)])
    async def chat(body: ChatRequest, request: Request) -> Response:
        body.check_supported()
        served = await asyncio.to_thread(served_version, home, body.model)
        answer = Answer(body, served, request)
        (expanding if served.task == "expansion" else scheduler).submit(answer.ticket)
        try:
            first = await answer.next_event()  # loading may fail: only now is it known whether the status is 200
        except BaseException:
            answer.ticket.cancel()
            raise
        if body.stream:
            return StreamingResponse(answer.stream(first), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return await answer.whole(first)

    return app


class ClientGone(Exception):
    """Nobody waits for this answer any more."""


class Answer:
    """One request on its way: carries events from the scheduler's thread into the event loop and writes them as OpenAI JSON."""

    def __init__(self, body: ChatRequest, served: Served, request: Request) -> None:
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.body, self.served, self._request = body, served, request
        self.seed = body.seed if body.seed is not None else secrets.randbelow(2**31)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._next_check = 0.0
        self.ticket = Ticket(served, body.to_messages(), body.temperature, self.seed, body.token_limit, self._emit)

    @property
    def about(self) -> dict[str, object]:
        """The `consilium` field of every answer: whose words these are, and how to get them again."""
        return {
            "version": self.served.name,
            "content_hash": self.served.content_hash,
            "is_toy": self.served.is_toy,
            "seed": self.seed,
        }

    def _emit(self, event: Event) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next_event(self) -> Event:
        """The next event. Raises ClientGone; a `Failed` is raised as the error it carries."""
        while True:
            now = self._loop.time()
            if now >= self._next_check:
                self._next_check = now + DISCONNECT_CHECK_S
                if await self._request.is_disconnected():
                    raise ClientGone
            try:
                event = await asyncio.wait_for(self._events.get(), DISCONNECT_CHECK_S)
            except TimeoutError:
                continue
            if isinstance(event, Failed):
                raise event.error
            return event

    async def stream(self, first: Event) -> AsyncIterator[str]:
        """Server-sent events: the role, text pieces, the finish reason, [DONE]; an error in the middle is an `error` event."""
        try:
            yield _sse(piece(self, {"role": "assistant", "content": ""}, consilium=self.about))
            event = first
            while isinstance(event, str):
                yield _sse(piece(self, {"content": event}))
                event = await self.next_event()
            if isinstance(event, Done):
                yield _sse(piece(self, {}, event.finish_reason, consilium=self.about))
                if self.body.wants_usage:
                    yield _sse(piece(self, None, usage=event))
            yield "data: [DONE]\n\n"
        except UserError as error:
            yield _sse(error_body(error))
        except ClientGone:
            logger.info("client left %s", self.id)
        except Exception as error:  # the status line is sent: the only way left to tell
            logger.exception("answer %s broke off", self.id)
            yield _sse(_bug_body(error))
        finally:
            self.ticket.cancel()

    async def whole(self, first: Event) -> Response:
        """The answer in one piece."""
        parts: list[str] = []
        event = first
        try:
            while isinstance(event, str):
                parts.append(event)
                event = await self.next_event()
        finally:
            self.ticket.cancel()
        return JSONResponse(completion(self, "".join(parts), event)) if isinstance(event, Done) else Response(status_code=499)


def error_body(error: UserError) -> dict[str, Any]:
    """OpenAI's error JSON with our sentences."""
    kind = "server_error" if isinstance(error, Unavailable) else "invalid_request_error"
    return {
        "error": {
            "message": error_text(error, "en"),
            "message_zh": error_text(error, "zh"),
            "type": kind,
            "param": None,
            "code": error.code,
        }
    }


async def on_user_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, UserError):
        raise error
    status = next(number for kind, number in STATUS if isinstance(error, kind))
    return JSONResponse(error_body(error), status, {"Retry-After": "5"} if status == 503 else None)


async def on_bad_request(_request: Request, error: Exception) -> Response:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return JSONResponse(error_body(UserError("serving.bad_request", where=where or "body", reason=first["msg"])), 400)


async def on_bug(_request: Request, error: Exception) -> Response:
    if isinstance(error, ClientGone):
        return Response(status_code=499)
    logger.error("unexpected", exc_info=error)
    return JSONResponse(_bug_body(error), 500)


def _bug_body(error: Exception) -> dict[str, Any]:
    return {
        "error": {
            "message": f"Unexpected: {type(error).__name__}. See the model server's log.",
            "type": "server_error",
            "code": "unexpected",
        }
    }


def _sse(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    log_as_json("model_server")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # uvicorn ends gracefully and then raises the signal again, for which this is the handler: a wanted end is exit code 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    home = open_home()
    os.environ.setdefault("OMP_NUM_THREADS", str(home.settings.model_server_threads))
    app = create_app(home, Scheduler(home))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=home.settings.model_server_port,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=3,
        access_log=False,
    )


if __name__ == "__main__":
    main()
