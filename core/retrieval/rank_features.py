"""A feature reranker: signals between a question and each candidate passage, and a small learned function over them.

Not a neural cross-encoder and not called one: matching is by our own tokens (BM25, coverage by rarity, closeness, runs in the
question's order), by learned word associations (IBM model 1 over question-answer pairs: which answer words go with which question
words, so "treatment" finds "surgery"), by a static embedding, and by the order of the stage before. A two-layer perceptron,
trained listwise, adds them up. numpy only, a few milliseconds for 30 passages, so it works in any process without torch.

    reranker.json   format, tokeniser, names of the features
    model.npz       rarity table, associations, perceptron;   static/   the static embedding (core.retrieval.static_vectors)

Written by training.reranker, opened by `rerankers`.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import Unavailable
from core.retrieval.static_vectors import StaticVectors, read_static
from core.retrieval.tokens import singles, tokenise, without_question_words

FORMAT = 1
TOKENISER = "pairs+singles-1"
ABOUT, WEIGHTS, STATIC = "reranker.json", "model.npz", "static"
#: BM25 as tantivy has it
K1, B = 1.2, 0.75
#: tokens of one window of closeness, and of the passage's beginning
WINDOW, LEAD = 32, 24
#: how much of a question token's probability is left to chance (Jelinek-Mercer)
CHANCE = 0.3
#: answer tokens that associations look at: the beginning says what a passage is about
ASSOCIATED = 160
NAMES = (
    "bm25", "bm25_singles", "coverage", "coverage_singles", "coverage_lead", "coverage_window", "run", "density", "first",
    "length", "association", "association_unmatched", "association_lead", "cosine", "cosine_lead", "reciprocal_rank", "rank",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rarity:
    """Inverse document frequency of tokens in the collection that was trained on; unknown tokens are as rare as can be."""

    idf: Mapping[str, float]
    unknown: float
    mean_length: float

    def __call__(self, token: str) -> float:
        return self.idf.get(token, self.unknown)


@dataclass(frozen=True, slots=True)
class Associations:
    """P(question token | answer token), sparse: the rows of an answer token are `starts[a]:starts[a + 1]` of `asked` and `chance`."""

    asked_ids: Mapping[str, int]
    answer_ids: Mapping[str, int]
    starts: np.ndarray
    asked: np.ndarray
    chance: np.ndarray
    #: P(question token) over all questions, by its id
    background: np.ndarray

    def log_odds(self, asked: Sequence[str], answer: Sequence[str]) -> np.ndarray:
        """log P(token | passage) / P(token) for each question token (0 for one never asked in training)."""
        ids = np.array([self.asked_ids.get(token, -1) for token in asked], dtype=np.int64)
        found = np.zeros(len(ids))
        counts = Counter(a for a in (self.answer_ids.get(token) for token in answer) if a is not None)
        total = sum(counts.values())
        if not total or not (ids >= 0).any():
            return found
        rows = np.fromiter(counts, dtype=np.int64, count=len(counts))
        share = np.fromiter(counts.values(), dtype=np.float64, count=len(counts)) / total
        lengths = self.starts[rows + 1] - self.starts[rows]
        cells = np.repeat(self.starts[rows] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(lengths.sum())
        mass = np.bincount(self.asked[cells], weights=self.chance[cells] * np.repeat(share, lengths), minlength=len(self.background))
        known = ids >= 0
        background = self.background[ids[known]]
        found[known] = np.log(((1 - CHANCE) * mass[ids[known]] + CHANCE * background) / background) - math.log(CHANCE)
        return found


@dataclass(frozen=True, slots=True)
class Question:
    """A question cut once for all passages."""

    pairs: list[str]
    singles: list[str]
    all_tokens: list[str]
    vector: np.ndarray | None


@dataclass(frozen=True, slots=True)
class FeatureModel:
    """Everything that scoring needs. `layers` is (weight, bias) of the perceptron; without it only features can be had."""

    rarity: Rarity
    associations: Associations | None
    static: StaticVectors | None
    centre: np.ndarray = field(default_factory=lambda: np.zeros(2 * len(NAMES)))
    scale: np.ndarray = field(default_factory=lambda: np.ones(2 * len(NAMES)))
    layers: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    def score(self, query: str, passages: Sequence[str], *, budget_ms: float | None = None) -> list[float | None]:
        """A score per passage (candidates in the old order); None for those whose features were not ready within the budget.

        The last passages are the first to go: the list that is compared is then a shorter one.
        """
        started = time.monotonic()
        question = self.question(query)
        rows: list[np.ndarray] = []
        for position, passage in enumerate(passages):
            if budget_ms is not None and (time.monotonic() - started) * 1000 >= budget_ms:
                break
            rows.append(self.signals(question, passage, position))
        if not rows:
            return [None] * len(passages)
        values = (with_contrast(np.array(rows)) - self.centre) / self.scale
        for number, (weight, bias) in enumerate(self.layers):
            values = values @ weight.T + bias
            if number + 1 < len(self.layers):
                values = np.maximum(values, 0.0)
        return [*map(float, values[:, 0]), *[None] * (len(passages) - len(rows))]

    def question(self, query: str) -> Question:
        """Tokens of the subject in both views, all tokens (what is asked counts for associations), and the vector."""
        subject = without_question_words(query)
        everything = list(dict.fromkeys(both_views(query)))
        vector = self.static.encode([query])[0] if self.static is not None else None
        return Question(tokenise(subject), singles(subject), everything, vector)

    def features(self, query: str, passages: Sequence[str]) -> np.ndarray:
        """(passages, 2 * len(NAMES)): each signal as it is, and against the other candidates of this question."""
        question = self.question(query)
        return with_contrast(np.array([self.signals(question, passage, i) for i, passage in enumerate(passages)]))

    def signals(self, question: Question, passage: str, position: int) -> np.ndarray:
        """The signals of NAMES for one passage."""
        pairs = tokenise(passage)
        loose = singles(passage)
        weights = {token: self.rarity(token) for token in {*question.pairs, *question.singles}}
        places: dict[str, list[int]] = {token: [] for token in question.pairs}
        for place, token in enumerate(pairs):
            if token in places:
                places[token].append(place)
        counts = Counter(token for token in loose if token in weights)
        wanted = sum(weights[t] for t in places) or 1.0
        wanted_loose = sum(weights[t] for t in set(question.singles)) or 1.0
        norm = K1 * (1 - B + B * len(pairs) / self.rarity.mean_length)
        norm_loose = K1 * (1 - B + B * len(loose) / self.rarity.mean_length)
        windows: Counter[int] = Counter()
        covered = lead = bm25 = 0.0
        first = len(pairs)
        for token, found in places.items():
            if not found:
                continue
            weight = weights[token]
            covered += weight
            bm25 += weight * len(found) * (K1 + 1) / (len(found) + norm)
            lead += weight if found[0] < LEAD else 0.0
            first = min(first, found[0])
            for window in {w for place in found for w in (place // (WINDOW // 2), place // (WINDOW // 2) - 1)}:
                windows[window] += weight  # type: ignore[assignment]
        bm25_loose = sum(weights[t] * n * (K1 + 1) / (n + norm_loose) for t, n in counts.items() if t in set(question.singles))
        covered_loose = sum(weights[t] for t in set(question.singles) if counts[t])
        answer = pairs + loose if loose != pairs else pairs
        odds = lead_odds = np.zeros(1)
        unmatched = 0.0
        if self.associations is not None and question.all_tokens:
            odds = self.associations.log_odds(question.all_tokens, pairs[:ASSOCIATED] + loose[:ASSOCIATED])
            lead_odds = self.associations.log_odds(question.all_tokens, pairs[:LEAD] + loose[:LEAD])
            there = set(answer)
            missing = [i for i, token in enumerate(question.all_tokens) if token not in there]
            unmatched = float(odds[missing].sum() / len(odds)) if missing else 0.0
        cosine = cosine_lead = 0.0
        if self.static is not None and question.vector is not None:
            both = self.static.encode([passage, passage[:LEAD_CHARACTERS]])
            cosine, cosine_lead = (float(v) for v in both @ question.vector)
        num_found = sum(len(found) for found in places.values())
        return np.array(
            [
                bm25 / wanted, bm25_loose / wanted_loose, covered / wanted, covered_loose / wanted_loose, lead / wanted,
                max(windows.values(), default=0.0) / wanted, longest_run(question.pairs, pairs, places), num_found / (len(pairs) or 1),
                math.log1p(first), math.log1p(len(loose)), float(odds.mean()), unmatched, float(lead_odds.mean()),
                cosine, cosine_lead, 1 / (position + 1), position / 30,
            ]
        )  # fmt: skip


#: how much of a passage's text its beginning is, for the static embedding
LEAD_CHARACTERS = 120


def both_views(text: str) -> list[str]:
    """Pairs and, where they differ (Chinese), single characters too."""
    pairs, loose = tokenise(text), singles(text)
    return pairs if pairs == loose else pairs + loose


def longest_run(wanted: Sequence[str], there: Sequence[str], places: Mapping[str, list[int]]) -> float:
    """Length of the longest run of question tokens that stands in the passage as it does in the question, over the question's."""
    best = 0
    for start, token in enumerate(wanted):
        if best >= len(wanted) - start:
            break
        for place in places.get(token, ()):
            length = 1
            while start + length < len(wanted) and place + length < len(there) and wanted[start + length] == there[place + length]:
                length += 1
            best = max(best, length)
    return best / len(wanted) if wanted else 0.0


def with_contrast(signals: np.ndarray) -> np.ndarray:
    """Signals beside their standing within the list: (x - mean) / (standard deviation of the list)."""
    deviation = signals.std(axis=0)
    contrast = (signals - signals.mean(axis=0)) / np.where(deviation > 1e-6, deviation, 1.0)
    return np.concatenate([signals, contrast], axis=1)


def write_feature_model(folder: Path, model: FeatureModel) -> None:
    """Write all but the static embedding, which lies in `folder`/static already when there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {"centre": model.centre, "scale": model.scale, "unknown": model.rarity.unknown}
    arrays |= {"mean_length": model.rarity.mean_length, "rare_tokens": np.array(list(model.rarity.idf))}
    arrays["rare_values"] = np.array(list(model.rarity.idf.values()), np.float32)
    if model.associations is not None:
        a = model.associations
        arrays |= {"asked_tokens": np.array(list(a.asked_ids)), "answer_tokens": np.array(list(a.answer_ids)), "starts": a.starts}
        arrays |= {"asked": a.asked.astype(np.int32), "chance": a.chance.astype(np.float32), "background": a.background}
    for number, (weight, bias) in enumerate(model.layers):
        arrays |= {f"weight{number}": weight, f"bias{number}": bias}
    with (folder / WEIGHTS).open("wb") as file:
        np.savez_compressed(file, **arrays)
    about = {"format": FORMAT, "tokeniser": TOKENISER, "features": list(NAMES), "has_static": model.static is not None}
    (folder / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")


def read_feature_model(folder: Path) -> FeatureModel:
    """Open a folder, once per process. Raises Unavailable("embedding.damaged")."""
    return _read(folder, (folder / WEIGHTS).stat().st_mtime_ns if (folder / WEIGHTS).is_file() else 0)


@lru_cache(maxsize=4)
def _read(folder: Path, _stamp: int) -> FeatureModel:
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        with np.load(folder / WEIGHTS, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if (about["format"], about["tokeniser"], about["features"]) != (FORMAT, TOKENISER, list(NAMES)):
            raise Unavailable("embedding.damaged", path=folder)
        idf = dict(zip(arrays["rare_tokens"].tolist(), arrays["rare_values"].astype(float).tolist(), strict=True))
        rarity = Rarity(idf, float(arrays["unknown"]), float(arrays["mean_length"]))
        count = sum(name.startswith("weight") for name in arrays)
        layers = tuple((arrays[f"weight{i}"], arrays[f"bias{i}"]) for i in range(count))
        associations = None
        if "starts" in arrays:
            associations = Associations(
                {token: i for i, token in enumerate(arrays["asked_tokens"].tolist())},
                {token: i for i, token in enumerate(arrays["answer_tokens"].tolist())},
                arrays["starts"],
                arrays["asked"],
                arrays["chance"],
                arrays["background"],
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable("embedding.damaged", path=folder) from error
    static = read_static(folder / STATIC) if about.get("has_static") else None
    return FeatureModel(rarity, associations, static, arrays["centre"], arrays["scale"], layers)
