"""Reading a model's output: the thinking block, the answer, and sentences with their character offsets. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.records import Completion

THINK = re.compile(r"<think>(.*?)</think>", re.DOTALL)
#: A sentence ends at CJK end marks, at a line break, or at . ! ? before white space (not inside "3.5" or "e.g. x" lists).
SENTENCE_END = re.compile(r"[。！？；]+[”’」』）]*|[.!?]+(?=\s|$)|\n+")
ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|Dr|Mr|Ms|vs|approx|No)|(?:^|\n)\s*\d{1,2})\.$")


@dataclass(frozen=True, slots=True)
class Sentence:
    """Characters [start, end) of the text it was cut from, without surrounding white space."""

    start: int
    end: int
    text: str


def split_completion(text: str, finish_reason: str = "stop", completion_id: int | None = None) -> Completion:
    """Split off the `<think>` block. An unclosed block is all thinking and no answer: nothing was said to the patient."""
    match = THINK.search(text)
    if match:
        thinking, answer = match.group(1), text[: match.start()] + text[match.end() :]
    elif "<think>" in text:
        answer, _, thinking = text.partition("<think>")
    elif "</think>" in text:
        thinking, _, answer = text.partition("</think>")
    else:
        thinking, answer = "", text
    return Completion(text=text, thinking=thinking.strip(), answer=answer.strip(), finish_reason=finish_reason, completion_id=completion_id)


def sentences(text: str) -> list[Sentence]:
    """Cut Chinese or English text into sentences. Offsets are exact; every non-blank character lies in one sentence."""
    found: list[Sentence] = []
    start = 0
    for match in SENTENCE_END.finditer(text):
        if match.group().startswith(".") and ABBREVIATION.search(text[start : match.end()]):
            continue
        _append(found, text, start, match.end())
        start = match.end()
    _append(found, text, start, len(text))
    return found


def _append(found: list[Sentence], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    stripped = piece.strip()
    if stripped:
        offset = start + len(piece) - len(piece.lstrip())
        found.append(Sentence(offset, offset + len(stripped), stripped))
