"""Learn `core.retrieval.question_words` from (question, passage) pairs. Called by training.doc2query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.retrieval.question_words import QuestionWords
from core.retrieval.tokens import singles, without_question_words
from training.ibm_model_1 import fit

#: expected occurrences below which a passage's word says nothing, and below which a link is chance
MIN_TOLD, MIN_LINK = 3.0, 0.05


def learn_question_words(pairs: Sequence[tuple[str, str]]) -> QuestionWords | None:
    """From (question, passage) pairs; None when they share too little to learn anything."""
    asked_ids: dict[str, int] = {}
    told_ids: dict[str, int] = {}
    rows = []
    for question, passage in pairs:
        asked = [asked_ids.setdefault(word, len(asked_ids)) for word in dict.fromkeys(singles(without_question_words(question)))]
        told = [told_ids.setdefault(word, len(told_ids)) for word in dict.fromkeys(singles(passage))]
        if asked and told:
            rows.append((np.array(asked), np.array(told)))
    if not rows:
        return None
    found = fit(rows, len(asked_ids), len(told_ids))
    weight = np.bincount(found.told, found.expected, minlength=len(told_ids))
    kept = np.flatnonzero((found.expected >= MIN_LINK) & (weight[found.told] >= MIN_TOLD))  # in the order of `told`
    if not len(kept):
        return None
    starts = np.searchsorted(found.told[kept], np.arange(len(told_ids) + 1))
    return QuestionWords(list(told_ids), list(asked_ids), starts, found.asked[kept].astype(np.int32), found.chance[kept].astype(np.float32))
