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
#: Tokens in a row that count as said before: eight Chinese characters or four English words.
STRETCH = {"zh": 8, "en": 4}
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
        tokens = [(m.start(), m.end(), m.group()) for m in WORD.finditer(canonical(text))]
        over, beyond = _excess(tokens, BUDGET[part])
        if beyond is not None:
            spans.append(Span(part, beyond, len(text.rstrip()), RULE, "length", "miss"))
        share, stretches = _repetition(tokens)
        spans += [Span(part, start, end, RULE, "repetition", "miss") for start, end in stretches]
        length, repetition = max(length, over), max(repetition, share)
    repeated = max(0.0, repetition - FREE_REPETITION) / (FULL_REPETITION - FREE_REPETITION)
    score = min(1.0, length + repeated)
    kept = spans if repeated > 0 else [span for span in spans if span.term == "length"]
    return RuleScore(RULE, score, lexicons.version, tuple(kept), detail={"length": length, "repetition": repetition})


def _excess(tokens: Sequence[tuple[int, int, str]], budget: float) -> tuple[float, int | None]:
    """How far over the budget, in budgets and at most 1, and the offset where the budget ends (None within it)."""
    if len(tokens) <= budget:
        return 0.0, None
    used, beyond = 0.0, None
    for start, _, word in tokens:
        used += CJK_UNIT if word >= "\u3400" else 1.0
        if used > budget and beyond is None:
            beyond = start
    return min(1.0, max(0.0, used / budget - 1.0)), beyond


def _repetition(tokens: Sequence[tuple[int, int, str]]) -> tuple[float, list[tuple[int, int]]]:
    """Share of tokens in stretches that were said before, and where those stretches lie."""
    words = [word for _, _, word in tokens]
    size = STRETCH["zh"] if sum(word >= "\u3400" for word in words) * 2 > len(words) else STRETCH["en"]
    grams = list(zip(*(words[i:] for i in range(size)), strict=False))
    if len(set(grams)) == len(grams):
        return 0.0, []
    seen: set[tuple[str, ...]] = set()
    covered = [False] * len(words)
    for i, gram in enumerate(grams):
        if gram in seen:
            covered[i : i + size] = [True] * size
        seen.add(gram)
    stretches: list[tuple[int, int]] = []
    for i, is_repeat in enumerate(covered):
        if is_repeat and i and covered[i - 1] and stretches:
            stretches[-1] = (stretches[-1][0], tokens[i][1])
        elif is_repeat:
            stretches.append((tokens[i][0], tokens[i][1]))
    return sum(covered) / len(words), stretches
