"""One thread that makes blocking calls in order, for an event loop that must not block.

A plain daemon thread and no executor of the standard library: those refuse work while the interpreter ends, which is when a
teacher still writes down what it has paid for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Clerk:
    """`await clerk.do(f, x)` is f(x) on the clerk's thread; a call that has begun is finished even when nobody waits."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def send(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Queue a call; its result or exception comes through the future."""
        future: Future[T] = Future()
        self._calls.put((future, lambda: function(*arguments)))
        return future

    async def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Wait for a call. Cancelling stops the waiting, not the call."""
        return await asyncio.shield(asyncio.wrap_future(self.send(function, *arguments)))

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._calls.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, function = call
            try:
                future.set_result(function())
            except BaseException as error:  # handed to whoever waits, on their thread
                future.set_exception(error)
