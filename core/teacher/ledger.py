"""What a teacher must remember: verdicts that were paid for, what was spent, and what may still be spent.

`Ledger` is the door; `core.teacher.store.DatabaseLedger` keeps it in the database, `MemoryLedger` for the life of a process
(a teacher opened without a home). Calls block and come from one thread of the teacher's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.records import Completion, Judgement, Prompt
from core.teacher.prices import Price, shipped_prices


@dataclass(slots=True)
class Attempt:
    """One HTTP request that was sent. `cost_usd` None: paid, but nobody knows how much; `reserved_usd` was held for it.

    `reason` is None for a reply that held a verdict, else one of `REASONS`. `is_unclear`: no reply came, so it may or may not
    have been billed; the reservation then counts as spent.
    """

    key: str
    purpose: str
    reserved_usd: float = 0.0
    reason: str | None = None
    status: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    has_usage: bool = False
    cost_usd: float | None = 0.0
    is_unclear: bool = False
    #: False for a reservation that was never used: it only ends
    is_sent: bool = True
    latency_s: float = 0.0
    reported_model: str = ""
    fingerprint: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """A completion that is done with: its judgement, and the attempt that gave it (None when there was none).

    `purpose` is judge, or audit (a second opinion on a stored verdict, never the current judgement).
    """

    key: str
    purpose: str
    prompt: Prompt
    completion: Completion
    judgement: Judgement
    attempt: Attempt | None
    is_cached: bool = False


class Ledger(Protocol):
    """Raises UserError (Unavailable) when the database cannot be read or written; nothing is lost then, the caller tries again."""

    def price(self, model: str) -> Price | None:
        """The price in force, or None for an unknown model."""
        ...

    def has_budget(self) -> bool:
        """Whether anything limits the spending."""
        ...

    def reserve(self, usd: float) -> bool:
        """Hold `usd` against the budgets of job and month; False when it does not fit any more."""
        ...

    def find(self, keys: Sequence[str]) -> dict[str, Judgement]:
        """The stored verdicts among these keys."""
        ...

    def write(self, events: Sequence[Attempt | Outcome]) -> None:
        """Keep verdicts and count requests, tokens and costs; reservations of the attempts end. One transaction."""
        ...

    def dialect(self, endpoint: str) -> dict[str, Any]:
        """What was learnt about how an endpoint likes to be asked."""
        ...

    def remember_dialect(self, endpoint: str, dialect: dict[str, Any]) -> None:
        """Keep it."""
        ...


class MemoryLedger:
    """Keeps verdicts and spending in this process only. `budget_usd` 0 means no limit."""

    def __init__(self, budget_usd: float = 0.0, prices: dict[str, Price] | None = None) -> None:
        self.budget_usd = budget_usd
        self.prices = shipped_prices() if prices is None else prices
        self.spent_usd = self.reserved_usd = 0.0
        self.verdicts: dict[str, Judgement] = {}
        self.audits: list[tuple[Judgement, Judgement]] = []
        self.attempts: list[Attempt] = []
        self.dialects: dict[str, dict[str, Any]] = {}

    def price(self, model: str) -> Price | None:
        return self.prices.get(model)

    def has_budget(self) -> bool:
        return self.budget_usd > 0

    def reserve(self, usd: float) -> bool:
        if self.spent_usd + self.reserved_usd + usd > self.budget_usd + 1e-12:
            return False
        self.reserved_usd += usd
        return True

    def find(self, keys: Sequence[str]) -> dict[str, Judgement]:
        return {key: self.verdicts[key] for key in keys if key in self.verdicts}

    def write(self, events: Sequence[Attempt | Outcome]) -> None:
        for event in events:
            if isinstance(event, Attempt):
                self.attempts.append(event)
                self.reserved_usd -= event.reserved_usd
                self.spent_usd += spent(event)
            elif event.judgement.teacher_score is not None and event.purpose == "audit":
                self.audits.append((self.verdicts[event.key], event.judgement))
            elif event.judgement.teacher_score is not None and event.purpose == "judge":
                self.verdicts[event.key] = event.judgement

    def dialect(self, endpoint: str) -> dict[str, Any]:
        return self.dialects.get(endpoint, {})

    def remember_dialect(self, endpoint: str, dialect: dict[str, Any]) -> None:
        self.dialects[endpoint] = dialect


def spent(attempt: Attempt) -> float:
    """What an attempt counts against a budget: its cost, or all that was held for it when nobody knows."""
    return attempt.reserved_usd if attempt.is_unclear or attempt.cost_usd is None else attempt.cost_usd
