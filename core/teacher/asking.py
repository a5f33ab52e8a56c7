"""Getting one verdict: attempts, pauses, reservations and the deadline for a single text. Runs in the engine's event loop.

`Asker` owns what all requests to one endpoint share: pace, breaker, dialect, and the list of facts that wait to be written to
the ledger. It never raises for what the endpoint does; it raises UserError when the ledger cannot be read or written.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx

from core.records import Completion, Judgement, Prompt
from core.teacher.clerk import Clerk
from core.teacher.endpoint import HOPELESS, PROBE, Dialect, Endpoint, Reply
from core.teacher.journal import Journal
from core.teacher.ledger import Attempt, Ledger, Outcome
from core.teacher.limits import Backoff, Breaker, Pace
from core.teacher.prices import Price
from core.teacher.template import Request, Template
from core.teacher.verdict import Verdict

#: a reply that is no verdict is asked for once more: endpoints do send empty contents now and then
NUM_OFF_MENU_RETRIES = 1
#: rough bytes per token for pacing; corrected by what the reply reports
BYTES_PER_TOKEN = 3.5
OFF_MENU = frozenset({"off_menu_verdict", "cut_off"})


@dataclass(frozen=True, slots=True)
class Options:
    """How a teacher behaves. Limits per minute of 0 mean none; `audit_share` of the verdicts get a second opinion.

    `timeout_s` bounds one judgement as a whole, retries and pauses between them included; waiting for one's turn is not part.
    """

    timeout_s: float = 60.0
    num_at_once: int = 8
    num_attempts: int = 6
    backoff: Backoff = field(default_factory=Backoff)
    requests_per_minute: float = 0.0
    tokens_per_minute: float = 0.0
    max_output_tokens: int = 1200
    audit_share: float = 0.0
    breaker_threshold: int = 10
    cool_down_s: float = 15.0
    #: the thread ends after this long without work
    idle_s: float = 5.0


@dataclass(slots=True, eq=False, weakref_slot=True)
class Item:
    """One distinct text to judge and everybody who waits for it. `purpose` is judge, audit or probe."""

    key: str
    purpose: str
    prompt: Prompt = field(default_factory=lambda: Prompt((), "en"))  # type: ignore[arg-type]
    completion: Completion = field(default_factory=lambda: Completion("", "", ""))
    priority: int = -1
    futures: list[Any] = field(default_factory=list)
    request: Request | None = None
    is_started: bool = False
    is_probe: bool = False
    is_sending: bool = False
    last_reason: str | None = None


class Asker:
    """See the module. `on_attempt` is called for every request that was sent, in the loop."""

    def __init__(
        self, endpoint: Endpoint, template: Template, options: Options, ledger: Ledger, journal: Journal | None,
        on_attempt: Callable[[Attempt], None],
    ) -> None:  # fmt: skip
        self.endpoint, self.template, self.options, self.ledger, self.journal = endpoint, template, options, ledger, journal
        self.on_attempt = on_attempt
        now = time.monotonic()
        self.pace = Pace(options.requests_per_minute, options.tokens_per_minute, now)
        self.breaker = Breaker(options.breaker_threshold, options.cool_down_s)
        self.rng = random.Random()
        self.last_success: float | None = None
        self.down_since: datetime | None = None
        self.is_budget_spent = False
        self.num_holding = 0
        self.is_writing = False
        self.events: deque[Attempt | Outcome] = deque()
        self.lines: deque[dict[str, Any]] = deque()
        self.dialect: Dialect | None = None
        self.price: Price | None = None
        self.has_budget = False

    async def begin(self, client: httpx.AsyncClient, clerk: Clerk) -> None:
        """A new event loop: bind to it and read what the ledger knows. Raises UserError when it cannot be read."""
        self.client, self.clerk = client, clerk
        self.write_lock, self.settled = asyncio.Lock(), asyncio.Condition()
        if self.dialect is None:
            self.dialect = Dialect(**await clerk.do(self.ledger.dialect, self.endpoint.name))
        self.price = await clerk.do(self.ledger.price, self.endpoint.model)
        self.has_budget = self.ledger.has_budget()

    def prepare(self, item: Item) -> float:
        """Render the request (kept for retries); returns about how many tokens it is."""
        if item.request is None and item.purpose != "probe":
            item.request = self.template.request(item.prompt, item.completion)
        num_bytes = item.request.num_bytes if item.request else 40
        return num_bytes / BYTES_PER_TOKEN

    async def judge(self, item: Item) -> Outcome:
        """The outcome for an item that the dispatcher has admitted. Its facts are in `events`, to be flushed."""
        started = time.monotonic()
        attempt = Attempt(item.key, item.purpose)
        verdict: Verdict | None = None
        try:
            reason = await self._reserve(item, attempt)  # waiting for money is waiting for one's turn
            if reason is not None:
                return self._outcome(item, None, reason, None, started)
            async with asyncio.timeout(self.options.timeout_s):
                reply = await self._attempts(item, attempt)
                verdict, reason, attempt = reply.verdict, reply.attempt.reason, reply.attempt
        except TimeoutError:
            reason = "timeout" if item.is_sending or item.last_reason is None else item.last_reason
        finally:
            self.breaker.abandon(item.is_probe)  # however it ended, the next one may try
            item.is_probe = False
        return self._outcome(item, verdict, reason, attempt, started)

    async def _attempts(self, item: Item, attempt: Attempt) -> Reply:
        """Send until there is a verdict or no hope."""
        dialect = self.dialect or Dialect()
        num_off_menu = 0
        for number in range(self.options.num_attempts):
            reply = await self._send(item, attempt, dialect)
            reason = item.last_reason = reply.attempt.reason
            if reason is None:
                if item.purpose != "probe":
                    await self._learn(dialect)
                return reply
            num_off_menu += reason in OFF_MENU
            following = dialect.after_refusal(reply.complaint) if reason == "bad_request" and attempt.status in (400, 422) else None
            self._take_news(item, reply, is_final=following is None)
            is_hopeless = (reason in HOPELESS or item.purpose == "probe") and following is None
            if is_hopeless or num_off_menu > NUM_OFF_MENU_RETRIES or number + 1 == self.options.num_attempts:
                return reply
            if following is not None:
                dialect = following
            elif not await self._pause(reply, number):
                return reply
            if not self.breaker.may_start(time.monotonic()) and not item.is_probe:
                return reply
            attempt = Attempt(item.key, item.purpose)
            if (refusal := await self._reserve(item, attempt)) is not None:
                attempt.reason, attempt.is_sent = refusal, False
                return Reply(attempt)
            item.is_probe = self.breaker.begin() or item.is_probe
            self.pace.start(self.prepare(item), time.monotonic())
        raise AssertionError("num_attempts must be at least 1")

    async def _send(self, item: Item, attempt: Attempt, dialect: Dialect) -> Reply:
        """One request, and its facts into the lists whatever happens (a cancelled one counts as unclear)."""
        item.is_sending = True
        reply = Reply(attempt)
        try:
            reply = await self.endpoint.ask(self.client, item.request, dialect, self.price, attempt)
        finally:
            now = time.monotonic()
            self.events.append(attempt)
            self.on_attempt(attempt)
            if attempt.has_usage:
                self.pace.correct(self.prepare(item), attempt.prompt_tokens + attempt.completion_tokens, now)
            if attempt.reason == "timeout":  # also when the deadline cuts it off
                self._fail(item, "timeout", now)
            if self.journal is not None:
                self.lines.append(self._line(item, reply))
        item.is_sending = False
        if reply.headers is not None:
            self.pace.heed(reply.headers, now)
        if attempt.status is not None and attempt.reason in (None, "refused", *OFF_MENU) and "fault" not in attempt.detail:
            self.breaker.succeed()
            self.last_success, self.down_since, item.is_probe = now, None, False
        return reply

    def _take_news(self, item: Item, reply: Reply, *, is_final: bool) -> None:
        """What a reply without a verdict means for the breaker and the pace."""
        now, reason, wait = time.monotonic(), reply.attempt.reason or "", reply.retry_after_s
        if reason in ("bad_key", "no_credit"):
            self._fail(item, reason, now, at_once=True)
        elif reason == "rate_limited":
            if wait is not None and wait > self.options.timeout_s:
                self._fail(item, reason, now, at_once=True, for_s=wait)  # longer than anybody may wait here
            else:
                self.breaker.abandon(item.is_probe)
                self.pace.pause(wait or 0.0, now)
        elif reason == "bad_request" and item.purpose == "probe":
            self.breaker.abandon(item.is_probe)  # it is there; whether it takes a judgement is for a judgement to find out
        elif reason in ("unreachable", "server_error") or (reason == "bad_request" and is_final) or "fault" in reply.attempt.detail:
            self._fail(item, "server_error" if reason in OFF_MENU else reason, now)

    def _fail(self, item: Item, reason: str, now: float, *, at_once: bool = False, for_s: float = 0.0) -> None:
        self.breaker.fail(reason, now, is_probe=item.is_probe, at_once=at_once, for_s=for_s)
        item.is_probe = False
        if self.breaker.is_open and self.down_since is None:
            self.down_since = datetime.now(UTC)

    async def _pause(self, reply: Reply, number: int) -> bool:
        """Sleep before the next attempt: full jitter on top of what the endpoint asked for. False when that would be too long."""
        asked = reply.retry_after_s or 0.0
        if asked > self.options.timeout_s:
            return False
        pause = self.options.backoff.pause_s(number, self.rng, asked)
        now = time.monotonic()
        await asyncio.sleep(max(pause, self.pace.delay(1, now)))
        return True

    async def _reserve(self, item: Item, attempt: Attempt) -> str | None:
        """Hold what the request can cost at most; None when it may be sent, else the reason why not.

        While other requests of this teacher hold money that may come back, it waits for them.
        """
        if not self.has_budget:
            return None
        if self.price is None:
            return "price_unknown"
        request = item.request
        num_bytes, num_messages = (request.num_bytes, len(request.messages)) if request else (len(PROBE[0]["content"]), 1)
        usd = self.price.most(num_bytes, num_messages, self.options.max_output_tokens if request else 1)
        while True:
            call = self.clerk.send(self.ledger.reserve, usd)
            try:
                has_room = await asyncio.shield(asyncio.wrap_future(call))
            except asyncio.CancelledError:
                unused = Attempt(item.key, item.purpose, reserved_usd=usd, is_sent=False)
                call.add_done_callback(partial(self._give_back, unused))
                raise
            if has_room:
                attempt.reserved_usd = usd
                self.num_holding += 1
                if item.purpose != "probe":  # a probe costs so little that its money says nothing about a judgement's
                    self.is_budget_spent = False
                return None
            async with self.settled:
                if self.num_holding == 0:
                    self.is_budget_spent = True
                    return "budget_spent"
                await self.settled.wait()

    def _give_back(self, unused: Attempt, call: Future[bool]) -> None:
        """A reservation came through after nobody wanted it any more."""
        if call.exception() is None and call.result():
            self.events.append(unused)

    async def _learn(self, dialect: Dialect) -> None:
        if dialect != self.dialect:
            self.dialect = dialect
            await self.clerk.do(self.ledger.remember_dialect, self.endpoint.name, asdict(dialect))

    async def flush(self) -> None:
        """Write all facts so far in one transaction. Raises UserError; they are kept for the next time then."""
        async with self.write_lock:
            events, lines = list(self.events), list(self.lines)
            if not events and not lines:
                return
            self.is_writing = True
            self.events.clear()
            self.lines.clear()
            try:
                await self.clerk.do(self._write, events, lines)
            except BaseException:
                self.events.extendleft(reversed(events))
                raise
            finally:
                self.is_writing = False
            self.num_holding -= sum(1 for e in events if isinstance(e, Attempt) and e.reserved_usd > 0 and e.is_sent)
        async with self.settled:
            self.settled.notify_all()

    def _write(self, events: list[Attempt | Outcome], lines: list[dict[str, Any]]) -> None:
        if self.journal is not None:
            for line in lines:
                self.journal.write(line)
        if events:
            self.ledger.write(events)

    def _outcome(self, item: Item, verdict: Verdict | None, reason: str | None, attempt: Attempt | None, started: float) -> Outcome:
        name, version, latency_s = self.endpoint.model, self.template.version, time.monotonic() - started
        if verdict is None:
            judgement = Judgement(name, version, None, unscored_reason=reason or "server_error", latency_s=latency_s)
        else:
            judgement = Judgement(
                name,
                version,
                verdict.teacher_score,
                safety_flag=verdict.safety_flag,
                critique=verdict.critique.strip(),
                suggested_answer=verdict.suggested_answer,
                latency_s=latency_s,
            )
        if item.purpose == "probe":
            judgement = Judgement(name, version, None, unscored_reason=reason)
        return Outcome(item.key, item.purpose, item.prompt, item.completion, judgement, attempt)

    def _line(self, item: Item, reply: Reply) -> dict[str, Any]:
        """One line of the log."""
        assert self.journal is not None
        attempt, say = reply.attempt, self.journal.text
        line = {
            "key": attempt.key,
            "purpose": attempt.purpose,
            "teacher": self.endpoint.model,
            "host": self.endpoint.host,
            "rubric_version": self.template.version,
            "status": attempt.status,
            "reason": attempt.reason,
            "latency_s": round(attempt.latency_s, 3),
            "prompt_tokens": attempt.prompt_tokens,
            "cached_tokens": attempt.cached_tokens,
            "completion_tokens": attempt.completion_tokens,
            "cost_usd": attempt.cost_usd,
            "reported_model": attempt.reported_model,
            "fingerprint": attempt.fingerprint,
            **attempt.detail,
        }
        if item.purpose != "probe":
            line |= {"question": say(item.prompt.text), "answer": say(item.completion.answer), "reply": say(reply.text)}
        if reply.complaint:
            line["error"] = say(reply.complaint) if self.journal.with_text else _code_of(reply.complaint)
        return line


def _code_of(complaint: str) -> str:
    """The machine-readable part of an error body; its prose may repeat what was asked."""
    try:
        error = json.loads(complaint)["error"]
        return " ".join(str(error[k])[:60] for k in ("type", "code") if error.get(k))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
