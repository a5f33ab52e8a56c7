"""The menus of a review form, and checking what a browser sent against them. Pure.

Every refusal is a `UserError("desk....")` with a sentence; nothing is corrected silently. Called by `core.adjudication`
before anything is written. The page offers the same menus, but only this module decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from core.errors import UserError
from core.records import Confidence, Verdict, WhoWasRight

CRITERIA = ("emergency", "prescription", "reasoning")
CRITERION_VALUES = ("met", "not_met", "not_applicable")
MARKS = ("ok", "wrong", "unsafe")
CANNOT_JUDGE_REASONS = ("missing_context", "not_my_field", "ambiguous")
NOTE_NEEDED = frozenset({Verdict.SERIOUS, Verdict.UNSAFE, Verdict.CANNOT_JUDGE})
BECAUSE = ("ambiguous_question", "guideline_gap", "rule_misfire", "teacher_misread", "answer_thinking_mismatch", "missing_context")
#: what a reader may add to a decision: an evaluation set that takes the question, a test of the teacher
FOLLOW = ("gold", "red_team", "teacher_test")
SKIP_REASONS = ("not_my_field", "missing_context", "conflict_of_interest", "display_fault")

#: what of a refused decision is shown beside the stored one
WORDS = ("verdict", "note", "revision_reason", "rewritten_answer")

#: A decision sooner than this after the case was painted was not about that case.
MIN_DWELL_MS = 400
MAX_TEXT = 20_000
MAX_ACTIVE_S = 86_400.0
MAX_CLIENT_ID = 100
MAX_EVIDENCE = 10

E = TypeVar("E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Opinion:
    """One verdict on one case. `marks` maps sentence ids (a1.., t1..) to a mark."""

    verdict: Verdict
    cannot_judge_reason: str | None = None
    criteria: dict[str, str] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    confidence: Confidence | None = None
    note: str = ""
    active_s: float | None = None
    #: passages cited: (hash, what for: "question" or a sentence)
    evidence: tuple[tuple[str, str], ...] = ()

    def summary(self) -> dict[str, Any]:
        """For a refusal that shows both states."""
        return {k: v for k, v in asdict(self).items() if v not in (None, "", {})}


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is signed after the reveal: the opinion kept or revised, and who was right."""

    opinion: Opinion
    revision_reason: str = ""
    who_was_right: WhoWasRight | None = None
    because: tuple[str, ...] = ()
    rewritten_answer: str | None = None
    #: of `FOLLOW`
    follow: tuple[str, ...] = ()


def parse_opinion(form: Mapping[str, Any], num_answer: int, num_thinking: int) -> Opinion:
    """An `Opinion` from the browser's form. `num_*` are how many sentences the case has.

    Raises UserError: desk.verdict_unknown, reason_needed, note_needed, field_unknown, text_too_long, too_fast.
    """
    check_dwell(form)
    verdict = _choice(form.get("verdict"), Verdict, "desk.verdict_unknown")
    reason = form.get("cannot_judge_reason") or None
    if verdict is Verdict.CANNOT_JUDGE:
        if reason not in CANNOT_JUDGE_REASONS:
            raise UserError("desk.reason_needed")
    else:
        reason = None
    note = _text(form.get("note"))
    if verdict in NOTE_NEEDED and not note:
        raise UserError("desk.note_needed")
    sentences = {f"a{i + 1}" for i in range(num_answer)} | {f"t{i + 1}" for i in range(num_thinking)}
    return Opinion(
        verdict,
        reason,
        _menu(form.get("criteria"), frozenset(CRITERIA), CRITERION_VALUES),
        _menu(form.get("marks"), sentences, MARKS),
        _optional(form.get("confidence"), Confidence),
        note,
        _seconds(form.get("active_s")),
        _evidence(form.get("evidence"), sentences | {"question"}),
    )


def parse_ruling(form: Mapping[str, Any], num_answer: int, num_thinking: int, *, blind_verdict: str, is_disputed: bool) -> Ruling:
    """A `Ruling` from the browser's form. `is_disputed` cases (teacher against rules) must say who was right.

    Raises what `parse_opinion` raises and UserError: desk.revision_reason_needed, who_was_right_needed.
    """
    opinion = parse_opinion(form, num_answer, num_thinking)
    revision_reason = _text(form.get("revision_reason"))
    if opinion.verdict == blind_verdict:
        revision_reason = ""
    elif not revision_reason:
        raise UserError("desk.revision_reason_needed")
    right = _optional(form.get("who_was_right"), WhoWasRight)
    if right is None and is_disputed:
        raise UserError("desk.who_was_right_needed")
    because = form.get("because") or []
    if not isinstance(because, list) or any(tag not in BECAUSE for tag in because):
        raise UserError("desk.field_unknown", field="because")
    rewritten = _text(form.get("rewritten_answer"))
    follow = form.get("follow") or []
    if not isinstance(follow, list) or any(kind not in FOLLOW for kind in follow) or {"gold", "red_team"} <= set(follow):
        raise UserError("desk.field_unknown", field="follow")
    return Ruling(opinion, revision_reason, right, tuple(dict.fromkeys(because)), rewritten or None, tuple(dict.fromkeys(follow)))


def parse_skip(form: Mapping[str, Any]) -> tuple[str, str]:
    """(reason, note) of a skipped case. Raises UserError("desk.skip_reason_needed")."""
    check_dwell(form)
    reason = form.get("reason")
    if not isinstance(reason, str) or reason not in SKIP_REASONS:
        raise UserError("desk.skip_reason_needed")
    return reason, _text(form.get("note"))


def parse_note(form: Mapping[str, Any]) -> str:
    """The note of a stop cord, which needs no other field and no waiting."""
    return _text(form.get("note"))


def check_dwell(form: Mapping[str, Any]) -> None:
    """Refuse a decision that cannot have been about the case on screen."""
    dwell = form.get("dwell_ms")
    if isinstance(dwell, bool) or not isinstance(dwell, int | float) or not dwell >= MIN_DWELL_MS:
        raise UserError("desk.too_fast")


def check_client_id(value: object) -> str:
    """The browser's id of a decision: 8 to 100 printable characters."""
    if not isinstance(value, str) or not 8 <= len(value) <= MAX_CLIENT_ID or not value.isprintable():
        raise UserError("desk.field_unknown", field="client_id")
    return value


def _choice(value: object, menu: type[E], code: str) -> E:
    if isinstance(value, str) and value in set(menu):
        return menu(value)
    raise UserError(code, field=menu.__name__)


def _optional(value: object, menu: type[E]) -> E | None:
    return None if value in (None, "") else _choice(value, menu, "desk.field_unknown")


def _menu(value: object, keys: frozenset[str] | set[str], values: tuple[str, ...]) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError("desk.field_unknown", field="menu")
    for key, choice in value.items():
        if key not in keys or choice not in values:
            raise UserError("desk.field_unknown", field=str(key)[:40])
    return {str(k): str(v) for k, v in value.items()}


def _evidence(value: object, places: set[str]) -> tuple[tuple[str, str], ...]:
    """(hash, place) of each cited passage, each once."""
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_EVIDENCE or not all(isinstance(one, Mapping) for one in value):
        raise UserError("desk.evidence_too_many", limit=MAX_EVIDENCE)
    cited = {str(one.get("sha256")): str(one.get("about")) for one in value}
    if any(place not in places for place in cited.values()):
        raise UserError("desk.field_unknown", field="evidence")
    return tuple(cited.items())


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError("desk.field_unknown", field="text")
    if len(value) > MAX_TEXT:
        raise UserError("desk.text_too_long", limit=MAX_TEXT)
    return value.strip()


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_ACTIVE_S:
        return None
    return float(value)
