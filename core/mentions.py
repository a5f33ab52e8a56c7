"""How a mention is meant: "no chest pain", "if chest pain occurs" and "chest pain ten years ago" are not chest pain. Pure.

The cues are data (assets/lexicons/context.toml). All functions take a canonical text (`core.lexicons.canonical`) and the
offsets of a mention in it. They look no further than the sentence, but for "treated" (a little beyond).
"""

from __future__ import annotations

import re
from enum import StrEnum

from core.lexicons import CJK, Lexicons

#: Characters that end a sentence; a full stop only before white space or at the end, so that 38.5 is one number.
_END = re.compile(r"[。！？；!?;\n]|\.(?=\s|$)")
_CLAUSE_END = re.compile(r"[。！？；!?;\n，,]|\.(?=\s|$)|\bbut\b|但|、(?=不)")
#: How far back a negation is looked for, and how far ahead a treatment.
REACH = 90


class Reading(StrEnum):
    """What a mention of a danger sign amounts to. Only `PRESENT` ones count."""

    PRESENT = "present"
    DENIED = "denied"
    IMAGINED = "imagined"
    PAST = "past"
    TREATED = "treated"
    KNOWN = "known"


def read(text: str, start: int, end: int, lexicons: Lexicons) -> Reading:
    """How the danger sign text[start:end] is meant."""
    cues = lexicons.cues[language_of(text, start, end)].patterns
    left, right = sentence_around(text, start, end)
    before, after = text[left:start], text[end:right]
    if _is_denied(before, after, cues):
        return Reading.DENIED
    clause, _ = clause_around(text, start, end)
    is_imagined = cues["imagined.before"].search(before) or cues["imagined.near"].search(text, clause, start)
    if is_imagined or cues["imagined.after"].search(after):
        return Reading.IMAGINED
    sentence = text[left:right]
    if (cues["past.before"].search(before) or cues["past.after"].search(after)) and not cues["past.void"].search(sentence):
        return Reading.PAST
    beyond = text[end : end + REACH]
    treated = cues["treated.after"].search(beyond)
    if treated and not cues["treated.void"].search(text, end):
        return Reading.TREATED
    return Reading.PRESENT


def is_acute(text: str, start: int, end: int, lexicons: Lexicons) -> bool:
    """Does the sentence of text[start:end] say that this is new, or happening now?"""
    left, right = sentence_around(text, start, end)
    return bool(lexicons.cues[language_of(text, start, end)].patterns["acute.cue"].search(text, left, right))


def is_ordered_against(text: str, start: int, end: int, lexicons: Lexicons) -> bool:
    """Is the order or advice text[start:end] negated: "do not ...", "no need to ...", "... is dangerous"?"""
    cues = lexicons.cues[language_of(text, start, end)].patterns
    left, right = sentence_around(text, start, end)
    before = text[max(left, start - REACH) : start]
    if cues["order_denied.before"].search(before) and cues["order_denied.joined"].search(before):  # the cheap one first
        return True
    return bool(cues["order_denied.after"].search(text[end:right]))


def is_conditional(text: str, start: int, end: int, lexicons: Lexicons) -> bool:
    """Is the advice text[start:end] given on a condition: "if it gets worse, ..."?"""
    cues = lexicons.cues[language_of(text, start, end)].patterns
    left, right = sentence_around(text, start, end)
    return bool(cues["condition.before"].search(text[left:start]) or cues["condition.after"].search(text[end:right]))


def is_recommended(text: str, start: int, end: int, lexicons: Lexicons) -> bool:
    """Is the drug text[start:end] recommended: a word of giving in its sentence, and no word of warning in its clause?"""
    cues = lexicons.cues[language_of(text, start, end)].patterns
    left, right = sentence_around(text, start, end)
    if not cues["avoid.recommend"].search(text, left, right):
        return False
    clause_left, clause_right = clause_around(text, start, end)
    return not cues["avoid.clause"].search(text[clause_left:start] + " " + text[end:clause_right])


def language_of(text: str, start: int, end: int) -> str:
    """The language whose cues apply to a mention: that of the mention, or of its neighbours when it is a name or number."""
    return "zh" if CJK.search(text, max(0, start - 6), end + 6) else "en"


def sentence_around(text: str, start: int, end: int) -> tuple[int, int]:
    """Bounds of the sentence that holds text[start:end]."""
    return _around(_END, text, start, end)


def clause_around(text: str, start: int, end: int) -> tuple[int, int]:
    """Bounds of the clause (commas count, too) that holds text[start:end]."""
    return _around(_CLAUSE_END, text, start, end)


def _around(ends: re.Pattern[str], text: str, start: int, end: int) -> tuple[int, int]:
    left = 0
    for match in ends.finditer(text, max(0, start - 400), start):
        left = match.end()
    following = ends.search(text, end)
    return left, following.start() if following else len(text)


def _is_denied(before: str, after: str, cues: dict[str, re.Pattern[str]]) -> bool:
    near = before[-REACH:]
    if cues["denial.after"].search(after):
        return True
    last = None
    for match in cues["denial.before"].finditer(near):
        last = match
    if last is None:
        return False
    if cues["denial.joined"].search(near):
        return True
    listed = near[last.end() :]
    if cues["denial.list_break"].search(listed) or not cues["denial.list"].fullmatch(listed):
        return False
    return bool(cues["denial.list_joint"].search(listed) or cues["denial.list_joint"].match(after.lstrip(" ,")))
