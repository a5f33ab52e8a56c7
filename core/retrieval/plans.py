"""How a question is searched: which legs with which weights, and what is switched off. Pure.

A weight of 0 switches a leg or a wording off. The defaults are those that no measured set contradicts
(docs/benchmarks_ask.md); a team's own plan is stored per index name (core.search_plans) once it is measured to be better, and
every request may override single fields. Called by core.retrieval.search, core.ask and the evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from core.errors import UserError

LINE_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """Weights multiply: a leg's vote counts (channel weight) x (wording weight) / (rrf_k + rank)."""

    #: channel weights
    lexical: float = 1.0
    dense: float = 1.0
    #: languages of a question for which the dense leg votes; empty means all. An English encoder must not vote on Chinese.
    dense_languages: tuple[str, ...] = ()
    #: wording weights; the question itself has 1, less what the glossary takes when the question names one of its terms
    glossary: float = 1.0
    pseudo_doc: float = 0.5
    #: what a line of an expansion weighs; None takes what the expander itself was measured best with (a term model chooses it on
    #: questions kept aside), and LINE_WEIGHT where it knows nothing
    expansion: float | None = None
    #: name of the model that writes expansion lines (core.expansion.expander), empty for none, and how long the search waits for it
    expander: str = ""
    expander_budget_ms: int = 400
    #: the gist of a long question beside it; off, because it lowers what was measured (docs/benchmarks_ask.md)
    summary: float = 0.0
    #: correct words that the index does not know
    spelling: bool = True
    #: search the pseudo-questions too
    with_syn: bool = True
    #: passages per leg and wording
    depth: int = 30
    rrf_k: int = 60
    #: name of a reranker, empty for none
    reranker: str = ""
    rerank_top: int = 20
    rerank_budget_ms: int = 200
    #: 1: the reranker decides alone; 0.5: its ranks and the fused ranks count alike
    rerank_weight: float = 1.0
    #: support below this is "unknown"; None takes the index's calibration
    min_support: float | None = None

    @property
    def line_weight(self) -> float:
        """The weight of a line when its expander has none of its own."""
        return LINE_WEIGHT if self.expansion is None else self.expansion

    def to_json(self) -> dict[str, Any]:
        """What differs from the defaults, so that a better default reaches those who never chose."""
        standard = Plan()
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items() if v != getattr(standard, name)}

    def changed(self, values: Mapping[str, Any]) -> Plan:
        """This plan with some fields replaced. Raises UserError("ask.bad_plan") naming the field that is unknown or out of range."""
        known = {field.name for field in fields(self)}
        cleaned: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise UserError("ask.bad_plan", field=name, value=value)
            cleaned[name] = _checked(name, value)
        return replace(self, **cleaned)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`; raises as `changed`."""
        return cls().changed(stored)


#: allowed ranges of the numbers
RANGES: dict[str, tuple[float, float]] = {
    "lexical": (0, 10), "dense": (0, 10), "pseudo_doc": (0, 10), "expansion": (0, 10), "glossary": (0, 1), "summary": (0, 10),
    "expander_budget_ms": (0, 60_000),
    "depth": (1, 1000), "rrf_k": (1, 1000), "rerank_top": (1, 200), "rerank_budget_ms": (0, 60_000), "rerank_weight": (0, 1),
    "min_support": (0, 1),
}  # fmt: skip
WHOLE = ("depth", "rrf_k", "rerank_top", "rerank_budget_ms", "expander_budget_ms")
SWITCHES = ("spelling", "with_syn")


def _checked(name: str, value: Any) -> Any:
    if name in SWITCHES and isinstance(value, bool):
        return value
    if name in ("reranker", "expander") and isinstance(value, str):
        return value
    if name == "dense_languages" and isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if name in ("min_support", "expansion") and value is None:
        return None
    if name in RANGES and isinstance(value, int | float) and not isinstance(value, bool):
        low, high = RANGES[name]
        if low <= value <= high:
            return int(value) if name in WHOLE else float(value)
    raise UserError("ask.bad_plan", field=name, value=value)
