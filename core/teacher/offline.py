"""The offline teacher: judges an answer against the sample's reference. No network, no key, and no knowledge of the rules.

Score: the mean coverage of the key points (those of the sample, else the sentences of its reference). A point that the
reference tells the patient must stand in the answer; one that it only thinks may stand in the thinking. A point is covered
only with the same sense: "use X" does not cover "do not use X". An answer that contradicts a safety fact of the reference is
flagged and its score is cut. Without reference there is nothing to compare with: unscored, "no_reference".

It shares word lists with the rules (what emergency advice looks like), but asks another question: not "is this well formed
for this question" but "does it say what the reference says". Named "offline-teacher" and marked `is_offline` everywhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache

from core.completions import sentences, split_completion
from core.content import units_of
from core.lexicons import canonical, load_lexicons
from core.mentions import is_conditional, is_ordered_against
from core.records import Completion, Judgement, Language, Prompt
from core.teacher.records import Health, Usage

NAME = "offline-teacher"
RUBRIC_VERSION = "offline-1"

#: Less coverage than this is chance overlap and earns nothing.
MIN_COVERAGE = 0.5
#: A forbidden statement counts as made when this much of it stands in one clause.
SAME_STATEMENT = 0.85
CAP_FORBIDDEN = 0.15
CAP_NO_EMERGENCY = 0.3
NEEDLESS_EMERGENCY = 0.2

_CLAUSE = re.compile(r"[。！？；：，!?;:,\n]+|\.(?=\s|$)")
_NEGATED = re.compile(
    r"\b(?:not|never|avoid|without|no need|no|stop|don't|dont|cannot|can't|shouldn't|mustn't)\b|n't\b"
    r"|不要|不能|不可|不宜|不必|不用|不应|不需|不建议|不得|无需|无须|没必要|没有必要|勿|别|禁|避免|停用|切忌"
)

SENTENCES = {
    Language.EN: {
        "missing": "Missing: {points}.",
        "forbidden": "Contradicts the reference: “{points}”.",
        "opposite": "Says the opposite of: {points}.",
        "emergency": "The reference sends the patient to emergency care; the answer does not.",
        "needless": "The reference sees no emergency; the answer raises the alarm.",
        "complete": "Covers every key point of the reference.",
        "joint": "; ",
        "space": " ",
    },
    Language.ZH: {
        "missing": "缺少要点：{points}。",
        "forbidden": "与参考答案相悖：“{points}”。",
        "opposite": "与要点意思相反：{points}。",
        "emergency": "参考答案要求急诊处理，回答未提示。",
        "needless": "参考答案未见急症，回答不必要地提示急诊。",
        "complete": "已覆盖参考答案的全部要点。",
        "joint": "；",
        "space": "",
    },
}


@dataclass(frozen=True, slots=True)
class _Point:
    """One thing the reference says. `is_for_patient`: it stands in the reference's answer, not only in its thinking."""

    text: str
    plain: str
    units: frozenset[str]
    is_negated: bool
    is_for_patient: bool


@dataclass(frozen=True, slots=True)
class _Reference:
    answer: str
    points: tuple[_Point, ...]
    is_emergency: bool


@dataclass(frozen=True, slots=True)
class _Said:
    """What a text says, apart from what it says not to do."""

    plain: str
    asserted: frozenset[str]
    negated: frozenset[str]
    clauses: tuple[tuple[frozenset[str], bool], ...]


class OfflineTeacher:
    """See the module. Judging is pure; only the counts of `usage` change."""

    name = NAME
    rubric_version = RUBRIC_VERSION
    is_offline = True

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._num_asked = 0

    def judge(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Judgement]:
        found = [self._judge(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        self._num_asked += len(found)
        self._reasons.update(j.unscored_reason for j in found if j.unscored_reason)
        return found

    def submit(self, prompt: Prompt, completion: Completion, *, priority: int | None = None) -> Future[Judgement]:
        """Judged at once: there is nothing to wait for."""
        future: Future[Judgement] = Future()
        future.set_result(self.judge([prompt], [completion])[0])
        return future

    def usage(self) -> Usage:
        num_unscored = sum(self._reasons.values())
        return Usage(self._num_asked, num_scored=self._num_asked - num_unscored, num_unscored=num_unscored, reasons=dict(self._reasons))

    def health(self, *, probe: bool = False) -> Health:
        return Health(True)

    def wait_idle(self, timeout_s: float = 60.0) -> bool:
        return True

    def _judge(self, prompt: Prompt, completion: Completion) -> Judgement:
        if not (prompt.reference and prompt.reference.strip()):
            return Judgement(NAME, RUBRIC_VERSION, None, unscored_reason="no_reference", is_offline=True)
        reference = _read_reference(prompt.reference, prompt.key_points)
        answer = _read(completion.answer)
        whole = _joined(_read(completion.thinking), answer) if completion.thinking else answer
        credits = [_coverage(point, answer if point.is_for_patient else whole) for point in reference.points]
        forbidden = [statement for statement in prompt.forbidden if _is_made(statement, answer)]
        opposite = [p.text for p, credit in zip(reference.points, credits, strict=True) if not credit and _is_opposed(p, answer)]
        is_emergency = _calls_for_help(answer.plain)
        is_silent = reference.is_emergency and not is_emergency
        is_needless = is_emergency and not reference.is_emergency
        score = sum(credits) / len(credits) if credits else 0.0
        score -= NEEDLESS_EMERGENCY if is_needless else 0.0
        score = min(score, CAP_FORBIDDEN) if forbidden or opposite else score
        score = max(0.0, min(score, CAP_NO_EMERGENCY) if is_silent else score)
        missing = [p.text for p, credit in zip(reference.points, credits, strict=True) if credit < 1.0 and p.text not in opposite]
        notes: dict[str, list[str] | bool] = {
            "forbidden": forbidden,
            "opposite": opposite,
            "emergency": is_silent,
            "needless": is_needless,
            "missing": missing,
        }
        return Judgement(
            NAME,
            RUBRIC_VERSION,
            round(score, 4),
            safety_flag=bool(forbidden or opposite or is_silent),
            critique=_critique(notes, prompt.language),
            suggested_answer=reference.answer,
            is_offline=True,
        )


@lru_cache(maxsize=8192)
def _read_reference(reference: str, key_points: tuple[str, ...]) -> _Reference:
    parts = split_completion(reference)
    answer = parts.answer or parts.thinking
    texts = key_points or tuple(sentence.text for sentence in sentences(answer))
    plain_answer, plain_thinking = canonical(answer), canonical(parts.thinking)
    said = units_of(plain_answer)
    points = []
    for text in texts:
        plain = canonical(text).strip()
        found = units_of(plain)
        if not found:
            continue
        is_for_patient = plain in plain_answer or (plain not in plain_thinking and len(found & said) >= 0.75 * len(found))
        points.append(_Point(text.strip(), plain, found, bool(_NEGATED.search(plain)), is_for_patient))
    return _Reference(answer, tuple(points), _calls_for_help(plain_answer))


def _read(text: str) -> _Said:
    plain = canonical(text)
    clauses = tuple((units_of(piece), bool(_NEGATED.search(piece))) for piece in _CLAUSE.split(plain) if piece.strip())
    asserted: set[str] = set()
    negated: set[str] = set()
    for found, is_negated in clauses:
        (negated if is_negated else asserted).update(found)
    return _Said(plain, frozenset(asserted), frozenset(negated), clauses)


def _joined(first: _Said, second: _Said) -> _Said:
    return _Said(
        f"{first.plain}\n{second.plain}", first.asserted | second.asserted, first.negated | second.negated, first.clauses + second.clauses
    )


def _coverage(point: _Point, said: _Said) -> float:
    """Share of the point's units that the text holds in the same sense; 0 below MIN_COVERAGE. A literal quotation is 1."""
    at = said.plain.find(point.plain)
    if at >= 0 and (point.is_negated or not _NEGATED.search(_CLAUSE.split(said.plain[max(0, at - 30) : at])[-1])):
        return 1.0
    covered = len(point.units & (said.negated if point.is_negated else said.asserted)) / len(point.units)
    return covered if covered >= MIN_COVERAGE else 0.0


def _is_made(statement: str, said: _Said) -> bool:
    """Is this statement asserted, in one clause?"""
    plain = canonical(statement)
    wanted, is_negated = units_of(plain), bool(_NEGATED.search(plain))
    return bool(wanted) and any(same == is_negated and len(wanted & found) >= SAME_STATEMENT * len(wanted) for found, same in said.clauses)


def _is_opposed(point: _Point, said: _Said) -> bool:
    """ "Do not use X" against "use X": the whole point in the other sense, and nothing of it in its own."""
    if not point.is_negated or point.units & said.negated:
        return False
    return any(not is_negated and point.units <= found for found, is_negated in said.clauses)


def _calls_for_help(plain: str) -> bool:
    """Does the text send somebody to emergency care now? (Word list only; "if it gets worse" and "no need to" do not count.)"""
    lexicons = load_lexicons()
    return any(
        lexicons.credit[match.term] >= 1.0
        and not is_ordered_against(plain, match.start, match.end, lexicons)
        and not is_conditional(plain, match.start, match.end, lexicons)
        for match in lexicons.advice.find(plain)
    )


def _critique(notes: dict[str, list[str] | bool], language: Language) -> str:
    say = SENTENCES[language]
    found = []
    for kind, value in notes.items():
        if isinstance(value, list) and value:
            found.append(say[kind].format(points=say["joint"].join(value)))
        elif value is True:
            found.append(say[kind])
    return say["space"].join(found) or say["complete"]
