"""A teacher behind any OpenAI-compatible endpoint: asked once per text, paced, bounded in time and money, and never made up.

A completion is looked up in the ledger, else waits in a queue (high risk first), is sent when pace, breaker and budget allow,
retried within `timeout_s`, read strictly, written to the ledger, and only then given back. Whatever does not end in a verdict
is unscored with a reason. Raises (through the futures) only when the ledger itself cannot be read or written.
"""

from __future__ import annotations

import asyncio
import atexit
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

from core.privacy_doors import StrictDoor
from core.records import Completion, Judgement, Prompt, Risk
from core.teacher.asking import Item, Options
from core.teacher.endpoint import Endpoint
from core.teacher.engine import Door, Engine
from core.teacher.journal import Journal
from core.teacher.ledger import Ledger, MemoryLedger
from core.teacher.records import Health, Usage
from core.teacher.template import cache_key, load_template

#: smaller is sooner
PRIORITY = {Risk.HIGH: 0, Risk.MEDIUM: 1, Risk.LOW: 2}
#: news of the endpoint this fresh needs no probe
FRESH_S = 30.0
#: what a probe must meet to count as "down"; one that is limited or refused was at least answered
DOWN = frozenset({"unreachable", "server_error", "timeout", "bad_key", "no_credit", "endpoint_down", "budget_spent", "price_unknown"})
#: a process that ends waits at most this long for what its teachers still have open
AT_EXIT_S = 10.0


class ApiTeacher:
    """See the module. Safe to share between threads. `close` waits for second opinions; it can be used again afterwards."""

    is_offline = False

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str = "",
        options: Options | None = None,
        ledger: Ledger | None = None,
        journal: Journal | None = None,
        door: Door | None = None,
    ) -> None:
        self.name = model
        self.template = load_template()
        self.options = options or Options()
        self.ledger: Ledger = ledger or MemoryLedger()
        endpoint = Endpoint(base_url, model, api_key, self.options.max_output_tokens)
        self._engine = Engine(endpoint, self.template, self.options, self.ledger, journal, door or StrictDoor())
        _engines.add(self._engine)

    @property
    def rubric_version(self) -> str:
        return self.template.version

    def submit(self, prompt: Prompt, completion: Completion, *, priority: int | None = None) -> Future[Judgement]:
        """Queue one completion; smaller priorities go first, by default by the prompt's risk (high 0, medium 1, low 2).

        The future holds a judgement, unscored with a reason when there is no verdict. It raises UserError only when the
        ledger's database fails.
        """
        return self._enqueue([(prompt, completion)], priority)[0]

    def judge(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Judgement]:
        """One judgement per completion, in order; up to `num_at_once` requests run together."""
        return [future.result() for future in self._enqueue(list(zip(prompts, completions, strict=True)), None)]

    async def judge_async(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Judgement]:
        """`judge` for callers that have an event loop of their own."""
        futures = self._enqueue(list(zip(prompts, completions, strict=True)), None)
        return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))

    def usage(self) -> Usage:
        """What was done since the teacher was opened; take two and use `Usage.since` for a stretch of work."""
        return self._engine.usage()

    def health(self, *, probe: bool = False) -> Health:
        """Up or down by the newest requests. With `probe` a tiny request is sent when there is no fresh news (about one token).

        A caller that must not mix scored and unscored rows asks with `probe=True` before each batch. Raises as `submit`.
        """
        asker, now = self._engine.asker, time.monotonic()
        is_fresh = asker.last_success is not None and now - asker.last_success < FRESH_S and not asker.breaker.is_open
        if probe and not is_fresh and asker.breaker.may_start(now):
            item = Item("", "probe", futures=[Future()])
            self._engine.put([item])
            reason = item.futures[0].result().unscored_reason
            if reason in DOWN and (found := self._engine.health()).is_up:
                return replace(found, is_up=False, reason=reason)  # one failure does not open the breaker, but nobody answers
        return self._engine.health()

    def wait_idle(self, timeout_s: float = 60.0) -> bool:
        """Wait until nothing is open, second opinions included; False when `timeout_s` was not enough."""
        return self._engine.wait_idle(timeout_s)

    def close(self) -> None:
        """Wait for what is open, second opinions included, and end the thread."""
        self.wait_idle(self.options.timeout_s + 5)
        self._engine.close()

    def __enter__(self) -> ApiTeacher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _enqueue(self, pairs: list[tuple[Prompt, Completion]], priority: int | None) -> list[Future[Judgement]]:
        items, futures = [], list[Future[Judgement]]()
        for prompt, completion in pairs:
            key = cache_key(prompt, completion, model=self.name, rubric_version=self.rubric_version)
            future: Future[Judgement] = Future()
            futures.append(future)
            items.append(Item(key, "judge", prompt, completion, PRIORITY[prompt.risk] if priority is None else priority, [future]))
        self._engine.put(items)
        return futures


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _finish() -> None:
    """The end of the process: second opinions that are under way were paid for."""
    deadline = time.monotonic() + AT_EXIT_S
    for engine in list(_engines):
        engine.wait_idle(max(0.0, deadline - time.monotonic()))
