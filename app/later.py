"""An application that is imported after the first page is out, or when somebody asks for it, whichever comes first.

The REST routers bring numpy, the search index and half of the use cases with them: half a second on a cold disk that a
person who opens the sign-in page need not wait for. Used by app.main.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Lock

from fastapi import FastAPI
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send


class Later:
    """Stands where the application will stand; `build` is called once. A build that fails is tried again by the next request."""

    def __init__(self, build: Callable[[], FastAPI]) -> None:
        self._build = build
        self._lock = Lock()
        self._inner: FastAPI | None = None

    def load(self) -> FastAPI:
        """The application, built if it has not been."""
        with self._lock:
            if self._inner is None:
                self._inner = self._build()
            return self._inner

    @property
    def routes(self) -> list[BaseRoute]:
        """What it declares; builds it."""
        return self.load().routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._inner is None:
            await asyncio.to_thread(self.load)
        await self.load()(scope, receive, send)
