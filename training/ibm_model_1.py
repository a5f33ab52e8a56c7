"""IBM model 1: which words of a question go with which words of its passage (Brown et al., 1993), by expectation-maximisation.

Memory: one number per (question word, passage word) of every pair, about 300 MB for 10,000 Chinese pairs. Called by
training.rank_associations and training.question_words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Translations:
    """Cells (told, asked) that occur, with P(asked | told) and the expected number of times `told` was the reason for `asked`."""

    told: np.ndarray
    asked: np.ndarray
    chance: np.ndarray
    expected: np.ndarray


def fit(pairs: Sequence[tuple[np.ndarray, np.ndarray]], num_asked: int, num_told: int) -> Translations:
    """`pairs`: ids of the question's words (below `num_asked`) and of the passage's (below `num_told`), each id once, never empty."""
    cells, words, num_words = [], [], 0
    for asked, told in pairs:
        cells.append((told[None, :] * num_asked + asked[:, None]).ravel())
        words.append(np.repeat(np.arange(num_words, num_words + len(asked)), len(told)))
        num_words += len(asked)
    keys, cell_of = np.unique(np.concatenate(cells), return_inverse=True)
    word_of = np.concatenate(words)
    told_of, asked_of = keys // num_asked, keys % num_asked
    chance: np.ndarray = np.ones(len(keys))
    expected: np.ndarray = np.ones(len(keys))
    for _ in range(NUM_ROUNDS):
        share = chance[cell_of]
        share /= np.bincount(word_of, share, minlength=num_words)[word_of]
        expected = np.bincount(cell_of, share, minlength=len(keys))
        chance = expected / np.maximum(np.bincount(told_of, expected, minlength=num_told), 1e-12)[told_of]
    return Translations(told_of, asked_of, chance, expected)
