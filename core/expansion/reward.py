"""The reward of an expansion: five dimensions, a bonus for not thinking aloud, hard failures, and whether it finds anything.

    format     0..30   a lex line, a vec line, nothing else
    diversity  0..30   both kinds, lines that differ, no echo of the query
    hyde       0..20   a passage of 50 to 200 columns without repetitions (optional: without one the maximum is 120, not 140)
    quality    0..20   keywords shorter than sentences, sentences natural, key terms kept, no filler
    entity   -45..20   the query's names stand in lex and vec lines (10 where it has none)
    bonus              20 for no thinking block; 3 for quoted phrases; `beyond`: what the published code takes off (or adds)
                       outside its own ranges above, a dropped name for instance at 20 points each

The points follow the published rubric of qmd (github tobi/qmd, finetune: README, SCORING.md), English scores agree with it
(docs/benchmarks_expansion.md); `core.expansion.terms` makes the same rules mean something in Chinese. The rubric cannot tell sense
from well-formed nonsense, so `grounding` multiplies it by what the lines find (`core.expansion.grounding`).
Every point that is missing is a `Deduction` with the line it is owed to. Pure. Called by training, evaluation, pages and CLI.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from core.expansion import only_mode, rubric
from core.expansion.points import MAXIMA, THINK_BONUS, Deduction, Ledger
from core.expansion.schema import Parsed, parse_output

#: what is left of the rubric's reward when the lines find nothing
UNGROUNDED = 0.35
RATINGS = ((0.8, "excellent"), (0.6, "good"), (0.4, "acceptable"), (0.2, "poor"), (0.0, "failed"))
#: "query /only:lex" asks for one kind of lines
ONLY = re.compile(r"\s+/only:(lex|vec|hyde)\s*$", re.IGNORECASE)


class Grounds(Protocol):
    """What `core.expansion.grounding` gives: how well the lines find what is known to answer the query."""

    def judge(self, query: str, parsed: Parsed) -> Grounded | None:
        """None for a query of which no relevant passage is known: unscored, not zero."""


@dataclass(frozen=True, slots=True)
class Grounded:
    """`value` 0..1 of one expansion, with what speaks against it."""

    value: float
    notes: tuple[Deduction, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """`reward` 0..1; `rubric` the same without the retrieval term; `points` of `maximum`, before an echo holds the rubric at half;
    `rating` a name of RATINGS."""

    reward: float
    rubric: float
    points: float
    maximum: int
    rating: str
    dimensions: dict[str, float]
    bonus: dict[str, float]
    deductions: list[Deduction]
    has_failed: bool = False
    grounded: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def score(query: str, output: str, *, grounding: Grounds | None = None) -> Score:
    """The score of a model's answer to `query`. Never raises for bad output: it fails, and says why."""
    parsed = parse_output(output)
    failures = _failures(parsed)
    if failures:
        return _failed(failures)
    ledger = Ledger()
    only = ONLY.search(query)
    if only is None:
        rubric.fill(ledger, query, parsed)
    elif not only_mode.fill(ledger, ONLY.sub("", query), parsed, only[1].lower()):
        return _failed(ledger.deductions)
    if parsed.think:
        ledger.take("think", THINK_BONUS, "thinks")
    share, points, maximum = ledger.close(has_hyde=bool(parsed.texts("hyde")) and not only)
    grounded = grounding.judge(query, parsed) if grounding else None
    reward = share if grounded is None else share * (UNGROUNDED + (1 - UNGROUNDED) * grounded.value)
    notes = grounded.notes if grounded else ()
    owed = (share - reward) * maximum / max(1, len(notes))
    return Score(
        reward=reward,
        rubric=share,
        points=points,
        maximum=maximum,
        rating=rating_of(reward),
        dimensions=ledger.dimensions,
        bonus=ledger.bonus,
        deductions=[*ledger.deductions, *(replace(note, points=-owed) for note in notes)],
        grounded=grounded.value if grounded else None,
        facts=grounded.facts if grounded else {},
    )


def _failed(why: list[Deduction]) -> Score:
    return Score(0.0, 0.0, 0, 100, "failed", dict.fromkeys(MAXIMA, 0.0), {"think": 0.0}, why, has_failed=True)


def rating_of(reward: float) -> str:
    """excellent from 0.8, good from 0.6, acceptable from 0.4, poor from 0.2, else failed."""
    return next(name for least, name in RATINGS if round(reward, 6) >= least)


def _failures(parsed: Parsed) -> list[Deduction]:
    """Why the answer is worth nothing, if it is."""
    found = [Deduction(None, "format", -100, "reason_leak", {"sign": leak[:30]}) for leak in parsed.leaks]
    found += [Deduction(number, "format", -100, "reason_bad_line", {"text": text[:50]}) for number, text in parsed.bad]
    if not found and not parsed.lines:
        found.append(Deduction(None, "format", -100, "reason_no_lines"))
    return found
