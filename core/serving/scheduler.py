"""Who is answered when: one thread owns the model, admits waiting requests, steps all running answers and lets go of memory.

Requests arrive from any thread by `submit`; what happens to them comes back through their `emit` callback, called on the
scheduler's thread: text pieces, then exactly one end (`Done` or `Failed`). One base is in memory at a time: waiting requests
are admitted in order, and one for another base waits until the running answers have ended. Called by core.model_server.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from core.errors import Unavailable, UserError
from core.home import Home
from core.policy import Policy
from core.records import Message
from core.serving.batch import Batch, Row
from core.serving.text import TextStream
from core.serving.versions import Served, is_gpu_job_running

logger = logging.getLogger("consilium.model_server")

#: After a quiet spell the first request waits this long for company.
GATHER_S = 0.01
#: How often the jobs table is asked whether training needs the accelerator.
YIELD_CHECK_S = 2.0
MAX_ADAPTERS = 16
DEFAULT_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Done:
    """The answer has ended: "stop" (the model ended it) or "length"."""

    finish_reason: str
    num_prompt_tokens: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """No more will come. `error` is a sentence for people or a bug."""

    error: Exception


Event = str | Done | Failed


@dataclass(eq=False, slots=True)
class Ticket:
    """One request. `cancel()` from any thread: its row leaves at the next step."""

    served: Served
    messages: Sequence[Message]
    temperature: float
    seed: int
    #: None: as many as DEFAULT_TOKENS and the model's context allow
    max_new_tokens: int | None
    emit: Callable[[Event], None]
    is_cancelled: threading.Event = field(default_factory=threading.Event)
    text: TextStream | None = None

    def cancel(self) -> None:
        self.is_cancelled.set()


class Scheduler:
    """Owns the model. Start with `start()`, end with `close()`."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._settings = home.settings
        self._condition = threading.Condition()
        self._waiting: deque[Ticket] = deque()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._is_closing = False
        self._is_unload_asked = False
        # the rest is touched by the scheduler's thread only
        self._policy: Policy | None = None
        self._base: tuple[str, str] = ("", "")  # where it lies, its hash
        self._hashes: dict[str, str] = {}
        self._batches: dict[str | None, Batch] = {}
        self._in_hand: list[Ticket] = []  # taken from the queue, not yet in a batch
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

    def submit(self, ticket: Ticket) -> None:
        """Queue a request. Raises Unavailable("serving.busy") when too many wait already."""
        with self._condition:
            if len(self._waiting) >= self._settings.model_server_waiting:
                raise Unavailable("serving.busy", waiting=len(self._waiting))
            self._waiting.append(ticket)
            self._condition.notify()

    def unload(self) -> None:
        """Free the memory as soon as the running answers have ended; the next request loads again."""
        with self._condition:
            self._is_unload_asked = True
            self._condition.notify()

    def state(self) -> dict[str, object]:
        """What /health shows."""
        policy = self._policy
        return {
            "is_loaded": policy is not None,
            "base": self._base[0],
            "device": policy.device if policy else "",
            "num_adapters": len(self._hashes),
            "num_running": self._num_running(),
            "num_waiting": len(self._waiting),
            "is_yielding": self._must_yield,
        }

    def is_answering(self) -> bool:
        """Is an answer being written, or waiting to be? Asked by what shares the cores with it."""
        return bool(self._waiting) or self._num_running() > 0

    def _num_running(self) -> int:
        return sum(len(batch.rows) for batch in list(self._batches.values()))

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._waiting and not self._num_running() and not self._is_closing and not self._is_unload_asked:
                    self._condition.wait(timeout=1.0)
                is_closing, was_quiet = self._is_closing, bool(self._waiting) and not self._num_running()
            if is_closing:
                self._end_all(Unavailable("serving.stopping"))
                return
            if was_quiet:
                time.sleep(GATHER_S)
            try:
                self._check_yield()
                self._admit()
                for batch in list(self._batches.values()):
                    self._advance(batch)
                self._maybe_unload()
            except Exception as error:  # the edge of the thread: whatever broke, the server must go on answering others
                logger.exception("the running answers were lost")
                self._end_all(error)
                self._drop_model()

    def _check_yield(self) -> None:
        if self._settings.model_server_yields == "never" or time.monotonic() < self._next_check:
            return
        if not self._waiting and self._policy is None:
            return
        self._next_check = time.monotonic() + YIELD_CHECK_S
        is_on_gpu = self._settings.model_server_yields == "always" or self._device().startswith("cuda")
        self._must_yield = is_on_gpu and is_gpu_job_running()

    def _device(self) -> str:
        from core.policy import pick_device

        return self._policy.device if self._policy else pick_device(self.home)

    def _admit(self) -> None:
        """Take waiting tickets in order while they fit: same base, room for rows, an adapter that can take them now."""
        admitted: dict[str | None, list[Row]] = {}
        while (ticket := self._next_ticket(sum(map(len, admitted.values())))) is not None:
            self._in_hand.append(ticket)
            try:
                adapter = self._load(ticket.served)
                row = self._row(ticket)  # before its adapter gets a list: a refused row must leave none that is empty
                admitted.setdefault(adapter, []).append(row)
            except UserError as error:
                self._in_hand.remove(ticket)
                ticket.emit(Failed(error))
        for adapter, rows in admitted.items():
            batch = self._batches.get(adapter) or Batch(self._loaded(), adapter)
            batch.add(rows)
            self._batches[adapter] = batch
            self._in_hand = [ticket for ticket in self._in_hand if all(ticket is not row.owner for row in rows)]
            self._deliver(batch, rows)

    def _next_ticket(self, num_admitted: int) -> Ticket | None:
        with self._condition:
            while self._waiting:
                ticket = self._waiting[0]
                if ticket.is_cancelled.is_set():
                    self._waiting.popleft()
                    continue
                if self._must_yield:
                    self._waiting.popleft()
                    ticket.emit(Failed(Unavailable("serving.training")))
                    continue
                num_rows = num_admitted + self._num_running()
                is_other_base = self._policy is not None and ticket.served.base != self._base
                is_other_weights = self._hashes.get(ticket.served.name, ticket.served.content_hash) != ticket.served.content_hash
                batch = self._batches.get(ticket.served.name if ticket.served.files.adapter else None)
                must_wait = num_rows and (is_other_base or is_other_weights or bool(batch and batch.rows and not batch.can_join))
                if num_rows >= self._settings.model_server_rows or must_wait:
                    return None
                return self._waiting.popleft()
        return None

    def _load(self, served: Served) -> str | None:
        """Have the version's weights in memory; returns the name of its adapter. Nothing runs when weights are exchanged."""
        import torch

        if self._policy is not None and self._base != served.base:
            self._drop_model()
        if self._policy is None:
            torch.set_num_threads(self._settings.model_server_threads)
            started = time.monotonic()
            self._policy = Policy.load(self.home, served.files.base)
            self._base = served.base
            logger.info("loaded %s on %s in %.1f s", self._base[0], self._policy.device, time.monotonic() - started)
        if served.files.adapter is None:
            return None
        if self._hashes.get(served.name) != served.content_hash:
            idle = [name for name in self._hashes if name not in self._batches]
            for name in idle[: max(0, len(self._hashes) + 1 - MAX_ADAPTERS)]:
                self._policy.drop_adapter(name)
                del self._hashes[name]
            self._policy.add_adapter(served.name, served.files.adapter)
            self._hashes[served.name] = served.content_hash
        return served.name

    def _loaded(self) -> Policy:
        if self._policy is None:
            raise RuntimeError("no model is loaded")
        return self._policy

    def _row(self, ticket: Ticket) -> Row:
        policy = self._loaded()
        prompt_ids = policy.encode(ticket.messages)
        limit = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
        wanted = ticket.max_new_tokens or max(1, min(DEFAULT_TOKENS, limit - len(prompt_ids)))
        if len(prompt_ids) + wanted > limit:
            raise UserError("serving.too_long", prompt=len(prompt_ids), wanted=wanted, limit=limit)
        ticket.text = TextStream(policy.decode)
        return Row(prompt_ids, ticket.temperature, ticket.seed, wanted, owner=ticket)

    def _advance(self, batch: Batch) -> None:
        self._drop_ended(batch)
        if batch.rows:
            batch.step()
            self._deliver(batch, batch.rows)
            self._drop_ended(batch)

    def _deliver(self, batch: Batch, rows: Sequence[Row]) -> None:
        """Hand out the text of the newest token of each row, and the end of those that have ended."""
        self._last_used = time.monotonic()
        for row in rows:
            ticket: Ticket = row.owner
            if ticket.is_cancelled.is_set() or ticket.text is None:
                continue
            is_stop = row.ids[-1] in batch.policy.eos_ids
            piece = ticket.text.push(row.ids[-1])
            if is_stop or len(row.ids) >= row.max_new_tokens:
                piece += ticket.text.finish()
            if piece:
                ticket.emit(piece)
            if is_stop or len(row.ids) >= row.max_new_tokens:
                ticket.emit(Done("stop" if is_stop else "length", len(row.prompt_ids), len(row.ids)))

    def _drop_ended(self, batch: Batch) -> None:
        eos = batch.policy.eos_ids
        keep = [
            i
            for i, row in enumerate(batch.rows)
            if not (row.ids[-1] in eos or len(row.ids) >= row.max_new_tokens or row.owner.is_cancelled.is_set())
        ]
        if len(keep) < len(batch.rows):
            batch.keep(keep)
        if not batch.rows:
            self._batches.pop(batch.adapter, None)

    def _maybe_unload(self) -> None:
        if self._num_running():
            return
        is_idle = time.monotonic() - self._last_used > self._settings.model_server_idle_minutes * 60
        if self._is_unload_asked or self._must_yield or is_idle:
            self._drop_model()
        self._is_unload_asked = False

    def _drop_model(self) -> None:
        if self._policy is None:
            return
        import torch

        logger.info("unloading %s", self._base[0])
        self._policy, self._base, self._hashes, self._batches = None, ("", ""), {}, {}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _end_all(self, error: Exception) -> None:
        with self._condition:
            tickets = [row.owner for batch in self._batches.values() for row in batch.rows] + self._in_hand
            if self._is_closing:
                tickets += self._waiting
                self._waiting.clear()
            self._batches, self._in_hand = {}, []
        for ticket in tickets:
            ticket.emit(Failed(error))
