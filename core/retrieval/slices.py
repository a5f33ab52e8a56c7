"""Kinds of questions: language, length, question word, rare terms, numbers. Pure; called by training.evaluate_retrieval."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core.retrieval.ladder import Values, step_of
from core.retrieval.metrics import mean
from core.retrieval.tokens import count, normalise, query_tokens

#: below this many questions a slice has no figures, only its number
MIN_SLICE = 30
SHORT, LONG = 8, 24
#: a token that stands in fewer than about 1 of 1,000 entries is rare (BM25's IDF)
RARE = 6.9
QUESTION_WORDS = (
    ("how", re.compile(r"\bhow\b|怎么|怎样|如何")),
    ("why", re.compile(r"\bwhy\b|\bcauses?\b|为什么|为何|原因|怎么回事")),
    ("what", re.compile(r"\bwhat\b|\bwhich\b|什么|哪些|哪种|多少")),
    ("when", re.compile(r"\bwhen\b|什么时候|何时|多久")),
    ("whether", re.compile(r"^(is|are|can|could|do|does|should|will)\b|吗|能不能|是否|可以|是不是|有没有|会不会")),
)


def kinds_of(text: str, language: str, weight: Callable[[str], float]) -> dict[str, str]:
    """Slice dimension -> value for one question."""
    length, plain = count(text), normalise(text)
    tokens = query_tokens(text)
    return {
        "language": language,
        "length": "short" if length <= SHORT else "long" if length > LONG else "medium",
        "question_word": next((name for name, pattern in QUESTION_WORDS if pattern.search(plain)), "none"),
        "rare_term": "yes" if any(weight(t) > RARE for t in tokens) else "no",
        "number": "yes" if re.search(r"\d", plain) else "no",
    }


def slices(kinds: Sequence[dict[str, str]], before: Values, after: Values, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Per dimension and value: how many questions, both means, and the paired step; figures are None below MIN_SLICE."""
    found = []
    for by in kinds[0] if kinds else ():
        for value in sorted({kind[by] for kind in kinds}):
            rows = [i for i, kind in enumerate(kinds) if kind[by] == value]
            a, b = [before[i] for i in rows], [after[i] for i in rows]
            is_large = len(rows) >= MIN_SLICE
            found.append(
                {
                    "by": by,
                    "value": value,
                    "n": len(rows),
                    "before": mean(a)[0] if is_large else None,
                    "after": mean(b)[0] if is_large else None,
                    "step": step_of(a, b, rng) if is_large else None,
                }
            )
    return found
