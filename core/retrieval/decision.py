"""Should the embedding model be fine-tuned? Bands of measured retrieval, satisfaction and failures, and what to do first. Pure.

Bands (recall@10, satisfaction of 5, failure rate): no_finetuning_needed from 0.85, from 4.2, below 8 %; recommended 0.75 to 0.85,
3.5 to 4.2, 8 to 15 %; critical below 0.75, below 3.5, above 15 %. Reported issues: monitor from 8 %, recommended above 15 %.
Terminology or mixed languages above 30 % of the failures recommend it whatever the means say. A cause that fine-tuning cannot mend
comes first: passages that are found but stand too low are reranked, documents that are missing are added, and only then is measured
again. What was not measured is None and decides nothing. A set may carry thresholds of its own; the bands move with them. Called by
core.retrieval_reports and the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from core.retrieval.failures import CATEGORIES
from core.retrieval.metrics import Threshold

Level = Literal["no_finetuning_needed", "monitor", "recommended", "critical"]
LEVELS: tuple[Level, ...] = ("no_finetuning_needed", "monitor", "recommended", "critical")
Action = Literal["rerank_first", "add_documents", "fine_tune", "measure_more", "nothing"]

THRESHOLDS = {"recall@5": 0.70, "recall@10": 0.85, "mrr@10": 0.70}
#: below this share of its threshold recall@10 is critical (0.75 of 0.85)
CRITICAL_SHARE = 0.75 / 0.85
SATISFACTION = (4.2, 3.5)
FAILURE_RATE = (0.08, 0.15)
#: a category's share of the failures above which it decides
CAUSE_SHARE = 0.30
MIN_QUERIES = 30
#: fewer failures say nothing about their causes
MIN_FAILURES = 10
MIN_PAIRS, GOOD_PAIRS = 500, 2000
#: a default threshold above this many times BM25's value was made for another kind of set
FAR_ABOVE_BM25 = 2.5


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known. Rates are shares in [0, 1], satisfaction 1 to 5; None: not measured.

    `failure_rate` is the share of judged questions that failed, `issue_rate` the share of asks that somebody marked as bad.
    """

    metrics: Mapping[str, float | None]
    num_queries: int
    failures: Mapping[str, int]
    satisfaction: float | None = None
    failure_rate: float | None = None
    issue_rate: float | None = None
    num_pairs: int | None = None
    has_reranker: bool | None = None
    has_doc2query: bool | None = None
    is_encoder_local: bool | None = None
    has_frozen_set: bool | None = None
    has_rollback: bool | None = None
    queries_needed: int | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """One reason. `key` names its sentence in assets/i18n/retrieval.toml (signal_...)."""

    key: str
    level: Level
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the checklist before tuning; None: nobody knows yet."""

    key: str
    is_done: bool | None
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prices:
    """Assumptions of the cost sheet; a team puts in its own. Money is in one currency throughout."""

    minutes_per_pair: float = 1.5
    cost_per_hour: float = 60.0
    training_hours: float = 2.0
    cost_per_machine_hour: float = 1.0
    asks_per_month: int = 2000
    minutes_lost_per_failure: float = 4.0
    #: share of the failures with a cause it can mend that a fine-tune is expected to remove; measured gains scatter around zero
    expected_mended: float = 0.15


@dataclass(frozen=True, slots=True)
class Sheet:
    """Costs and return. `payback_months` is None when nothing comes back or failures are not known."""

    pairs_missing: int
    labelling_cost: float
    training_cost: float
    total_cost: float
    failures_per_month: float | None
    mendable_share: float | None
    saved_per_month: float | None
    payback_months: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """`level` is about fine-tuning only, `severity` about how bad retrieval is, whatever the cure."""

    level: Level
    severity: Level
    actions: tuple[Action, ...]
    signals: tuple[Signal, ...]
    checklist: tuple[Check, ...]
    sheet: Sheet
    thresholds: tuple[Threshold, ...]

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def decide(facts: Facts, thresholds: Mapping[str, Threshold] | None = None, prices: Prices | None = None) -> Decision:
    """The verdict with its evidence. `thresholds` (metric -> record) replace the default values of the same name."""
    given = dict(thresholds or {})
    bars = {name: given[name]["value"] if name in given else value for name, value in THRESHOLDS.items()}
    signals = [*_metric_signals(facts, bars), *_people_signals(facts), *_far_signals(given)]
    causes = _causes(facts)
    is_found_but_low = _is_found_but_low(facts, bars)
    # What few failures there are of a set that is well served has causes too; they ask for nothing.
    is_failing = facts.failure_rate is None or facts.failure_rate >= FAILURE_RATE[0]
    vocabulary = [name for name in causes if _is_vocabulary(name)] if is_failing and not is_found_but_low else []
    signals += [Signal(f"cause_{name}", "recommended", {"share": causes[name]}) for name in vocabulary]
    severity = LEVELS[max((LEVELS.index(s.level) for s in signals), default=0)]
    actions: list[Action] = []
    if is_found_but_low or ("ranking_issue" in causes and severity != "no_finetuning_needed"):
        actions.append("rerank_first")
    if "document_coverage" in causes and severity != "no_finetuning_needed":
        actions.append("add_documents")
    level = severity
    if facts.num_queries < MIN_QUERIES:
        actions.append("measure_more")
        level = "monitor"
        signals.append(Signal("too_few_queries", "monitor", {"n": facts.num_queries, "least": MIN_QUERIES}))
    elif is_found_but_low:
        level = "no_finetuning_needed"  # an embedding finds, a reranker orders
    elif actions and not vocabulary:
        level = "monitor"  # another cure comes first, then it is measured again
    elif _is_bad(severity):
        actions.append("fine_tune")
    return Decision(
        level, severity, tuple(actions or ["nothing"]), tuple(signals), _checklist(facts), _sheet(facts, causes, prices or Prices()),
        tuple(given[name] for name in THRESHOLDS if name in given),
    )  # fmt: skip


def _is_bad(level: Level) -> bool:
    return LEVELS.index(level) >= LEVELS.index("recommended")


def _is_vocabulary(category: str) -> bool:
    return category in ("terminology_mismatch", "language_mixing")


def _is_found_but_low(facts: Facts, bars: Mapping[str, float]) -> bool:
    """Recall is fine and the order is not: an embedding finds, a reranker orders."""
    recall = facts.metrics.get("recall@10")
    if recall is None or recall < bars["recall@10"]:
        return False
    below = (facts.metrics.get(name) for name in ("recall@5", "mrr@10"))
    return any(v is not None and v < bars[name] for v, name in zip(below, ("recall@5", "mrr@10"), strict=True))


def _metric_signals(facts: Facts, bars: Mapping[str, float]) -> list[Signal]:
    found = []
    recall = facts.metrics.get("recall@10")
    for name, bar in bars.items():
        value = facts.metrics.get(name)
        if value is None:
            continue
        level: Level = "no_finetuning_needed"
        if value < bar and name == "recall@10":
            level = "critical" if value < bar * CRITICAL_SHARE else "recommended"
        elif value < bar:
            level = "recommended" if recall is None or recall < bars["recall@10"] else "monitor"
        found.append(Signal("metric_reached" if value >= bar else "metric_missed", level, {"metric": name, "value": value, "bar": bar}))
    return found


def _people_signals(facts: Facts) -> list[Signal]:
    found = []
    if facts.satisfaction is not None:
        good, bad = SATISFACTION
        level: Level = "no_finetuning_needed" if facts.satisfaction >= good else "recommended" if facts.satisfaction >= bad else "critical"
        found.append(Signal("satisfaction", level, {"value": facts.satisfaction}))
    low, high = FAILURE_RATE
    if facts.failure_rate is not None:
        level = "no_finetuning_needed" if facts.failure_rate < low else "recommended" if facts.failure_rate <= high else "critical"
        found.append(Signal("failure_rate", level, {"value": facts.failure_rate}))
    if facts.issue_rate is not None:
        level = "no_finetuning_needed" if facts.issue_rate < low else "monitor" if facts.issue_rate <= high else "recommended"
        found.append(Signal("issue_rate", level, {"value": facts.issue_rate}))
    return found


def _far_signals(thresholds: Mapping[str, Threshold]) -> list[Signal]:
    """A default threshold on a set where even plain BM25 is far away: it was made for another kind of gold or corpus."""
    return [
        Signal("threshold_far", "no_finetuning_needed", {"metric": name, "bar": one["value"], "bm25": one["bm25"], "gold": one["gold"]})
        for name, one in thresholds.items()
        if one["source"] == "default" and one["bm25"] and one["value"] > FAR_ABOVE_BM25 * one["bm25"]
    ]


def _causes(facts: Facts) -> dict[str, float]:
    """Categories that hold more than CAUSE_SHARE of the failures, largest first; none when there are too few to say."""
    total = sum(facts.failures.values())
    if total < MIN_FAILURES:
        return {}
    shares = {name: facts.failures.get(name, 0) / total for name in CATEGORIES}
    return {name: share for name, share in sorted(shares.items(), key=lambda item: -item[1]) if share > CAUSE_SHARE}


def _checklist(facts: Facts) -> tuple[Check, ...]:
    pairs = facts.num_pairs
    return (
        Check("judged", facts.num_queries >= MIN_QUERIES, {"n": facts.num_queries, "least": MIN_QUERIES}),
        Check(
            "power",
            None if facts.queries_needed is None else facts.num_queries >= facts.queries_needed,
            {"needed": facts.queries_needed or 0},
        ),
        Check("pairs", None if pairs is None else pairs >= MIN_PAIRS, {"n": pairs or 0, "least": MIN_PAIRS, "good": GOOD_PAIRS}),
        Check("reranker", facts.has_reranker, {}),
        Check("doc2query", facts.has_doc2query, {}),
        Check("encoder_local", facts.is_encoder_local, {}),
        Check("frozen_set", facts.has_frozen_set, {}),
        Check("rollback", facts.has_rollback, {}),
    )


def _sheet(facts: Facts, causes: Mapping[str, float], prices: Prices) -> Sheet:
    missing = max(0, MIN_PAIRS - (facts.num_pairs or 0))
    labelling = missing * prices.minutes_per_pair / 60 * prices.cost_per_hour
    training = prices.training_hours * prices.cost_per_machine_hour
    rate = facts.issue_rate if facts.issue_rate is not None else facts.failure_rate
    total = sum(facts.failures.values())
    mendable = (total - facts.failures.get("document_coverage", 0) - facts.failures.get("ranking_issue", 0)) / total if total else None
    failed = None if rate is None else rate * prices.asks_per_month
    saved = None
    if failed is not None and mendable is not None:
        saved = failed * mendable * prices.expected_mended * prices.minutes_lost_per_failure / 60 * prices.cost_per_hour
    cost = labelling + training
    return Sheet(missing, labelling, training, cost, failed, mendable, saved, cost / saved if saved else None)
