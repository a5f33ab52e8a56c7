"""How fast and how long a teacher endpoint is asked: pacing, pauses between attempts, and a breaker for outages. Pure.

Times are monotonic seconds given by the caller, so that every rule here can be tested without waiting. Used by
`core.teacher.api` from one event loop; nothing here is thread-safe by itself.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


class Bucket:
    """A token bucket: `per_minute` units flow in evenly, at most a tenth of them at once. 0 means no limit."""

    def __init__(self, per_minute: float, now: float) -> None:
        self.rate = per_minute / 60
        self.size = max(1.0, per_minute / 10)
        self.level = self.size
        self.at = now

    def delay(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken. More than the bucket holds may be taken when it is full (it goes into debt)."""
        if not self.rate:
            return 0.0
        self._fill(now)
        return max(0.0, (min(amount, self.size) - self.level) / self.rate)

    def take(self, amount: float, now: float) -> None:
        """Take `amount` (negative gives back), even when it is not there yet."""
        if self.rate:
            self._fill(now)
            self.level = min(self.size, self.level - amount)

    def _fill(self, now: float) -> None:
        self.level = min(self.size, self.level + (now - self.at) * self.rate)
        self.at = now


class Pace:
    """Requests and tokens per minute together, and pauses that the endpoint asked for."""

    def __init__(self, requests_per_minute: float, tokens_per_minute: float, now: float) -> None:
        self.requests = Bucket(requests_per_minute, now)
        self.tokens = Bucket(tokens_per_minute, now)
        self.paused_until = now

    def delay(self, num_tokens: float, now: float) -> float:
        """Seconds until a request with about this many tokens may start."""
        return max(self.requests.delay(1, now), self.tokens.delay(num_tokens, now), self.paused_until - now, 0.0)

    def start(self, num_tokens: float, now: float) -> None:
        """A request starts."""
        self.requests.take(1, now)
        self.tokens.take(num_tokens, now)

    def correct(self, guessed: float, used: float, now: float) -> None:
        """The reply said how many tokens it really were."""
        self.tokens.take(used - guessed, now)

    def pause(self, seconds: float, now: float) -> None:
        """Nobody asks for this long; an earlier, longer pause stays."""
        self.paused_until = max(self.paused_until, now + seconds)

    def heed(self, headers: Mapping[str, str], now: float) -> None:
        """Pause as `x-ratelimit-remaining-*: 0` with `x-ratelimit-reset-*` asks for, before the endpoint has to refuse."""
        for what in ("requests", "tokens"):
            remaining, reset = headers.get(f"x-ratelimit-remaining-{what}"), headers.get(f"x-ratelimit-reset-{what}")
            if remaining is None or reset is None or not remaining.strip().lstrip("-").isdigit():
                continue
            seconds = duration_s(reset)
            if int(remaining) <= 0 and seconds is not None:
                self.pause(seconds, now)


class Breaker:
    """Stops asking an endpoint that keeps failing: open after `threshold` failures in a row, then one probe per cool-down.

    Cool-downs double up to `longest_s` while probes fail.
    """

    def __init__(self, threshold: int = 10, cool_down_s: float = 15.0, longest_s: float = 300.0) -> None:
        self.threshold = threshold
        self.first_s = self.cool_down_s = cool_down_s
        self.longest_s = longest_s
        self.num_failures = 0
        self.reason: str | None = None
        self.opened_until: float | None = None
        self.is_probing = False

    @property
    def is_open(self) -> bool:
        return self.opened_until is not None

    def may_start(self, now: float) -> bool:
        """Closed, or a cool-down is over and nobody probes yet."""
        return self.opened_until is None or (now >= self.opened_until and not self.is_probing)

    def begin(self) -> bool:
        """A request starts; True when it is the probe after a cool-down. Give that to the call that ends it."""
        is_probe = self.is_open and not self.is_probing
        self.is_probing = self.is_probing or is_probe
        return is_probe

    def succeed(self) -> None:
        """The endpoint has answered."""
        self.num_failures, self.reason, self.opened_until, self.is_probing = 0, None, None, False
        self.cool_down_s = self.first_s

    def fail(self, reason: str, now: float, *, is_probe: bool = False, at_once: bool = False, for_s: float = 0.0) -> None:
        """An attempt failed. `at_once` opens without counting (a refused key); `for_s` is a cool-down the endpoint asked for."""
        self.num_failures += 1
        self.reason = reason
        if is_probe:
            self.cool_down_s = min(self.longest_s, 2 * self.cool_down_s)
            self.is_probing = False
        if is_probe or at_once or (self.num_failures >= self.threshold and not self.is_open):
            self.opened_until = max(now + max(self.cool_down_s, for_s), self.opened_until or 0.0)

    def abandon(self, is_probe: bool) -> None:
        """A request ended without news of the endpoint (it was never sent)."""
        if is_probe:
            self.is_probing = False


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: uniform in [0, min(longest, first * 2^n)] after failure n = 0, 1, ...

    Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
    """

    first_s: float = 0.5
    longest_s: float = 20.0

    def pause_s(self, num_failures: int, rng: random.Random, at_least_s: float = 0.0) -> float:
        """Seconds to wait; never less than what the endpoint asked for, so that all do not come back at once after it."""
        return at_least_s + rng.uniform(0.0, min(self.longest_s, self.first_s * 2**num_failures))


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds in a Retry-After header: a number or an HTTP date (RFC 9110, 10.2.3). None when absent or unreadable."""
    if value is None or not value.strip():
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def duration_s(text: str) -> float | None:
    """Seconds in `1s`, `6m0s`, `20ms`, `1h2m`, or a bare number; None when unreadable."""
    text = text.strip()
    if text.replace(".", "", 1).isdigit():
        return float(text)
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        return None
    hours, minutes, seconds, milliseconds = (float(g or 0) for g in match.groups())
    return 3600 * hours + 60 * minutes + seconds + milliseconds / 1000
