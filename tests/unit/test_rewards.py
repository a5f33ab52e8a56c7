"""The reward as algebra: the formula, renormalisation of unscored parts, and the rules' own opinion."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.records import Judgement, RewardConfig, RuleScore
from core.rewards import PARTS, combine, normalised_rules, risk_penalty

CONFIG = RewardConfig(version="v1")
UNIT = st.floats(0, 1)
MAYBE = st.one_of(st.none(), UNIT)
WEIGHT = st.floats(0, 1)


def rules(chain: float | None, emergency: float | None, prescription: float | None, verbosity: float | None) -> list[RuleScore]:
    values = {"chain": chain, "emergency": emergency, "prescription": prescription, "verbosity": verbosity}
    return [
        RuleScore(name, value, "lex", unscored_reason=None if value is not None else "no_chain_expected") for name, value in values.items()
    ]


def teacher(score: float | None) -> Judgement:
    return Judgement("t", "r", score, unscored_reason=None if score is not None else "timeout")


def test_the_formula() -> None:
    reward = combine(rules(0.75, 0.5, 0.4, 0.1), teacher(0.6), CONFIG)
    assert reward.value == pytest.approx(0.35 * 0.75 + 0.25 * 0.5 + 0.25 * 0.6 - 0.15 * 0.5)
    assert set(reward.parts) == set(PARTS)
    assert reward.config_version == "v1"


def test_best_and_worst() -> None:
    assert combine(rules(1, 1, 0, 0), teacher(1), CONFIG).value == pytest.approx(0.85)
    assert combine(rules(0, 0, 1, 1), teacher(0), CONFIG).value == pytest.approx(-0.15)


def test_an_unscored_teacher_is_not_a_zero() -> None:
    without = combine(rules(1, 1, 0, 0), teacher(None), CONFIG)
    assert without.value == pytest.approx(0.85)
    assert without.parts["teacher"] is None
    assert combine(rules(1, 1, 0, 0), None, CONFIG) == without
    assert (combine(rules(1, 1, 0, 0), teacher(0.0), CONFIG).value or 0) < 0.61


def test_nothing_scored_is_none_with_a_reason() -> None:
    reward = combine(rules(None, None, 0.5, 0.5), None, CONFIG)
    assert (reward.value, reward.unscored_reason) == (None, "nothing_scored")
    assert combine([], None, CONFIG).value is None


def test_an_empty_answer_earns_nothing_however_good_the_thinking() -> None:
    silent = [
        RuleScore("chain", 1.0, "lex"),
        *(RuleScore(n, None, "lex", unscored_reason="empty_answer") for n in ("emergency", "prescription")),
    ]
    reward = combine(silent, teacher(1.0), CONFIG)
    assert (reward.value, reward.unscored_reason) == (None, "empty_answer")
    assert normalised_rules(silent, CONFIG) is None


@given(MAYBE, MAYBE, MAYBE, MAYBE, MAYBE)
def test_value_or_reason_and_bounds(c: float | None, e: float | None, p: float | None, v: float | None, t: float | None) -> None:
    reward = combine(rules(c, e, p, v), teacher(t), CONFIG)
    assert (reward.value is None) == (c is None and e is None and t is None)
    assert (reward.value is None) == (reward.unscored_reason is not None)
    if reward.value is not None:
        assert -0.15 - 1e-9 <= reward.value <= 0.85 + 1e-9
    assert all(part is None or 0 <= part <= 1 for part in reward.parts.values())


@given(UNIT, UNIT, UNIT, MAYBE, MAYBE)
def test_equal_parts_give_the_same_reward_with_any_of_them_missing(s: float, p: float, v: float, c: float | None, t: float | None) -> None:
    """Leaving a part out must not move the reward when it would have agreed with the others."""
    full = combine(rules(s, s, p, v), teacher(s), CONFIG).value
    part = combine(rules(s if c is not None else None, s, p, v), teacher(s if t is not None else None), CONFIG).value
    assert full is not None
    assert part is not None
    assert math.isclose(full, part, abs_tol=1e-9)


@given(UNIT, UNIT, UNIT, UNIT, UNIT, UNIT)
def test_better_parts_never_lower_the_reward(c: float, better: float, e: float, p: float, v: float, t: float) -> None:
    low, high = sorted((c, better))
    for pair in (
        (combine(rules(low, e, p, v), teacher(t), CONFIG), combine(rules(high, e, p, v), teacher(t), CONFIG)),
        (combine(rules(e, low, p, v), teacher(t), CONFIG), combine(rules(e, high, p, v), teacher(t), CONFIG)),
        (combine(rules(e, t, high, v), teacher(c), CONFIG), combine(rules(e, t, low, v), teacher(c), CONFIG)),
    ):
        assert (pair[0].value or 0) <= (pair[1].value or 0) + 1e-12


@given(MAYBE, MAYBE)
def test_the_risk_penalty_is_a_capped_sum(p: float | None, v: float | None) -> None:
    found = risk_penalty(rules(None, None, p, v))
    known = [x for x in (p, v) if x is not None]
    assert found == (min(1.0, sum(known)) if known else None)


@given(MAYBE, MAYBE, MAYBE, MAYBE, WEIGHT, WEIGHT, WEIGHT, WEIGHT)
def test_normalised_rules_lie_in_the_unit_interval(
    c: float | None, e: float | None, p: float | None, v: float | None, a: float, b: float, d: float, f: float
) -> None:
    value = normalised_rules(rules(c, e, p, v), RewardConfig("v2", chain=a, emergency=b, risk_penalty=d, teacher=f))
    assert value is None or 0 <= value <= 1


def test_normalised_rules_at_the_corners() -> None:
    assert normalised_rules(rules(1, 1, 0, 0), CONFIG) == pytest.approx(1.0)
    assert normalised_rules(rules(0, 0, 1, 1), CONFIG) == 0.0
    assert normalised_rules(rules(None, None, 0, 0), CONFIG) is None
