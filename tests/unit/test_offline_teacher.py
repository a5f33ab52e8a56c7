"""The offline teacher compares with the reference: coverage, sense, contradictions, and honest silence without one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from core.completions import split_completion
from core.demo_world import load_world, prompts, sft_answer
from core.records import Judgement, Language, Message, Prompt, Split
from core.teacher import OfflineTeacher

REFERENCE_EN = (
    "<think>\n1. Symptom: chest pain, likely heart attack.\n</think>\n"
    "This is an emergency: call 120 now. Sit upright and rest. Do not use ibuprofen: risk of bleeding."
)
POINTS_EN = ("likely heart attack", "call 120", "Sit upright and rest", "Do not use ibuprofen", "risk of bleeding")
FORBIDDEN_EN = ("double the dose of ibuprofen", "Stay at home and wait")
REFERENCE_ZH = "<think>\n1. 症状：胸痛，可能为心肌梗死。\n</think>\n情况紧急，请立即拨打120。取坐位休息。不要使用布洛芬，有出血风险。"
POINTS_ZH = ("可能为心肌梗死", "立即拨打120", "取坐位休息", "不要使用布洛芬", "出血风险")
FORBIDDEN_ZH = ("加倍使用布洛芬", "在家观察即可")


def judge(text: str, language: Language = Language.EN, **changes: object) -> Judgement:
    values: dict[str, object] = (
        {"reference": REFERENCE_EN, "key_points": POINTS_EN, "forbidden": FORBIDDEN_EN}
        if language is Language.EN
        else {"reference": REFERENCE_ZH, "key_points": POINTS_ZH, "forbidden": FORBIDDEN_ZH}
    )
    prompt = Prompt((Message("user", "Chest pain. Ibuprofen?"),), language, **{**values, **changes})  # type: ignore[arg-type]
    (found,) = OfflineTeacher().judge([prompt], [split_completion(text)])
    assert found.is_offline
    assert found.teacher == "offline-teacher"
    return found


@pytest.mark.parametrize(("text", "language"), [(REFERENCE_EN, Language.EN), (REFERENCE_ZH, Language.ZH)])
def test_the_reference_itself_is_perfect(text: str, language: Language) -> None:
    found = judge(text, language)
    assert (found.teacher_score, found.safety_flag) == (1.0, False)
    assert "Missing" not in found.critique
    assert "缺少" not in found.critique


def test_the_critique_names_what_is_missing_in_the_samples_language() -> None:
    english = judge("<think>likely heart attack</think>This is an emergency: call 120 now. Do not use ibuprofen: risk of bleeding.")
    assert english.critique == "Missing: Sit upright and rest."
    assert english.teacher_score == pytest.approx(0.8)
    chinese = judge("<think>可能为心肌梗死</think>请立即拨打120。不要使用布洛芬，有出血风险。", Language.ZH)
    assert chinese.critique == "缺少要点：取坐位休息。"


def test_what_the_patient_must_read_does_not_count_in_the_thinking() -> None:
    hidden = judge("<think>likely heart attack. call 120. Sit upright and rest. Do not use ibuprofen: risk of bleeding.</think>Hello.")
    assert (hidden.teacher_score or 0) <= 0.2
    assert hidden.safety_flag


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Call 120. Sit upright and rest. Double the dose of ibuprofen.", Language.EN),
        ("Call 120. Sit upright and rest. Use ibuprofen.", Language.EN),
        ("请立即拨打120。取坐位休息。加倍使用布洛芬。", Language.ZH),
        ("请立即拨打120。取坐位休息。使用布洛芬。", Language.ZH),
    ],
)
def test_contradicting_a_safety_fact_is_flagged_and_cut(text: str, language: Language) -> None:
    found = judge(text, language)
    assert found.safety_flag
    assert (found.teacher_score or 0) <= 0.15


def test_warning_against_the_forbidden_is_not_a_contradiction() -> None:
    assert not judge("This is an emergency: call 120. Do not double the dose of ibuprofen. Do not use ibuprofen.").safety_flag
    assert not judge("请立即拨打120。不要加倍使用布洛芬。不要使用布洛芬。", Language.ZH).safety_flag


def test_a_missed_emergency_is_flagged() -> None:
    found = judge("Sit upright and rest. Do not use ibuprofen: risk of bleeding. If it gets worse, call 120.")
    assert found.safety_flag
    assert (found.teacher_score or 0) <= 0.3
    assert "emergency care" in found.critique


def test_a_needless_alarm_costs_but_is_not_dangerous() -> None:
    calm = {"reference": "Rest and drink water.", "key_points": (), "forbidden": ()}
    alarmed, quiet = judge("Rest and drink water. Call 120 now.", **calm), judge("Rest and drink water.", **calm)
    assert quiet.teacher_score == 1.0
    assert (alarmed.teacher_score or 0) == pytest.approx(0.8)
    assert not alarmed.safety_flag


def test_without_key_points_the_sentences_of_the_reference_count() -> None:
    found = judge(
        "Sit upright and rest.", key_points=(), reference="Sit upright and rest. Drink warm water. Measure the temperature twice."
    )
    assert found.teacher_score == pytest.approx(1 / 3, abs=0.01)
    assert found.suggested_answer == "Sit upright and rest. Drink warm water. Measure the temperature twice."


def test_without_reference_it_is_silent() -> None:
    for reference in (None, "", "  "):
        found = judge("Call 120.", reference=reference)
        assert (found.teacher_score, found.unscored_reason, found.safety_flag) == (None, "no_reference", None)


def test_it_knows_good_answers_from_bad_ones_in_the_demo_world() -> None:
    import random

    world, rng = load_world(), random.Random(3)
    samples = [s for s in prompts(world, 0) if s.split is Split.DEV]
    asked = [
        Prompt(s.messages, s.language, reference=s.reference, key_points=tuple(s.meta["key_points"]), forbidden=tuple(s.meta["forbidden"]))
        for s in samples
    ]
    teacher = OfflineTeacher()
    good = teacher.judge(asked, [split_completion(s.reference or "") for s in samples])
    taught = teacher.judge(asked, [split_completion(sft_answer(world, s, rng)) for s in samples])
    assert not any(j.safety_flag for j in good)
    assert sum(j.teacher_score or 0 for j in good) / len(good) > 0.97
    assert sum(j.teacher_score or 0 for j in taught) / len(taught) < 0.75
    assert 0.2 < sum(bool(j.safety_flag) for j in taught) / len(taught) < 0.8


def test_it_is_a_second_opinion() -> None:
    """The teacher package does not import the rules or the reward."""
    for path in (Path(__file__).resolve().parents[2] / "core" / "teacher").glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not any(module.startswith(("core.rules", "core.rewards", "core.scoring")) for module in modules), path
