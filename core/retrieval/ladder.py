"""The ladder: every stage of retrieval on one judged set, each against the one before and against the best single leg. Pure.

bm25, dense: one leg over the passages alone. rrf: both fused. doc2query: pseudo-questions pooled in. query2doc: a pseudo-document of the
question beside it. rerank: a reranker over the first few. A step is the mean difference per question with its 95 % paired bootstrap
interval; a step whose interval holds zero has shown nothing. `choose_plan` takes a stage into the default plan only when its interval
lies above zero, so that no default stands below the best single leg by more than noise; how much choosing on the same questions
flatters is shown by choosing on each half and measuring on the other. Called by training.evaluate_retrieval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NotRequired, TypedDict

import numpy as np

from core.retrieval.bench import Bench
from core.retrieval.metrics import METRICS, Threshold, mean
from core.retrieval.plans import Plan
from core.retrieval.rewrite import language_of
from core.retrieval.trial import queries_needed
from core.statistics import bootstrap

SHAPE = 1
#: what decides; all metrics are shown
MAIN = "ndcg@10"
STAGES = ("bm25", "dense", "rrf", "doc2query", "query2doc", "rerank")
#: weights of (lexical, dense) tried for the fusion beside 1 : 1
MIXES = ((1.0, 0.25), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0), (0.25, 1.0))
RERANK_WEIGHTS = (1.0, 0.5)
#: questions of one language below which the legs are not chosen for it apart
MIN_LANGUAGE = 50

Values = Sequence[float | None]
Measure = Callable[[Plan], Values]


class Mean(TypedDict):
    """A metric of one stage: mean over `n` questions with its 95 % bootstrap interval."""

    mean: float | None
    ci_low: float | None
    ci_high: float | None
    n: int


class Step(TypedDict):
    """After minus before on the same questions; `better` and `worse` count them."""

    n: int
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    better: int
    worse: int


class Stage(TypedDict):
    """One rung. `before` names the rung it is compared with; steps are per metric, None for the first rung."""

    name: str
    plan: dict[str, Any]
    metrics: dict[str, Mean]
    before: str
    step: dict[str, Step] | None
    against_best_leg: dict[str, Step] | None
    p50_ms: float | None
    p95_ms: float | None
    queries_per_s: float | None


class Choice(TypedDict):
    """One decision about the default plan: what was tried on top of what, and whether it was taken."""

    stage: str
    detail: str
    is_taken: bool
    step: Step


class Report(TypedDict):
    """`RetrievalEvaluation.report`. `skipped`: stage -> reason key (retrieval.skipped_...)."""

    shape: int
    name: str
    source: str
    unit: str
    gold: str
    corpus_size: int
    num_chunks: int
    num_entries: int
    num_syn: int
    num_queries: int
    languages: dict[str, int]
    encoder: str
    reranker: str
    questions_from: str
    main: str
    best_leg: str
    stages: list[Stage]
    skipped: dict[str, str]
    plan: dict[str, Any]
    choices: list[Choice]
    #: the chosen plan minus the best single leg, as measured, and with choosing and measuring on different halves
    chosen_against_best_leg: Step
    crossfit: Step
    chosen: dict[str, Mean]
    slices: list[dict[str, Any]]
    failures: dict[str, int]
    thresholds: dict[str, Threshold]
    queries_needed: int | None
    index: str
    index_hash: NotRequired[str]
    set_hash: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Available:
    """What this index and set have beside the lexical leg."""

    has_dense: bool = False
    has_syn: bool = False
    has_pseudo: bool = False
    reranker: str = ""


def step_of(before: Values, after: Values, rng: np.random.Generator) -> Step:
    """The paired difference; questions without a value in either are left out."""
    differences = [b - a for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    low, high = bootstrap(differences, rng)
    return {
        "n": len(differences),
        "difference": float(np.mean(differences)) if differences else None,
        "ci_low": low,
        "ci_high": high,
        "better": sum(d > 1e-12 for d in differences),
        "worse": sum(d < -1e-12 for d in differences),
    }


def helps(step: Step) -> bool:
    """Is the whole interval above zero?"""
    return step["ci_low"] is not None and step["ci_low"] > 0


def mean_of(values: Values, rng: np.random.Generator) -> Mean:
    known = [v for v in values if v is not None]
    low, high = bootstrap(known, rng)
    return {"mean": mean(known)[0], "ci_low": low, "ci_high": high, "n": len(known)}


def legs_of(base: Plan, available: Available) -> dict[str, Plan]:
    """Every single leg of the index; "best single leg" is the best of these."""
    alone = replace(base, pseudo_doc=0.0, expansion=0.0, reranker="")
    legs = {"bm25": replace(alone, dense=0.0, with_syn=False)}
    if available.has_dense:
        legs["dense"] = replace(alone, lexical=0.0, with_syn=False)
    if available.has_syn:
        legs |= {f"{name}_syn": replace(plan, with_syn=True) for name, plan in legs.items()}
    return legs


def stages_of(base: Plan, available: Available) -> tuple[dict[str, Plan], dict[str, str]]:
    """The rungs that can be measured, with their plans, and why the others cannot. Legs weigh 1 : 1, as before any choice."""
    plan = replace(base, lexical=1.0, dense=1.0 if available.has_dense else 0.0, pseudo_doc=0.0, expansion=0.0, with_syn=False, reranker="")
    legs = legs_of(base, available)
    stages: dict[str, Plan] = {"bm25": legs["bm25"]}
    skipped: dict[str, str] = {}
    if available.has_dense:
        stages |= {"dense": legs["dense"], "rrf": plan}
    else:
        skipped |= {"dense": "no_dense", "rrf": "no_dense"}
    if available.has_syn:
        plan = stages["doc2query"] = replace(plan, with_syn=True)
    else:
        skipped["doc2query"] = "no_syn"
    if available.has_pseudo:
        plan = stages["query2doc"] = replace(plan, pseudo_doc=base.pseudo_doc or Plan().pseudo_doc)
    else:
        skipped["query2doc"] = "no_pseudo"
    if available.reranker:
        stages["rerank"] = replace(plan, reranker=available.reranker)
    else:
        skipped["rerank"] = "no_reranker"
    return stages, skipped


def measure_stages(bench: Bench, base: Plan, available: Available, rng: np.random.Generator) -> tuple[list[Stage], dict[str, str], str]:
    """Every rung with its steps and speed; what was skipped and why; the name of the best single leg."""
    legs, (plans, skipped) = legs_of(base, available), stages_of(base, available)
    best = best_leg(legs, lambda plan: bench.values(plan))
    stages: list[Stage] = []
    before = ""
    for name, plan in plans.items():
        if name in ("dense", "bm25"):
            before = ""
        elif name == "rrf":
            before = best_leg({n: legs[n] for n in ("bm25", "dense")}, lambda plan: bench.values(plan))
        values = {metric: bench.values(plan, metric) for metric in METRICS}
        speed = bench.speed(plan)
        is_leg = plan == legs[best]
        stages.append(
            {
                "name": name,
                "plan": plan.to_json(),
                "metrics": {metric: mean_of(v, rng) for metric, v in values.items()},
                "before": before,
                "step": {m: step_of(bench.values(plans[before], m), v, rng) for m, v in values.items()} if before else None,
                "against_best_leg": None if is_leg else {m: step_of(bench.values(legs[best], m), v, rng) for m, v in values.items()},
                "p50_ms": speed.p50_ms,
                "p95_ms": speed.p95_ms,
                "queries_per_s": speed.per_s,
            }
        )
        before = name
    return stages, skipped, best


def best_leg(legs: dict[str, Plan], measure: Measure) -> str:
    """The leg with the highest mean; ties go to the first."""
    return max(legs, key=lambda name: mean(measure(legs[name]))[0] or 0.0)


def choose_plan(
    base: Plan, available: Available, measure: Measure, rng: np.random.Generator, languages: Sequence[str] = ()
) -> tuple[Plan, list[Choice]]:
    """The default plan: the best single leg without pseudo-questions, and on top of it, one after the other, what helps.

    Pseudo-questions first (with either leg), then the fusion at the best of `MIXES` (for one language only where the set has two),
    pseudo-questions again if they were not taken, the pseudo-document, the reranker. A step is taken when its interval lies above
    zero. `measure` gives one value per question.
    """
    legs = legs_of(base, available)
    plan = legs[best_leg({n: p for n, p in legs.items() if not p.with_syn}, measure)]
    made: list[Choice] = []
    seen = {plan}

    def consider(stage: str, options: dict[str, Plan]) -> None:
        nonlocal plan
        options = {detail: option for detail, option in options.items() if option not in seen}
        if not options:
            return
        seen.update(options.values())
        detail = best_leg(options, measure)
        step = step_of(measure(plan), measure(options[detail]), rng)
        made.append({"stage": stage, "detail": detail, "is_taken": helps(step), "step": step})
        if helps(step):
            plan = options[detail]

    if available.has_syn:
        consider("doc2query", {name: leg for name, leg in legs.items() if leg.with_syn})
    if available.has_dense:
        mixes = {f"{a:g} : {b:g}": replace(plan, lexical=a, dense=b) for a, b in MIXES}
        known = {language for language in ("en", "zh") if languages.count(language) >= MIN_LANGUAGE}
        if len(known) == 2:
            mixes |= {f"{d}, {lang}": replace(p, dense_languages=(lang,)) for d, p in list(mixes.items()) for lang in sorted(known)}
        consider("rrf", mixes)
    if available.has_syn and not plan.with_syn:
        consider("doc2query", {"pooled": replace(plan, with_syn=True)})
    if available.has_pseudo:
        consider("query2doc", {f"{w:g}": replace(plan, pseudo_doc=w) for w in (0.25, 0.5, 1.0)})
    if available.reranker:
        consider("rerank", {f"{w:g}": replace(plan, reranker=available.reranker, rerank_weight=w) for w in RERANK_WEIGHTS})
    # What was not measured is not decided: it stays as the plan in force has it.
    if not available.has_dense:
        plan = replace(plan, dense=base.dense)
    if not available.has_pseudo:
        plan = replace(plan, pseudo_doc=base.pseudo_doc)
    if not available.has_syn:
        plan = replace(plan, with_syn=base.with_syn)
    return replace(plan, expansion=base.expansion), made


def crossfit(base: Plan, available: Available, measure: Measure, rng: np.random.Generator, languages: Sequence[str] = ()) -> Step:
    """Chosen plan minus best single leg when both are chosen on one half of the questions and measured on the other, both ways."""
    num = len(measure(legs_of(base, available)["bm25"]))
    half = rng.permutation(num) % 2
    before: list[float | None] = [None] * num
    after: list[float | None] = [None] * num
    for side in (0, 1):
        learn, judge = ([int(i) for i in np.flatnonzero(half == part)] for part in (side, 1 - side))

        def learnt(plan: Plan, rows: Sequence[int] = learn) -> Values:
            values = measure(plan)
            return [values[i] for i in rows]

        plan, _ = choose_plan(base, available, learnt, rng, [languages[i] for i in learn] if languages else ())
        legs = legs_of(base, available)
        leg = legs[best_leg(legs, learnt)]
        for i in judge:
            before[i], after[i] = measure(leg)[i], measure(plan)[i]
    return step_of(before, after, rng)


def power(before: Values, after: Values, min_gain: float = 0.05) -> int | None:
    """Questions after which a true gain of `min_gain` of the mean would be seen, given how these two differ from question to question."""
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    if len(pairs) < 2:
        return None
    spread = float(np.std([b - a for a, b in pairs], ddof=1))
    return queries_needed(spread, min_gain * float(np.mean([a for a, _ in pairs])))


def languages_of(bench: Bench) -> list[str]:
    return [language_of(q.text) for q in bench.judged.questions]
