"""Retrieval-grounded facts: which share of an answer's claims is supported by what the active index says about the question. Pure.

A claim is a sentence of the answer that says something about its subject. It counts as supported when half of its subject,
weighted by rarity, stands in the passages found for the question, and it repeats nothing that the sample forbids. That is
agreement of words, not of meaning: "take aspirin" and "do not take aspirin" look alike to it. So it is reported beside the
reward, never inside it, and an answer without a claim is unscored. Called by training.evaluate.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from core.completions import sentences
from core.retrieval.index import Hit, LexicalIndex
from core.retrieval.support import GENERIC, THRESHOLD, covered, subject, words_of
from core.retrieval.tokens import tokenise

#: passages that a question may draw on
TOP_K = 5
#: share of a claim's subject that must stand in the passages
MIN_SUPPORT = 0.5
#: a sentence with fewer subject tokens ("Please see a doctor.") claims nothing that a guideline could support
MIN_TOKENS = 3

NO_INDEX = "no_index"
NO_PASSAGES = "no_passages"
NO_CLAIMS = "no_claims"


@dataclass(frozen=True, slots=True)
class FactScore:
    """`score` in [0, 1] or None with `unscored_reason` (no_index, no_passages, no_claims)."""

    score: float | None
    num_claims: int = 0
    unscored_reason: str | None = None


class Grounding:
    """An index seen as a source of evidence. The words of a passage are cut once, however many questions find it."""

    def __init__(self, index: LexicalIndex) -> None:
        self._index = index
        self._words: dict[int, frozenset[str]] = {}
        self.weight = lru_cache(maxsize=65_536)(index.weight)

    def evidence(self, question: str) -> Collection[str] | None:
        """The words of the passages found; None when they speak of something else (`core.retrieval.support.THRESHOLD`)."""
        hits = self._index.search({"question": question}, TOP_K)
        words = [self._words_of(hit) for hit in hits]
        first = [w for w, hit in zip(words, hits, strict=True) if hit.chunk.file == hits[0].chunk.file]
        if not hits or covered(subject(question), frozenset().union(*first), self.weight) < THRESHOLD:
            return None
        return frozenset().union(*words)

    def score(self, answer: str, words: Collection[str] | None, forbidden: Sequence[str] = ()) -> FactScore:
        """Share of the claims of `answer` that `words` (of `evidence`) support."""
        if words is None:
            return FactScore(None, 0, NO_PASSAGES)
        is_supported: list[bool] = []
        for sentence in sentences(answer):
            tokens = [token for token in tokenise(sentence.text) if token not in GENERIC]
            if len(set(tokens)) < MIN_TOKENS:
                continue
            is_forbidden = any(phrase and phrase.casefold() in sentence.text.casefold() for phrase in forbidden)
            is_supported.append(not is_forbidden and covered(tokens, words, self.weight) >= MIN_SUPPORT)
        if not is_supported:
            return FactScore(None, 0, NO_CLAIMS)
        return FactScore(sum(is_supported) / len(is_supported), len(is_supported))

    def _words_of(self, hit: Hit) -> frozenset[str]:
        if hit.number not in self._words:
            self._words[hit.number] = words_of(f"{hit.chunk.title}\n{hit.chunk.section}\n{hit.chunk.text}")
        return self._words[hit.number]
