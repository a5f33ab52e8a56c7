"""What a teacher says about itself: the reasons for which it left something unscored, its usage and its health. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

#: Every reason for which a judgement may be unscored; `scoring.reason_<code>` in assets/i18n says it to people.
REASONS = (
    "no_reference",
    "empty_answer",
    "off_menu_verdict",
    "cut_off",
    "refused",
    "timeout",
    "rate_limited",
    "unreachable",
    "bad_key",
    "no_credit",
    "server_error",
    "bad_request",
    "endpoint_down",
    "budget_spent",
    "price_unknown",
    "identifiers",
)
#: Reasons that will not change by asking again; the others are asked again by the next score job.
LASTING_REASONS = frozenset({"no_reference", "empty_answer", "identifiers"})


@dataclass(frozen=True, slots=True)
class Usage:
    """What a teacher has done since it was opened. Costs in USD, latencies in seconds.

    `num_asked` counts completions handed to it; of these `num_cached` were answered from the cache, and a text that was asked
    for twice at once counts as cached the second time. `num_requests` are HTTP requests (retries, second opinions and probes
    included). `cost_usd` is None as soon as one reply had no known price or reported no tokens; `num_unclear` requests broke off
    without a reply and may have been billed on top.
    """

    num_asked: int = 0
    num_cached: int = 0
    num_scored: int = 0
    num_unscored: int = 0
    num_requests: int = 0
    num_audits: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    num_unclear: int = 0
    #: time from the first attempt to the verdict, one entry per judgement that was not cached (the newest 10,000)
    latencies: tuple[float, ...] = ()
    #: unscored judgements by reason
    reasons: Mapping[str, int] = field(default_factory=dict)

    def since(self, earlier: Usage) -> Usage:
        """What was added after `earlier`, a snapshot of the same teacher: one rollout's usage."""
        fresh = self.num_asked - self.num_cached - (earlier.num_asked - earlier.num_cached)
        reasons = {name: n for name, count in self.reasons.items() if (n := count - earlier.reasons.get(name, 0))}
        return Usage(
            self.num_asked - earlier.num_asked,
            self.num_cached - earlier.num_cached,
            self.num_scored - earlier.num_scored,
            self.num_unscored - earlier.num_unscored,
            self.num_requests - earlier.num_requests,
            self.num_audits - earlier.num_audits,
            self.prompt_tokens - earlier.prompt_tokens,
            self.cached_tokens - earlier.cached_tokens,
            self.completion_tokens - earlier.completion_tokens,
            None if self.cost_usd is None or earlier.cost_usd is None else self.cost_usd - earlier.cost_usd,
            self.num_unclear - earlier.num_unclear,
            self.latencies[-fresh:] if fresh > 0 else (),
            reasons,
        )

    def latency_s(self, share: float) -> float | None:
        """The nearest-rank percentile of the latencies (0.5 is the median), or None without any."""
        ranked = sorted(self.latencies)
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else None


@dataclass(frozen=True, slots=True)
class Health:
    """Whether it makes sense to ask now. `reason` is one of `REASONS` when it does not, `retry_at` when to look again."""

    is_up: bool
    reason: str | None = None
    since: datetime | None = None
    retry_at: datetime | None = None

    @property
    def state(self) -> str:
        """`up` or `down`."""
        return "up" if self.is_up else "down"
