"""Gradio under /arena, brought in after the rest of the house is open.

Gradio is half of what the web process imports, and one screen of sixteen. It is loaded in a thread once the server answers;
whoever opens the bench in the first seconds waits for it. Should it not load, the bench says so and everything else works.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Mount
from starlette.types import Receive, Scope, Send

from app.errors import describe

PATH = "/arena"
log = logging.getLogger("consilium.web")


class Arena:
    """An ASGI application to be mounted under PATH. `lifespan` must be entered by the application around it."""

    def __init__(self) -> None:
        self._inner = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self._failure: Exception | None = None

    @asynccontextmanager
    async def lifespan(self, after: Callable[[], object]) -> AsyncIterator[None]:
        """Start loading, `after` something that is needed sooner; on the way out end Gradio's queue."""
        self._is_settled, self._is_over = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(self._serve(after))
        try:
            yield
        finally:
            self._is_over.set()
            await task

    @property
    def is_settled(self) -> bool:
        """Loaded, or failed to."""
        return self._is_settled.is_set()

    @property
    def routes(self) -> list[BaseRoute]:
        """What the loaded Gradio declares under PATH."""
        mounted = next((route for route in self._inner.routes if isinstance(route, Mount)), None)
        return list(mounted.routes) if mounted else []

    async def _serve(self, after: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(after)
        except Exception:  # whoever needs it tries again and is told
            log.exception("what comes before the bench could not be loaded")
        try:
            await asyncio.to_thread(mount_bench, self._inner)
        except Exception as error:  # the bench is one screen: whatever is wrong with it, the others go on
            self._failure = error
            self._is_settled.set()
            return
        async with self._inner.router.lifespan_context(self._inner):
            gc.collect()
            gc.freeze()  # what has come since the start: see app.main
            self._is_settled.set()
            await self._is_over.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._is_settled.wait()
        if self._failure is not None and scope["type"] == "http":
            told = describe(self._failure, "zh" if Request(scope).query_params.get("lang") == "zh" else "en")
            await PlainTextResponse(told.text, told.status)(scope, receive, send)
            return
        # Gradio is mounted inside under the same path: it must see the address as the browser wrote it
        await self._inner({**scope, "root_path": scope.get("app_root_path", "")}, receive, send)


def mount_bench(outer: FastAPI) -> None:
    """Gradio's side-by-side page under PATH."""
    import gradio as gr

    bench = import_module("app.bench")
    gr.mount_gradio_app(
        outer,
        bench.build(),
        path=PATH,
        theme=bench.THEME,
        css=bench.CSS,
        head=bench.HEAD,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size="20mb",
        auth_dependency=user_of,
    )


def user_of(request: Request) -> str | None:
    """The username that the guard found; clients cannot set this header."""
    return request.headers.get("x-auth-user")
