"""Rule `verbosity`: a penalty in [0, 1] for length beyond a budget and for repetition. Pure.

Length is counted in English words and Chinese characters, each part (thinking, answer) against its own budget: a text twice
as long as its budget has the full penalty. Repetition is the share of tokens in stretches that were said before; a tenth is free.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.content import WORD
from core.lexicons import Lexicons, canonical
from core.records import Completion, Prompt, RuleScore, Span
from core.rewards import EMPTY_ANSWER

RULE = "verbosity"
#: Budgets in units of one English word or 1.8 Chinese characters: 1.8 characters say about as much as one word.
BUDGET = {"thinking": 350.0, "answer": 220.0}
CJK_UNIT = 1 / 1.8
#: Tokens in a row that count as said before: eight Chinese characters or five English words.
STRETCH = {"zh": 8, "en": 5}
FREE_REPETITION = 0.1
FULL_REPETITION = 0.5


def score_verbosity(prompt: Prompt, completion: Completion, lexicons: Lexicons) -> RuleScore:
    """Penalty in [0, 1]. Spans: what lies beyond the budget, and every stretch that repeats an earlier one."""
    parts = {"thinking": completion.thinking, "answer": completion.answer}
    if not parts["answer"].strip():
        return RuleScore(RULE, None, lexicons.version, unscored_reason=EMPTY_ANSWER)
    length, repetition = 0.0, 0.0
    spans: list[Span] = []
    for part, text in parts.items():
        plain = canonical(text)
        words = WORD.findall(plain)
        over, first_over = _excess(words, BUDGET[part])
        share, covered = _repetition(words)
        length, repetition = max(length, over), max(repetition, share)
        if first_over is None and not share:
            continue
        bounds = [match.span() for match in WORD.finditer(plain)]
        if first_over is not None:
            spans.append(Span(part, bounds[first_over][0], len(text.rstrip()), RULE, "length", "miss"))
        spans += [Span(part, start, end, RULE, "repetition", "miss") for start, end in _stretches(bounds, covered)]
    repeated = max(0.0, repetition - FREE_REPETITION) / (FULL_REPETITION - FREE_REPETITION)
    score = min(1.0, length + repeated)
    kept = spans if repeated > 0 else [span for span in spans if span.term == "length"]
    return RuleScore(RULE, score, lexicons.version, tuple(kept), detail={"length": length, "repetition": repetition})


def _excess(words: Sequence[str], budget: float) -> tuple[float, int | None]:
    """How far over the budget, in budgets and at most 1, and the first word beyond it (None within it)."""
    if len(words) <= budget:
        return 0.0, None
    used, first = 0.0, None
    for i, word in enumerate(words):
        used += CJK_UNIT if word >= "\u3400" else 1.0
        if used > budget and first is None:
            first = i
    return min(1.0, max(0.0, used / budget - 1.0)), first


def _repetition(words: Sequence[str]) -> tuple[float, list[bool]]:
    """Share of the words that lie in stretches said before, and which those are."""
    size = STRETCH["zh"] if sum([word >= "\u3400" for word in words]) * 2 > len(words) else STRETCH["en"]
    grams = list(zip(*(words[i:] for i in range(size)), strict=False))
    if len(set(grams)) == len(grams):
        return 0.0, []
    seen: set[tuple[str, ...]] = set()
    covered = [False] * len(words)
    for i, gram in enumerate(grams):
        if gram in seen:
            covered[i : i + size] = [True] * size
        seen.add(gram)
    return sum(covered) / len(words), covered


def _stretches(bounds: Sequence[tuple[int, int]], covered: Sequence[bool]) -> list[tuple[int, int]]:
    """Characters [start, end) of each run of covered words."""
    found: list[tuple[int, int]] = []
    for i, is_repeat in enumerate(covered):
        if is_repeat and i and covered[i - 1]:
            found[-1] = (found[-1][0], bounds[i][1])
        elif is_repeat:
            found.append(bounds[i])
    return found
