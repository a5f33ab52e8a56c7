"""Vectors and rerank scores beside the answers: one thread owns the small models of retrieval, in small lots, and gives way.

Requests of any thread come in by `submit` and end as a Future. A lot is at most LOT texts or pairs; questions (few texts) go
before the rest of a large request, questions for one model share a lot, and while answers are being written every lot is followed
by a pause as long as it took, so that at most half of a core is taken from them. A request that is past its deadline gets what
was scored. The rules of the scheduler hold: a bounded queue, models leave memory when idle, on /admin/unload, and while a GPU job
needs the accelerator. Called by core.serving.retrieval_routes.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.errors import Unavailable, UserError
from core.home import Home
from core.serving.versions import is_gpu_job_running

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger("consilium.model_server")

#: texts, or question-passage pairs, of one forward pass
LOT = 8
MAX_MODELS = 3
YIELD_CHECK_S = 2.0
#: the longest pause that answering gets after a lot
MAX_PAUSE_S = 0.2


@dataclass(eq=False, slots=True)
class Work:
    """One request: texts to encode, or a `query` with passages to score in order. `deadline` is on the monotonic clock."""

    model: str
    texts: list[str]
    query: str | None = None
    deadline: float | None = None
    future: Future[list[Any]] = field(default_factory=Future)
    #: vectors (numpy rows) or scores so far
    done: list[Any] = field(default_factory=list)

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    @property
    def num_left(self) -> int:
        return len(self.texts) - len(self.done)


class SmallModels:
    """`is_answering` says whether answers are being written now."""

    def __init__(self, home: Home, is_answering: Callable[[], bool]) -> None:
        self._home, self._settings, self._is_answering = home, home.settings, is_answering
        self._condition = threading.Condition()
        self._waiting: list[Work] = []
        self._thread = threading.Thread(target=self._run, name="small models", daemon=True)
        self._is_closing = self._is_unload_asked = False
        # the rest is touched by the thread only
        self._models: OrderedDict[tuple[str, bool], Any] = OrderedDict()
        self._last_used = time.monotonic()
        self._next_check = 0.0
        self._must_yield = False

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread; whoever still waits is told."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join()

    def submit(self, work: Work) -> Future[list[Any]]:
        """Queue a request. Raises Unavailable("serving.busy") when too many wait already."""
        with self._condition:
            if len(self._waiting) >= self._settings.model_server_waiting:
                raise Unavailable("serving.busy", waiting=len(self._waiting))
            self._waiting.append(work)
            self._condition.notify()
        return work.future

    def unload(self) -> None:
        """Free the memory after the present lot."""
        with self._condition:
            self._is_unload_asked = True
            self._condition.notify()

    def state(self) -> dict[str, object]:
        """What /health shows."""
        return {"loaded": sorted({name for name, _ in list(self._models)}), "num_waiting": len(self._waiting)}

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._waiting and not self._is_closing and not self._is_unload_asked:
                    self._condition.wait(timeout=1.0)
                if self._is_closing:
                    for work in self._waiting:
                        work.future.set_exception(Unavailable("serving.stopping"))
                    return
                lot = self._choose()
            if lot:
                self._advance(lot)
            self._maybe_unload()

    def _choose(self) -> list[Work]:
        """The smallest request, with other encoding requests of the same model as far as they fit into one lot."""
        self._waiting = [work for work in self._waiting if not work.future.cancelled()]
        if not self._waiting:
            return []
        order = sorted(self._waiting, key=lambda work: work.num_left)  # stable: equal ones in the order they came
        chosen = [order[0]]
        if order[0].query is None:
            room = LOT - order[0].num_left
            for work in order[1:]:
                if work.query is None and work.model == order[0].model and work.num_left <= room:
                    chosen.append(work)
                    room -= work.num_left
        return chosen

    def _advance(self, lot: list[Work]) -> None:
        started = time.monotonic()
        try:
            self._check_yield()
            if lot[0].query is None:
                self._encode(lot)
            else:
                self._score(lot[0])
        except UserError as error:
            self._fail(lot, error)
        except Exception as error:  # the edge of the thread: whatever broke, others go on being served
            logger.exception("a small model broke")
            self._fail(lot, error)
            self._drop()
        self._last_used = time.monotonic()
        with self._condition:
            ended = [work for work in lot if work.num_left == 0 or (work.is_late and work.query is not None)]
            self._waiting = [work for work in self._waiting if work not in ended]
        for work in ended:
            if not work.future.done():
                work.future.set_result(work.done)
        if self._is_answering():
            time.sleep(min(MAX_PAUSE_S, time.monotonic() - started))

    def _encode(self, lot: list[Work]) -> None:
        model = self._model(lot[0].model, is_reranker=False)
        parts = [work.texts[len(work.done) : len(work.done) + LOT] for work in lot]
        vectors: np.ndarray = model.encode([text for part in parts for text in part], is_query=False)
        start = 0
        for work, part in zip(lot, parts, strict=True):
            work.done += list(vectors[start : start + len(part)])
            start += len(part)

    def _score(self, work: Work) -> None:
        model = self._model(work.model, is_reranker=True)
        if not work.is_late and work.query is not None:
            at = len(work.done)
            work.done += model.score(work.query, work.texts[at : at + LOT], first=at)

    def _model(self, name: str, *, is_reranker: bool) -> Any:
        """The model, loaded if need be; its weights are compared with the registered hash at every opening."""
        from core.retrieval.encoders import open_encoder
        from core.retrieval.rerankers import open_reranker

        key = (name, is_reranker)
        if key not in self._models:
            import torch

            torch.set_num_threads(self._settings.model_server_threads)
            started = time.monotonic()
            while len(self._models) >= MAX_MODELS:
                self._models.popitem(last=False)
            self._models[key] = open_reranker(name, place="here") if is_reranker else open_encoder(name, place="here")
            logger.info("opened %s in %.1f s", name, time.monotonic() - started)
        self._models.move_to_end(key)
        return self._models[key]

    def _check_yield(self) -> None:
        """Raises Unavailable("serving.training") while a GPU job needs the accelerator."""
        if self._settings.model_server_yields == "never":
            return
        if time.monotonic() >= self._next_check:
            from core.policy import pick_device

            self._next_check = time.monotonic() + YIELD_CHECK_S
            is_on_gpu = self._settings.model_server_yields == "always" or pick_device(self._home).startswith("cuda")
            self._must_yield = is_on_gpu and is_gpu_job_running()
        if self._must_yield:
            self._drop()
            raise Unavailable("serving.training")

    def _fail(self, lot: list[Work], error: Exception) -> None:
        with self._condition:
            self._waiting = [work for work in self._waiting if work not in lot]
        for work in lot:
            if not work.future.done():
                work.future.set_exception(error)

    def _maybe_unload(self) -> None:
        is_idle = time.monotonic() - self._last_used > self._settings.model_server_idle_minutes * 60
        if self._is_unload_asked or is_idle:
            self._drop()
        self._is_unload_asked = False

    def _drop(self) -> None:
        if self._models:
            logger.info("closing %s", ", ".join(sorted(name for name, _ in self._models)))
            self._models.clear()
            gc.collect()
