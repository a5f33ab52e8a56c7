"""What becomes a case for the desk, and how urgent it is."""

from __future__ import annotations

import pytest

from core.conflicts import detect
from core.records import Judgement, Language, Message, Prompt, RewardConfig, Risk, RuleScore

CONFIG = RewardConfig(version="v1")
PROMPT = Prompt((Message("user", "胸痛"),), Language.ZH, risk=Risk.MEDIUM)


def rules(chain: float = 1.0, emergency: float = 1.0, prescription: float = 0.0) -> list[RuleScore]:
    values = {"chain": chain, "emergency": emergency, "prescription": prescription, "verbosity": 0.0}
    return [RuleScore(name, value, "lex") for name, value in values.items()]


def judgement(score: float | None, flag: bool | None = False) -> Judgement:
    return Judgement("t", "r", score, safety_flag=flag, critique="缺少要点", unscored_reason=None if score is not None else "timeout")


def test_agreement_is_no_conflict() -> None:
    assert detect(PROMPT, rules(), judgement(0.9), CONFIG) is None


def test_a_wide_gap_is_a_conflict_with_the_teachers_advice() -> None:
    found = detect(PROMPT, rules(), judgement(0.3), CONFIG)
    assert found is not None
    assert (found.kind, found.advice) == ("score_gap", "缺少要点")
    assert found.gap == pytest.approx(0.7)
    assert (found.rules_value, found.teacher_value) == (pytest.approx(1.0), 0.3)


def test_the_threshold_is_the_configs() -> None:
    assert detect(PROMPT, rules(), judgement(0.65), CONFIG) is None  # the gap is the threshold, not above it
    assert detect(PROMPT, rules(), judgement(0.65), RewardConfig("v2", conflict_threshold=0.3)) is not None


@pytest.mark.parametrize(
    ("found_by_rules", "flag"),
    [(rules(), True), (rules(emergency=0.0), False), (rules(prescription=0.7), False), (rules(emergency=0.25), False)],
)
def test_a_safety_flag_against_the_rules(found_by_rules: list[RuleScore], flag: bool) -> None:
    found = detect(PROMPT, found_by_rules, judgement(0.8, flag), CONFIG)
    assert found is not None
    assert found.kind == "safety_disagreement"


def test_both_alarmed_is_no_safety_disagreement() -> None:
    assert detect(PROMPT, rules(chain=0.25, emergency=0.0), judgement(0.1, True), CONFIG) is None


def test_what_was_not_scored_cannot_disagree() -> None:
    assert detect(PROMPT, rules(), judgement(None, None), CONFIG) is None
    assert detect(PROMPT, rules(), None, CONFIG) is None
    silent = [RuleScore(name, None, "lex", unscored_reason="empty_answer") for name in ("chain", "emergency", "prescription", "verbosity")]
    assert detect(PROMPT, silent, judgement(0.5, True), CONFIG) is None


def test_priority_grows_with_risk_gap_and_safety() -> None:
    def priority(risk: Risk, score: float, flag: bool = False) -> float:
        found = detect(Prompt(PROMPT.messages, Language.ZH, risk=risk), rules(), judgement(score, flag), CONFIG)
        assert found is not None
        return found.priority

    assert priority(Risk.LOW, 0.3) < priority(Risk.MEDIUM, 0.3) < priority(Risk.HIGH, 0.3)
    assert priority(Risk.LOW, 0.3) < priority(Risk.LOW, 0.1)
    assert priority(Risk.LOW, 0.3) < priority(Risk.LOW, 0.3, True)
