"""What the rules of the reward write to: points per dimension, begun at their maximum, with a reason for each that is taken.

Invariant: a dimension's maximum plus its deductions is its score (before it is held inside its range). Pure.
Called by core.expansion.rubric and .only_mode; read by core.expansion.reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MAXIMA = {"format": 30, "diversity": 30, "hyde": 20, "quality": 20, "entity": 20}
THINK_BONUS = 20
QUOTE_BONUS = 3
ENTITY_FLOOR = -45
HYDE_WIDTH = (50, 200)
#: an expansion with a lex line that is the query itself gets no more than this share. The published code also holds those that add a
#: word ("react hooks tutorial") there, against its own document, which gives that example 85 of 100; we follow the document
ECHO_CAP = 0.5


@dataclass(frozen=True, slots=True)
class Deduction:
    """Points that are missing (negative) and why. `line`: from 1, None for the whole answer; `reason_key`: expansion.reason_..."""

    line: int | None
    dimension: str
    points: float
    reason_key: str
    facts: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """Points per dimension, begun at the maximum; what is taken is written down with its reason."""

    def __init__(self) -> None:
        self.raw: dict[str, float] = {**MAXIMA, "think": THINK_BONUS}
        self.deductions: list[Deduction] = []
        self.quotes = 0.0
        self.num_echoes = 0
        self.dimensions: dict[str, float] = {}
        self.bonus: dict[str, float] = {}

    def take(self, dimension: str, points: float, reason: str, line: int | None = None, **facts: Any) -> None:
        self.raw[dimension] -= points
        self.deductions.append(Deduction(line, dimension, -points, f"reason_{reason}", facts))

    def close(self, *, has_hyde: bool) -> tuple[float, float, int]:
        """Rubric 0..1, points and maximum. Fills `dimensions` (inside their ranges) and `bonus` (the rest)."""
        if not has_hyde:
            self.raw["hyde"] = 0
        floors = {**dict.fromkeys(MAXIMA, 0), "entity": ENTITY_FLOOR}
        self.dimensions = {name: float(max(floors[name], self.raw[name])) for name in MAXIMA}
        beyond = sum(self.raw[name] for name in MAXIMA) - sum(self.dimensions.values())
        self.bonus = {"think": float(self.raw["think"]), "quotes": self.quotes, "beyond": float(beyond)}
        maximum = 140 if has_hyde else 120
        points = sum(self.dimensions.values()) + sum(self.bonus.values())
        rubric = max(0.0, min(1.0, points / maximum))
        if self.num_echoes and rubric > ECHO_CAP:
            self.deductions.insert(0, Deduction(None, "cap", ECHO_CAP * maximum - points, "reason_capped", {"cap": int(ECHO_CAP * 100)}))
            rubric = ECHO_CAP
        return rubric, max(0.0, points), maximum

    def share(self, dimension: str, points: float, numbers: Sequence[int], reason: str, **facts: Any) -> None:
        """Take `points` once, in equal parts from the lines that it is owed to."""
        for number in numbers:
            self.take(dimension, points / len(numbers), reason, number, **facts)

    def take_up_to(self, limit: float, dimension: str, points: float, reason: str, line: int | None = None, **facts: Any) -> float:
        """Take `points`, at most `limit`; what is left of the limit."""
        cost = min(points, limit)
        self.take(dimension, cost, reason, line, **facts)
        return limit - cost
