"""From the signs of a search to the chance that its passages hold the answer, and the threshold below which it is "unknown". Pure.

Calibrated on judged questions: each is searched twice, as it is and with its right passages hidden. A logistic function of a few
signs (how much of the question's subject stands in the best document, how far the first passage stands out ...) learns to tell
the two apart; the threshold is the lowest at which the wanted share of the unanswerable is called unknown. Whether it holds is
then measured on other questions (`Rates`, with Wilson intervals). Called by core.search_plans, training.calibrate_ask, benchmarks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from core.retrieval.glossary import Mention
from core.retrieval.plans import Plan
from core.retrieval.rewrite import corrected
from core.retrieval.search import Retrieved, Retriever
from core.retrieval.support import Weight, covered, foreign_share, subject, support, words_of
from core.retrieval.tokens import both_views, tokenise, without_question_words
from core.statistics import wilson

#: passages that count for support
DEPTH = 5
#: the rarest words of a question, which name what it is about
NUM_RARE = 3
#: ridge of the logistic fit, per question
RIDGE = 0.01
ROUNDS = 50
#: parts of the questions that choose the threshold in turn, and the fewest questions that are parted
FOLDS, MIN_FOLDED = 5, 25
#: largest factor of BM25 on a term's weight: k1 + 1
SATURATION = 2.2
SINGLES_WEIGHT = 1.5
SIGNS: tuple[str, ...] = (
    "coverage",
    "rarest",
    "first",
    "best",
    "alike",
    "ratio",
    "gap",
    "drop",
    "length",
    "dense",
    "dense_gap",
    "rerank",
    "rerank_gap",
    "rerank_share",
    "named",
    "foreign",
)

Signs = Mapping[str, float]
#: beside the signs of a judged question: was a right passage among those shown?
IS_SHOWN = "is_shown"


@dataclass(frozen=True, slots=True)
class Rates:
    """What a threshold does. `false_answer`: unanswerable but answered; `false_unknown`: the passage is there but "unknown";
    `false_unknown_shown`: the same among the `num_shown` questions whose right passage was among those shown (None: not known)."""

    threshold: float
    false_answer: float
    false_unknown: float
    false_answer_interval: tuple[float, float]
    false_unknown_interval: tuple[float, float]
    num: int
    auc: float
    num_shown: int = 0
    false_unknown_shown: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted function with its threshold. `rates` are those on questions it was not fitted on."""

    signs: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float
    num_questions: int
    about: dict[str, Any] = field(default_factory=dict)

    def support(self, signs: Mapping[str, float]) -> float:
        """The chance in (0, 1) that the passages hold the answer."""
        z = self.bias
        for name, mean, scale, weight in zip(self.signs, self.mean, self.scale, self.weights, strict=True):
            z += weight * (signs[name] - mean) / scale
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, z))))

    def fits(self, plan: Plan) -> bool:
        """Was it measured with this way of searching? Signs of another mean something else."""
        return bool(self.about.get("plan", {}) == replace(plan, min_support=None).to_json())

    def to_json(self) -> dict[str, Any]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_json`. Raises TypeError or KeyError for something else."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
        return cls(**values)


def signs_of(question: str, found: Retrieved, weight: Weight) -> dict[str, float]:
    """The signs of a search, each a plain number; 0 where a leg did not run."""
    question = corrected(question, found.corrections)
    chunks = [hit.chunk for hit in found.hits[:DEPTH]]
    lexical = next((ranking for name, ranking in found.stages.items() if name.startswith("lexical:")), [])
    dense = next((ranking for name, ranking in found.stages.items() if name.startswith("dense:")), [])
    searched = found.wordings[0].lexical if found.wordings else question
    pairs, singles = both_views(without_question_words(searched))
    most = SATURATION * (sum(map(weight, pairs)) + SINGLES_WEIGHT * sum(map(weight, singles)))
    wanted = subject(question)
    texts = [words_of(f"{c.title}\n{c.section}\n{c.text}") for c in chunks]
    rare = sorted(dict.fromkeys(wanted), key=weight, reverse=True)[:NUM_RARE]
    shares = [covered(wanted, text, weight) for text in texts] or [0.0]
    entries = [frozenset(subject(door.entry)) for hit in found.hits[:DEPTH] for door in hit.doors if door.entry]
    rerank = [score for _, score in found.stages.get("rerank", [])]
    return {
        "coverage": support(question, chunks, weight, found.mentions),
        "named": len({m.term for m in found.mentions if chunks and _is_named(m, texts[0])}) / max(1, len({m.term for m in found.mentions})),
        "foreign": foreign_share(wanted, (), chunks[0].text, weight) if chunks else 0.0,
        "rarest": sum(token in texts[0] for token in rare) / len(rare) if texts and rare else 0.0,
        "first": shares[0],
        "best": max(shares),
        "alike": max((_alike(frozenset(wanted), entry, weight) for entry in entries), default=0.0),
        "ratio": lexical[0][1] / most if lexical and most > 0 else 0.0,
        "gap": _fall(lexical, 1),
        "drop": _fall(lexical, 9),
        "length": math.log1p(len(pairs)),
        "dense": dense[0][1] if dense else 0.0,
        "dense_gap": dense[0][1] - dense[1][1] if len(dense) > 1 else 0.0,
        "rerank": rerank[0] if rerank else 0.0,
        "rerank_gap": rerank[0] - rerank[1] if len(rerank) > 1 else 0.0,
        "rerank_share": 1 / sum(math.exp(max(-50.0, score - rerank[0])) for score in rerank) if rerank else 0.0,
    }


def pairs_of(retriever: Retriever, judged: Sequence[tuple[str, Collection[int]]]) -> tuple[list[Signs], list[Signs]]:
    """Signs of each question with its right passages (chunk numbers) there, and with them hidden."""
    present: list[Signs] = []
    absent: list[Signs] = []
    nothing: frozenset[int] = frozenset()
    for question, right in judged:
        for place, without in ((present, nothing), (absent, frozenset(right))):
            found = retriever.search(question, DEPTH, without=without)
            signs = signs_of(question, found, retriever.index.weight)
            place.append({**signs, IS_SHOWN: float(any(hit.number in right for hit in found.hits[:DEPTH]))})
    return present, absent


def fit(present: Sequence[Signs], absent: Sequence[Signs], *, max_false_answer: float = 0.10, **about: Any) -> Calibration:
    """A calibration whose threshold lets at most `max_false_answer` of the unanswerable questions through.

    The threshold is chosen on scores of questions that each function did not see (FOLDS): with many signs and few questions those
    it was fitted on look too good. Raises ValueError without questions. Signs that never vary are left out.
    """
    if not present or len(present) != len(absent):
        raise ValueError("as many answerable as unanswerable questions are needed, and at least one")
    made = _fitted(present, absent, about)
    scores = [made.support(row) for row in absent]
    if len(present) >= MIN_FOLDED:
        for fold in range(FOLDS):
            others = [i for i in range(len(present)) if i % FOLDS != fold]
            part = _fitted([present[i] for i in others], [absent[i] for i in others], about)
            for i in range(fold, len(absent), FOLDS):
                scores[i] = part.support(absent[i])
    scores.sort()
    highest_refused = scores[len(scores) - 1 - math.floor(max_false_answer * len(scores))]
    return replace(made, threshold=min(1.0, math.nextafter(highest_refused, 2.0)))


def _fitted(present: Sequence[Signs], absent: Sequence[Signs], about: Mapping[str, Any]) -> Calibration:
    """The penalised logistic function, without a threshold."""
    rows = np.array([[float(row[name]) for name in SIGNS] for row in [*present, *absent]])
    kept = [i for i in range(len(SIGNS)) if rows[:, i].std() > 1e-9] or [0]
    x = rows[:, kept]
    mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    y = np.array([1.0] * len(present) + [0.0] * len(absent))
    design = np.column_stack([np.ones(len(x)), (x - mean) / scale])
    w = np.zeros(design.shape[1])
    ridge = np.diag([0.0] + [RIDGE * len(y)] * (design.shape[1] - 1))
    for _ in range(ROUNDS):  # Newton's method on the penalised likelihood
        p = 1 / (1 + np.exp(-np.clip(design @ w, -30, 30)))
        step = np.linalg.solve((design.T * (p * (1 - p))) @ design + ridge + 1e-9 * np.eye(len(w)), design.T @ (y - p) - ridge @ w)
        w += step
        if float(np.abs(step).max()) < 1e-8:
            break
    return Calibration(
        tuple(SIGNS[i] for i in kept), tuple(map(float, mean)), tuple(map(float, scale)), tuple(map(float, w[1:])), float(w[0]),
        0.5, len(present), dict(about),
    )  # fmt: skip


def rates(calibration: Calibration, present: Sequence[Signs], absent: Sequence[Signs], threshold: float | None = None) -> Rates:
    """What the calibration does on questions it has not seen, at its own threshold or another."""
    at = calibration.threshold if threshold is None else threshold
    there = np.array([calibration.support(row) for row in present])
    gone = np.array([calibration.support(row) for row in absent])
    answered, unknown = int((gone >= at).sum()), int((there < at).sum())
    wins = (there[:, None] > gone[None, :]).mean() + 0.5 * (there[:, None] == gone[None, :]).mean()
    shown = np.array([bool(row.get(IS_SHOWN)) for row in present])
    return Rates(
        at, answered / len(gone), unknown / len(there), wilson(answered, len(gone)), wilson(unknown, len(there)), len(there), float(wins),
        int(shown.sum()), float((there[shown] < at).mean()) if shown.any() else None,
    )  # fmt: skip


def _is_named(mention: Mention, text: Collection[str]) -> bool:
    return any(all(token in text for token in tokenise(name)) for name in mention.term.names)


def _alike(question: frozenset[str], text: frozenset[str], weight: Weight) -> float:
    """Weight of the words both hold over the weight of the words either holds: 1 for a pseudo-question that is the question."""
    either = sum(map(weight, question | text))
    return sum(map(weight, question & text)) / either if either > 0 else 0.0


def _fall(ranking: Sequence[tuple[int, float]], place: int) -> float:
    """How far the first score stands above that of `place` (from 0), as a share of it; 1 when the list is shorter."""
    if not ranking or ranking[0][1] <= 0:
        return 0.0
    return 1.0 - (ranking[place][1] / ranking[0][1] if len(ranking) > place else 0.0)
