"""The thread behind a teacher: a queue (high risk first), a look into the ledger, and a bounded number of open requests.

The thread starts with the first item and ends after `idle_s` without one; connections live as long as it does. A text that is
already open is not sent a second time: whoever asks for it again waits for the first. Used by `core.teacher.api` only.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from core.errors import UserError
from core.records import Completion, Judgement, Prompt
from core.teacher.asking import Asker, Item, Options
from core.teacher.clerk import Clerk
from core.teacher.endpoint import Endpoint
from core.teacher.journal import Journal
from core.teacher.ledger import Attempt, Ledger, Outcome
from core.teacher.records import Health, Usage
from core.teacher.template import Template


class Door(Protocol):
    """Decides what may leave for the endpoint (core.privacy_doors)."""

    def admit(self, prompt: Prompt, completion: Completion) -> tuple[Prompt, Completion] | None: ...


AUDIT_PRIORITY = 9
#: why nothing is sent while the breaker is open, if it is more than "keeps failing"
SAID_BY_ENDPOINT = frozenset({"bad_key", "no_credit", "rate_limited", "bad_request"})

_log = logging.getLogger("consilium.teacher")


class Engine:
    """See the module. All public methods may be called from any thread."""

    def __init__(
        self, endpoint: Endpoint, template: Template, options: Options, ledger: Ledger, journal: Journal | None, door: Door
    ) -> None:
        self.endpoint, self.template, self.options, self.ledger, self.door = endpoint, template, options, ledger, door
        self.asker = Asker(endpoint, template, options, ledger, journal, self._count)
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._inbox: deque[Item] = deque()
        self._alive: set[Item] = set()
        self._carried: weakref.WeakSet[Item] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._is_closing = False
        self._usage = Usage()
        self._reasons: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=10_000)
        self._number = itertools.count()
        self._queue: list[tuple[int, int, Item]] = []
        self._open: dict[str, Item] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- from any thread ------------------------------------------------------------------------------------------------------

    def put(self, items: Sequence[Item]) -> None:
        """Queue items; starts the thread when there is none."""
        if not items:
            return
        with self._lock:
            self._inbox.extend(items)
            self._alive.update(items)
            num_asked = self._usage.num_asked + sum(len(i.futures) for i in items if i.purpose == "judge")
            self._usage = replace(self._usage, num_asked=num_asked)
            if self._thread is None:
                self._is_closing = False
                self._thread = threading.Thread(target=self._live, name="teacher", daemon=True)
                self._thread.start()
            elif self._loop is not None and self._wake is not None:
                self._loop.call_soon_threadsafe(self._wake.set)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is open; False when `timeout_s` was not enough."""
        with self._idle:
            return self._idle.wait_for(lambda: not (self._alive or self.asker.events or self.asker.is_writing), timeout_s)

    def close(self) -> None:
        """End the thread once nothing is open."""
        with self._lock:
            thread = self._thread
            self._is_closing = True
            if self._loop is not None and self._wake is not None:
                self._loop.call_soon_threadsafe(self._wake.set)
        if thread is not None:
            thread.join(self.options.timeout_s + 5)

    def usage(self) -> Usage:
        with self._lock:
            return replace(self._usage, latencies=tuple(self._latencies), reasons=dict(self._reasons))

    def health(self) -> Health:
        """Up or down by the newest requests."""
        asker = self.asker
        until, since = asker.breaker.opened_until, asker.down_since
        if until is not None:
            return Health(False, asker.breaker.reason, since, datetime.now(UTC) + timedelta(seconds=max(0.0, until - time.monotonic())))
        if asker.is_budget_spent:
            return Health(False, "budget_spent", since)
        if asker.last_success is None and asker.breaker.reason is not None:
            return Health(False, asker.breaker.reason, since)
        return Health(True)

    # --- the thread -----------------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        clerk = Clerk("teacher-ledger")
        try:
            asyncio.run(self._run(clerk))
        except BaseException as error:  # nobody may wait for ever: a bug or a broken ledger is handed to all who wait
            with self._lock:
                self._thread = self._loop = self._wake = None
                self._queue.clear()
                self._open.clear()
                # what came while the failure was on its way was not part of it: it gets one thread of its own
                later = [item for item in self._inbox if item not in self._carried] if isinstance(error, UserError) else []
                self._inbox.clear()
                left = self._alive.difference(later)
                if later:
                    self._carried.update(later)
                    self._inbox.extend(later)
                    self._thread = threading.Thread(target=self._live, name="teacher", daemon=True)
                    self._thread.start()
            for item in left:
                self._fail(item, error)
            if not isinstance(error, UserError):
                _log.exception("the teacher's thread ended")
        finally:
            clerk.close()

    async def _run(self, clerk: Clerk) -> None:
        wake = asyncio.Event()
        with self._lock:
            self._loop, self._wake = asyncio.get_running_loop(), wake
        async with self.endpoint.client(self.options.timeout_s, self.options.num_at_once) as client:
            await self.asker.begin(client, clerk)
            while True:
                wake.clear()
                with self._lock:
                    fresh = list(self._inbox)
                    self._inbox.clear()
                if fresh:
                    await self._admit(fresh)
                pause = self._dispatch()
                if (self.asker.events or self.asker.lines) and not self._tasks:
                    await self.asker.flush()
                    with self._idle:
                        self._idle.notify_all()
                is_busy = bool(self._queue or self._tasks)
                try:
                    async with asyncio.timeout(pause if is_busy else 0.0 if self._is_closing else self.options.idle_s):
                        await wake.wait()
                except TimeoutError:
                    if is_busy:
                        continue
                    with self._lock:
                        if not self._inbox:
                            self._thread = self._loop = self._wake = None
                            return

    async def _admit(self, fresh: list[Item]) -> None:
        """Answer from the ledger what it holds, join what is open, refuse what may not leave, queue the rest."""
        keys = list({item.key for item in fresh if item.purpose == "judge"} - set(self._open))
        known = await self.asker.clerk.do(self.ledger.find, keys) if keys else {}
        for item in fresh:
            if item.key in known and item.purpose == "judge":
                outcome = Outcome(item.key, item.purpose, item.prompt, item.completion, known[item.key], None, is_cached=True)
                self.asker.events.append(outcome)
                self._resolve(item, outcome)
                continue
            earlier = self._open.get(item.key) if item.purpose == "judge" else None
            if earlier is None:
                if item.purpose == "judge":
                    admitted = await self.asker.clerk.do(self.door.admit, item.prompt, item.completion)
                    if admitted is None:
                        self._refuse(item, "identifiers")
                        continue
                    item.prompt, item.completion = admitted  # what is rendered, logged and judged from here on
                    self._open[item.key] = item
                self._push(item, item.priority)
                continue
            earlier.futures += item.futures
            if not earlier.is_started and item.priority < earlier.priority:
                self._push(earlier, item.priority)  # a second entry; whichever comes first starts it
            self._drop(item)

    def _push(self, item: Item, priority: int) -> None:
        item.priority = priority
        heapq.heappush(self._queue, (priority, next(self._number), item))

    def _dispatch(self) -> float | None:
        """Start what may start; returns after how many seconds to look again (None: when something ends or comes)."""
        breaker, pace = self.asker.breaker, self.asker.pace
        while self._queue and len(self._tasks) < self.options.num_at_once:
            item, now = self._queue[0][2], time.monotonic()
            if item.is_started:
                heapq.heappop(self._queue)
                continue
            if not breaker.may_start(now):
                if breaker.is_probing:
                    return None
                heapq.heappop(self._queue)
                item.is_started = True
                self._refuse(item, breaker.reason if breaker.reason in SAID_BY_ENDPOINT else "endpoint_down")
                continue
            num_tokens = self.asker.prepare(item)
            if (delay := pace.delay(num_tokens, now)) > 0:
                return delay
            heapq.heappop(self._queue)
            item.is_started = True
            item.is_probe = breaker.begin()
            pace.start(num_tokens, now)
            task = asyncio.create_task(self._work(item))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        return None

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._wake is not None:
            self._wake.set()

    async def _work(self, item: Item) -> None:
        """One item from admission to its futures. What was paid for is in the ledger first."""
        try:
            outcome = await self.asker.judge(item)
            if item.purpose != "probe":
                self.asker.events.append(outcome)
            await self.asker.flush()
        except Exception as error:  # handed to whoever waits for it, on their thread
            self._fail(item, error)
            return
        self._resolve(item, outcome)

    def _refuse(self, item: Item, reason: str) -> None:
        """End an item without asking."""
        judgement = Judgement(self.endpoint.model, self.template.version, None, unscored_reason=reason)
        outcome = Outcome(item.key, item.purpose, item.prompt, item.completion, judgement, None)
        if item.purpose == "judge":
            self.asker.events.append(outcome)
        self._resolve(item, outcome)

    def _resolve(self, item: Item, outcome: Outcome) -> None:
        """Give the judgement to everybody who waits, and draw the second opinions."""
        judgement = outcome.judgement
        if item.purpose == "judge" and self._open.get(item.key) is item:
            del self._open[item.key]
        is_scored, is_fresh = judgement.teacher_score is not None, item.purpose == "judge" and not outcome.is_cached
        if is_fresh and is_scored and is_drawn(item.key, self.options.audit_share):
            audit = Item(item.key, "audit", item.prompt, item.completion, AUDIT_PRIORITY)
            with self._lock:
                self._alive.add(audit)
            self._push(audit, AUDIT_PRIORITY)
        with self._lock:
            usage, num = self._usage, len(item.futures)
            if item.purpose == "judge":
                self._usage = replace(
                    usage,
                    num_cached=usage.num_cached + (num if outcome.is_cached else num - 1),
                    num_scored=usage.num_scored + num * is_scored,
                    num_unscored=usage.num_unscored + num * (not is_scored),
                )
                if judgement.unscored_reason:
                    self._reasons[judgement.unscored_reason] += num
                if is_fresh:
                    self._latencies.append(judgement.latency_s or 0.0)
            elif item.purpose == "audit":
                self._usage = replace(usage, num_audits=usage.num_audits + is_scored)
        for future in item.futures:
            if future.set_running_or_notify_cancel():
                future.set_result(judgement)
        self._drop(item)

    def _fail(self, item: Item, error: BaseException) -> None:
        if self._open.get(item.key) is item:
            del self._open[item.key]
        for future in item.futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        self._drop(item)

    def _drop(self, item: Item) -> None:
        with self._idle:
            self._alive.discard(item)
            if not self._alive:
                self._idle.notify_all()

    def _count(self, attempt: Attempt) -> None:
        """A request was sent."""
        with self._lock:
            u = self._usage
            has_reply = not attempt.is_unclear or attempt.cost_usd is None
            self._usage = replace(
                u,
                num_requests=u.num_requests + 1,
                prompt_tokens=u.prompt_tokens + attempt.prompt_tokens,
                cached_tokens=u.cached_tokens + attempt.cached_tokens,
                completion_tokens=u.completion_tokens + attempt.completion_tokens,
                cost_usd=None if u.cost_usd is None or (has_reply and attempt.cost_usd is None) else u.cost_usd + (attempt.cost_usd or 0.0),
                num_unclear=u.num_unclear + attempt.is_unclear,
            )


def is_drawn(key: str, share: float) -> bool:
    """Whether a judgement gets a second opinion: decided by its key, so a resumed job draws the same ones."""
    return int(key[:8], 16) < share * 2**32
