"""What a policy can do to a text to please a reward, measured on one completion. Pure.

Each number has a plain meaning and none of them is a score: they are held against the reward by `core.reward_watch`. Cheap
enough for every completion of a PPO run (under a millisecond), so that they stand as columns in rewards.csv.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.content import WORD
from core.lexicons import Lexicons, canonical, load_lexicons
from core.records import Completion, Prompt
from core.rules.verbosity import CJK_UNIT, STRETCH, score_verbosity

#: name -> what it counts, in the order of tables
FEATURES = ("num_words", "thinking_words", "repetition", "num_think", "list_share", "alarm_words", "copied")

_LIST_ITEM = re.compile(r"^\s*(?:[-*•·]|\d{1,2}[.)、．]|[一二三四五六七八九十]、|#{1,6}\s)")
_THINK = re.compile(r"<think>", re.IGNORECASE)


def features(prompt: Prompt, completion: Completion, lexicons: Lexicons | None = None) -> dict[str, float]:
    """The features of one completion under the names of `FEATURES`.

    num_words, thinking_words: length in English words, 1.8 Chinese characters counting as one; repetition: share of the text
    that was said before (as the verbosity rule counts it); num_think: opening think tags; list_share: share of the answer's
    lines that are list items or headings; alarm_words: emergency advice and danger signs named in the answer; copied: share of
    the answer that lies in stretches taken over from the question.
    """
    lexicons = lexicons or load_lexicons()
    answer = canonical(completion.answer)
    words = WORD.findall(answer)
    thinking = _length(WORD.findall(canonical(completion.thinking)))
    lines = [line for line in completion.answer.splitlines() if line.strip()]
    repetition = score_verbosity(prompt, completion, lexicons).detail.get("repetition", 0.0)
    return {
        "num_words": thinking + _length(words),
        "thinking_words": thinking,
        "repetition": float(repetition),
        "num_think": float(len(_THINK.findall(completion.text))),
        "list_share": sum(bool(_LIST_ITEM.match(line)) for line in lines) / len(lines) if lines else 0.0,
        "alarm_words": float(len(lexicons.advice.find(answer)) + len(lexicons.danger.find(answer))),
        "copied": _copied(WORD.findall(canonical(prompt.text)), words),
    }


def _length(words: Sequence[str]) -> float:
    return sum(CJK_UNIT if word >= "\u3400" else 1.0 for word in words)


def _copied(question: Sequence[str], answer: Sequence[str]) -> float:
    """Share of the answer's words that lie in runs of the question's words, as long as a repeated stretch must be."""
    if not answer:
        return 0.0
    size = STRETCH["zh"] if sum(word >= "\u3400" for word in answer) * 2 > len(answer) else STRETCH["en"]
    known = set(zip(*(question[i:] for i in range(size)), strict=False))
    covered = [False] * len(answer)
    for i in range(len(answer) - size + 1):
        if tuple(answer[i : i + size]) in known:
            covered[i : i + size] = [True] * size
    return sum(covered) / len(answer)
