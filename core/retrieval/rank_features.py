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
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import Unavailable
from core.retrieval.static_vectors import StaticVectors, read_static
from core.retrieval.tokens import CJK, singles, tokenise, without_question_words

FORMAT = 1
TOKENISER = "pairs+singles-1"
ABOUT, WEIGHTS, STATIC = "reranker.json", "model.npz", "static"
HAS_CJK = re.compile(f"[{CJK}]")
#: BM25 as tantivy has it
K1, B = 1.2, 0.75
#: tokens of one window of closeness, and of the passage's beginning
WINDOW, LEAD = 32, 24
#: how much of a question token's probability is left to chance (Jelinek-Mercer)
CHANCE = 0.3
#: answer tokens that associations look at: the beginning says what a passage is about
ASSOCIATED = 160
#: passages that are remembered cut (about 6 KB each)
PASSAGES = 4096
Layers = tuple[tuple[np.ndarray, np.ndarray], ...]
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


class Associations:
    """P(question token | answer token), sparse, by question token: `answers` and `chance` from `starts[q]` to `starts[q + 1]`."""

    def __init__(
        self, asked_ids: Mapping[str, int], answer_ids: Mapping[str, int], starts: np.ndarray, answers: np.ndarray, chance: np.ndarray,
        background: np.ndarray,
    ) -> None:  # fmt: skip
        """`background` is P(question token) over all questions, by its id."""
        self.asked_ids, self.answer_ids, self.starts = asked_ids, answer_ids, starts
        self.answers, self.chance, self.background = answers, chance, background

    def table(self, asked: Sequence[str]) -> np.ndarray:
        """(asked, answer tokens) float32: each question token's probabilities over its background; 0 for one never asked in training."""
        found = np.zeros((len(asked), len(self.answer_ids)), np.float32)
        for row, token in enumerate(asked):
            known = self.asked_ids.get(token)
            if known is not None:
                cells = slice(self.starts[known], self.starts[known + 1])
                found[row, self.answers[cells]] = self.chance[cells] / self.background[known]
        return found

    def shares(self, answer: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the answer tokens and the share of each, among those that are known."""
        counts = Counter(known for known in map(self.answer_ids.get, answer) if known is not None)
        ids = np.fromiter(counts, dtype=np.int64, count=len(counts))
        return ids, np.fromiter(counts.values(), dtype=np.float32, count=len(counts)) / max(1, counts.total())


def log_odds(table: np.ndarray, answers: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(rows of `table`, passages): log of P(token | passage) over what chance alone gives it; 0 where the passage says nothing of it.

    `answers` are ids and shares as `Associations.shares` gives them.
    """
    sizes = np.array([len(ids) for ids, _ in answers])
    mass = np.zeros((len(table), len(answers)))
    if sizes.any():
        cells = table[:, np.concatenate([ids for ids, _ in answers])] * np.concatenate([share for _, share in answers])
        filled = np.flatnonzero(sizes)
        mass[:, filled] = np.add.reduceat(cells, (np.cumsum(sizes) - sizes)[filled], axis=1)
    return np.log1p((1 - CHANCE) / CHANCE * mass)


@dataclass(frozen=True, slots=True)
class Question:
    """A question cut once for all passages. Tokens are hashes; `pairs` and `loose` are its subject in both views, each token once."""

    order: np.ndarray
    pairs: np.ndarray
    pair_weights: np.ndarray
    loose: np.ndarray
    loose_weights: np.ndarray
    #: all tokens, with question words: what is asked counts for associations
    everything: np.ndarray
    table: np.ndarray | None
    vector: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage cut once for all questions: hashes of its tokens in both views, answer tokens with shares, vectors of whole and lead."""

    pairs: np.ndarray
    loose: np.ndarray
    answer: tuple[np.ndarray, np.ndarray]
    lead_answer: tuple[np.ndarray, np.ndarray]
    vectors: np.ndarray | None


class FeatureModel:
    """Everything that scoring needs. `layers` is (weight, bias) of the perceptron; without it only features can be had.

    Safe between threads; the last PASSAGES passages are remembered cut, because the same chunks come up again and again.
    """

    def __init__(
        self,
        rarity: Rarity,
        associations: Associations | None,
        static: StaticVectors | None,
        centre: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        layers: Layers = (),
    ) -> None:
        self.rarity, self.associations, self.static, self.layers = rarity, associations, static, layers
        self.centre = np.zeros(2 * len(NAMES)) if centre is None else centre
        self.scale = np.ones(2 * len(NAMES)) if scale is None else scale
        self._passage = lru_cache(maxsize=PASSAGES)(self._cut)

    def score(self, query: str, passages: Sequence[str], *, budget_ms: float | None = None) -> list[float | None]:
        """A score per passage (candidates in the old order); None for those that were not cut into tokens within the budget.

        The last passages are the first to go: the list that is compared is then a shorter one.
        """
        started = time.monotonic()
        question = self.question(query)
        cuts: list[Passage] = []
        for passage in passages:
            if budget_ms is not None and (time.monotonic() - started) * 1000 >= budget_ms:
                break
            cuts.append(self._passage(passage))
        if not cuts:
            return [None] * len(passages)
        values = (with_contrast(self._signals(question, cuts)) - self.centre) / self.scale
        for number, (weight, bias) in enumerate(self.layers):
            values = values @ weight.T + bias
            if number + 1 < len(self.layers):
                values = np.maximum(values, 0.0)
        return [*map(float, values[:, 0]), *[None] * (len(passages) - len(cuts))]

    def features(self, query: str, passages: Sequence[str]) -> np.ndarray:
        """(passages, 2 * len(NAMES)): each signal as it is, and against the other candidates of this question."""
        return with_contrast(self.signals(query, passages))

    def signals(self, query: str, passages: Sequence[str]) -> np.ndarray:
        """(passages, len(NAMES)): the signals of NAMES; passages are in the order of the stage before."""
        return self._signals(self.question(query), [self._passage(passage) for passage in passages])

    def question(self, query: str) -> Question:
        """The question with its weights, its rows of the associations and its vector."""
        subject = without_question_words(query)
        order, loose = tokenise(subject), list(dict.fromkeys(singles(subject)))
        pairs, everything = list(dict.fromkeys(order)), list(dict.fromkeys(both_views(query)))
        return Question(
            hashes(order),
            hashes(pairs),
            np.array([self.rarity(token) for token in pairs]),
            hashes(loose),
            np.array([self.rarity(token) for token in loose]),
            hashes(everything),
            self.associations.table(everything) if self.associations is not None else None,
            self.static.encode([query])[0] if self.static is not None else None,
        )

    def _signals(self, question: Question, cuts: Sequence[Passage]) -> np.ndarray:
        """All passages at once: their tokens stand in one row, each passage ended by END, and are summed by segment."""
        num = len(cuts)
        pairs, loose = Row([cut.pairs for cut in cuts]), Row([cut.loose for cut in cuts])
        places = question.pairs[:, None] == pairs.tokens[None, :]
        bm25, covered, counts = self._matched(places, pairs, question.pair_weights)
        loose_places = question.loose[:, None] == loose.tokens[None, :]
        bm25_loose, covered_loose, _ = self._matched(loose_places, loose, question.loose_weights)
        weights = question.pair_weights / (question.pair_weights.sum() or 1.0)
        lead = weights @ pairs.any(places & (pairs.place < LEAD))
        first = np.minimum.reduceat(np.where(places.any(axis=0), pairs.place, pairs.lengths.repeat(pairs.sizes)), pairs.starts)
        odds = lead_odds = np.zeros((1, num))
        unmatched = np.zeros(num)
        if question.table is not None and len(question.table):
            odds = log_odds(question.table, [cut.answer for cut in cuts])
            lead_odds = log_odds(question.table, [cut.lead_answer for cut in cuts])
            there = pairs.any(question.everything[:, None] == pairs.tokens) | loose.any(question.everything[:, None] == loose.tokens)
            unmatched = np.where(there, 0.0, odds).mean(axis=0)
        cosines = np.zeros((num, 2))
        if question.vector is not None:
            cosines = np.stack([cut.vectors for cut in cuts if cut.vectors is not None]) @ question.vector
        rank = np.arange(num)
        columns = (
            bm25, bm25_loose, covered, covered_loose, lead, pairs.best_window(places, weights), pairs.longest_run(question.order),
            counts.sum(axis=0) / np.maximum(pairs.lengths, 1), np.log1p(first), np.log1p(loose.lengths), odds.mean(axis=0), unmatched,
            lead_odds.mean(axis=0), cosines[:, 0], cosines[:, 1], 1 / (rank + 1), rank / 30,
        )  # fmt: skip
        return np.stack(columns, axis=1)

    def _matched(self, places: np.ndarray, row: Row, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per passage BM25 and coverage, as a share of the question's weight; and how often each token occurs (tokens, passages)."""
        counts = np.add.reduceat(places, row.starts, axis=1, dtype=np.int64)
        total = float(weights.sum()) or 1.0
        norm = K1 * (1 - B + B * row.lengths / self.rarity.mean_length)
        return weights @ (counts * (K1 + 1) / (counts + norm)) / total, weights @ (counts > 0) / total, counts

    def _cut(self, passage: str) -> Passage:
        pairs = tokenise(passage)
        loose = singles(passage) if HAS_CJK.search(passage) else pairs
        shares = (np.zeros(0, np.int64), np.zeros(0, np.float32))
        answer = lead_answer = shares
        if self.associations is not None:
            answer = self.associations.shares(pairs[:ASSOCIATED] + loose[:ASSOCIATED])
            lead_answer = self.associations.shares(pairs[:LEAD] + loose[:LEAD])
        vectors = self.static.encode([passage, passage[:LEAD_CHARACTERS]]) if self.static is not None else None
        cut = hashes(pairs)
        return Passage(cut, cut if loose is pairs else hashes(loose), answer, lead_answer, vectors)


def hashes(tokens: Sequence[str]) -> np.ndarray:
    """One 64-bit number per token, the same within this process: arrays of them are compared faster than strings."""
    return np.fromiter(map(hash, tokens), dtype=np.int64, count=len(tokens))


class Row:
    """Token hashes of several passages in one row, each passage ended by END, which equals no token."""

    def __init__(self, passages: Sequence[np.ndarray]) -> None:
        self.lengths = np.array([len(one) for one in passages])
        self.sizes = self.lengths + 1
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self.tokens = np.full(int(self.sizes.sum()), END, np.int64)
        for start, one in zip(self.starts, passages, strict=True):
            self.tokens[start : start + len(one)] = one
        #: place of each token within its passage
        self.place = np.arange(len(self.tokens)) - self.starts.repeat(self.sizes)

    def any(self, places: np.ndarray) -> np.ndarray:
        """(tokens, passages): does it occur?"""
        return np.asarray(np.logical_or.reduceat(places, self.starts, axis=1))

    def best_window(self, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Per passage the most weight within WINDOW places (windows overlap by half)."""
        begins = np.flatnonzero(self.place % (WINDOW // 2) == 0)
        found = np.logical_or.reduceat(places, begins, axis=1)
        is_joined = np.append(self.place[begins[1:]] > 0, False)  # the next half window is of the same passage
        following = np.concatenate([found[:, 1:], np.zeros((len(found), 1), bool)], axis=1)
        weight = weights @ (found | (following & is_joined))
        return np.asarray(np.maximum.reduceat(weight, np.searchsorted(begins, self.starts)))

    def longest_run(self, wanted: np.ndarray) -> np.ndarray:
        """Per passage the longest run of question tokens that stands there as in the question, over the question's length."""
        ending = np.zeros(len(self.tokens), np.int64)
        best = np.zeros(len(self.tokens), np.int64)
        for token in wanted:  # ending[j]: length of the run that ends at place j with this token; END breaks every run
            ending = (np.concatenate([[0], ending[:-1]]) + 1) * (self.tokens == token)
            np.maximum(best, ending, out=best)
        return np.asarray(np.maximum.reduceat(best, self.starts) / max(1, len(wanted)))


#: stands behind each passage; a token's hash is it with a chance of one in 2^64
END = np.iinfo(np.int64).min
#: how much of a passage's text its beginning is, for the static embedding
LEAD_CHARACTERS = 120


def both_views(text: str) -> list[str]:
    """Pairs and, where they differ (Chinese), single characters too."""
    pairs = tokenise(text)
    return pairs + singles(text) if HAS_CJK.search(text) else pairs


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
        arrays |= {"answers": a.answers.astype(np.int32), "chance": a.chance.astype(np.float32), "background": a.background}
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
                arrays["answers"],
                arrays["chance"],
                arrays["background"],
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable("embedding.damaged", path=folder) from error
    static = read_static(folder / STATIC) if about.get("has_static") else None
    return FeatureModel(rarity, associations, static, arrays["centre"], arrays["scale"], layers)
