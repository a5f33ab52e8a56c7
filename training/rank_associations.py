"""What the feature reranker knows beyond the two texts: how rare tokens are, and which answer words go with which question words.

Associations are IBM model 1 (training.ibm_model_1) from answer to question, fitted on question-passage pairs (as in translation
models of retrieval: Berger and Lafferty, SIGIR 1999). Called by training.reranker.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from core.retrieval.rank_features import ASSOCIATED, Associations, Rarity, both_views
from core.retrieval.tokens import singles, tokenise
from training.ibm_model_1 import fit

#: a word of fewer questions, or of fewer passages, has no associations
MIN_QUESTIONS, MIN_PASSAGES = 3, 5
#: smaller probabilities are forgotten: they are chance, and most of the table
MIN_CHANCE = 1e-4
#: stands for "no word of the passage": question words that everybody uses go there
NOTHING = ""


def rarity_of(texts: Iterable[str]) -> Rarity:
    """Inverse document frequencies (BM25's) of the tokens of both views; tokens of one text only are left to `unknown`."""
    frequency, num_texts, num_tokens = Counter[str](), 0, 0
    for text in texts:
        frequency.update(set(both_views(text)))
        num_texts += 1
        num_tokens += len(tokenise(text))
    idf = {token: math.log(1 + (num_texts - n + 0.5) / (n + 0.5)) for token, n in frequency.items() if n > 1}
    return Rarity(idf, math.log(1 + (num_texts + 0.5) / 0.5), max(1.0, num_tokens / max(1, num_texts)))


def learn_associations(pairs: Sequence[tuple[str, str]]) -> Associations | None:
    """Fit on (question, passage) pairs; None when they are too few to share any words."""
    rows = [(list(dict.fromkeys(both_views(question))), words_of(passage)) for question, passage in pairs]
    asked_in, answered_in = Counter[str](), Counter[str]()
    for question, passage in rows:
        asked_in.update(question)
        answered_in.update(passage)
    asked_ids = {token: i for i, token in enumerate(token for token, n in asked_in.items() if n >= MIN_QUESTIONS)}
    kept = [token for token, n in answered_in.items() if n >= MIN_PASSAGES]
    answer_ids = {token: i for i, token in enumerate([NOTHING, *kept])}
    if not asked_ids or not kept:
        return None
    ids = []
    for question, passage in rows:
        asked = np.array([asked_ids[token] for token in question if token in asked_ids], dtype=np.int64)
        ids.append((asked, np.array([0, *(answer_ids[token] for token in passage if token in answer_ids)], dtype=np.int64)))
    found = fit([pair for pair in ids if len(pair[0])], len(asked_ids), len(answer_ids))
    answer_of, asked_of, chance = found.told, found.asked, found.chance
    order = np.flatnonzero(chance > MIN_CHANCE)
    order = order[np.argsort(asked_of[order], kind="stable")]
    background = np.array([asked_in[token] for token in asked_ids], dtype=float)
    starts = np.searchsorted(asked_of[order], np.arange(len(asked_ids) + 1))
    return Associations(
        asked_ids, answer_ids, starts, answer_of[order].astype(np.int32), chance[order].astype(np.float32), background / background.sum()
    )


def words_of(passage: str) -> list[str]:
    """The words that are looked at, each once: the beginning of the passage in both views, as when scoring."""
    pairs, loose = tokenise(passage), singles(passage)
    return list(dict.fromkeys(pairs[:ASSOCIATED] if pairs == loose else pairs[:ASSOCIATED] + loose[:ASSOCIATED]))
