"""The words that people use when they ask what a passage answers, learnt from (question, passage) pairs. Pure: numpy only.

A writer's few questions are draws; this is the expectation behind them: P(word of the question | passage) = mean over the
passage's words of P(word of the question | word of the passage), IBM model 1 (Brown et al., 1993; in retrieval Berger and Lafferty,
SIGIR 1999). The likeliest are added to what is searched of a passage, mostly words that it holds already: what is asked for
counts more than the rest, as with the term weights of docTTTTTquery and DeepCT. Words are those of the single view (Chinese
characters, stemmed Latin words): pairs of characters are too rare in a few thousand questions. Written by training.question_words,
opened with a writer (core.retrieval.writers).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.retrieval.tokens import singles

FILE = "question_words.npz"
#: words added to a passage; 6 to 10 were alike on held-out questions, each once better than in proportion
NUM_WORDS = 10


class QuestionWords:
    """P(asked | told), sparse: word `told` of a passage has the cells from `starts[told]` to `starts[told + 1]`."""

    def __init__(self, told: Sequence[str], asked: Sequence[str], starts: np.ndarray, cells: np.ndarray, chance: np.ndarray) -> None:
        """`cells` are positions in `asked`; `chance` their probabilities."""
        self.asked, self._told, self._starts, self._cells, self._chance = list(asked), list(told), starts, cells, chance
        self._id_of = {word: number for number, word in enumerate(told)}

    def of(self, passage: str, num: int = NUM_WORDS) -> str:
        """The `num` likeliest words, likeliest first, in one line; "" for a passage none of whose words were learnt."""
        words = singles(passage)
        known = Counter(number for number in map(self._id_of.get, words) if number is not None)
        found = np.zeros(len(self.asked))
        for number, times in known.items():
            place = slice(self._starts[number], self._starts[number + 1])
            found[self._cells[place]] += times * self._chance[place]
        order = np.argsort(-found, kind="stable")[:num]
        return " ".join(self.asked[i] for i in order if found[i] > 0)

    def save(self, folder: Path) -> None:
        with (folder / FILE).open("wb") as file:
            np.savez_compressed(
                file, told=np.array(self._told), asked=np.array(self.asked), starts=self._starts, cells=self._cells, chance=self._chance
            )

    @staticmethod
    def read(folder: Path) -> QuestionWords | None:
        """What `save` wrote; None for a writer without. Raises OSError, ValueError or KeyError for a damaged file."""
        if not (folder / FILE).is_file():
            return None
        with np.load(folder / FILE, allow_pickle=False) as a:
            return QuestionWords(a["told"].tolist(), a["asked"].tolist(), a["starts"], a["cells"], a["chance"])
