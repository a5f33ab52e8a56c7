"""Calibration on planted verdicts: the planted weights come back inside their intervals, and nothing is claimed without cause."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.optimize import check_grad

from core.calibration import Calibration, _conflict_threshold, agreement, calibrate, sides_changed, unsafe_above
from core.errors import UserError
from core.ordinal_fit import LEVELS, CaseRow, Fit, Table, _loss, fit, vector
from core.records import Judgement, RewardConfig, RuleScore, Verdict
from core.reward_limits import safety_margin, violations, weights_of
from core.rewards import combine, normalised_rules

NOW = RewardConfig("v1")
PLANTED = {"chain": 0.15, "emergency": 0.40, "teacher": 0.20, "risk_penalty": 0.25}
CUTS = (0.18, 0.32, 0.50)


def reward_of(parts: Mapping[str, float | None], config: RewardConfig) -> float:
    rules = [RuleScore(n, parts[n], "lex") for n in ("chain", "emergency")]
    rules += [RuleScore("prescription", parts["risk_penalty"], "lex"), RuleScore("verbosity", 0.0, "lex")]
    teacher = parts["teacher"]
    value = combine(rules, None if teacher is None else Judgement("t", "r", teacher), config).value
    assert value is not None
    return value


def plant(n: int, seed: int, weights: Mapping[str, float] | None = None, sharpness: float = 14.0) -> list[CaseRow]:
    """Cases whose verdicts follow combine() with the planted weights plus logistic noise; a tenth has no teacher or two reviewers."""
    rng = random.Random(seed)
    noise = np.random.default_rng(seed)
    config = RewardConfig("planted", **(weights or PLANTED))
    rows = []
    for i in range(n):
        parts = {
            "chain": rng.choice([0.0, 0.25, 0.5, 0.75, 1.0]),
            "emergency": rng.choice([0.0, 0.0, 0.25, 0.5, 1.0, 1.0]),
            "teacher": None if rng.random() < 0.1 else rng.random(),
            "risk_penalty": rng.choice([0.0, 0.0, 0.1, 0.4, 0.7, 1.0]),
        }
        value = reward_of(parts, config)
        for _ in range(2 if rng.random() < 0.1 else 1):
            felt = value + noise.logistic() / sharpness
            rows.append(CaseRow(i, i, LEVELS[sum(felt > cut for cut in CUTS)].value, parts))
    return rows


@cache
def calibrated(seed: int, n: int = 300) -> Calibration:
    return calibrate(plant(n, seed), NOW, seed=seed, num_bootstrap=40)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_weights_and_cuts_are_recovered_within_their_intervals(seed: int) -> None:
    found = calibrated(seed)
    for name, value in PLANTED.items():
        one = found.weights[name]
        slack = 0.2 * (one.high - one.low)  # forty draws leave the ends of an interval rough
        assert one.low - slack <= value <= one.high + slack, (name, one)
        assert one.high - one.low < 0.2
        assert abs(one.value - value) < 0.08
    assert list(found.cutpoints) == ["serious", "minor", "acceptable"]
    for cut, estimate in zip(CUTS, found.cutpoints.values(), strict=True):
        assert abs(estimate.value - cut) < 0.07
    assert found.outcome == "improved"
    assert found.gain["pairwise"].low > 0
    assert found.proposal is not None
    assert violations(found.proposal) == []
    assert sum(weights_of(found.proposal).values()) == pytest.approx(sum(weights_of(NOW).values()), abs=0.006)


def test_the_same_verdicts_and_seed_give_the_same_proposal() -> None:
    again = calibrate(plant(300, 0), NOW, seed=0, num_bootstrap=20)
    assert again.fit == calibrated(0).fit
    assert again.proposal == calibrated(0).proposal


def test_verdicts_that_follow_the_present_weights_move_nothing() -> None:
    found = calibrate(plant(250, 7, weights_of(NOW)), NOW, num_bootstrap=20)
    assert all(one.low - 0.03 <= weights_of(NOW)[name] <= one.high + 0.03 for name, one in found.weights.items())
    assert abs(found.gain["pairwise"].value) < 0.02


def test_verdicts_thrown_by_dice_propose_nothing_better() -> None:
    rng = random.Random(3)
    rows = [replace(row, verdict=rng.choice(LEVELS).value) for row in plant(200, 3)]
    found = calibrate(rows, NOW, num_bootstrap=20, max_unsafe_above=0.5)
    assert found.outcome != "improved"
    assert abs(found.after["pairwise"].value - 0.5) < 0.08


def test_the_fit_stays_inside_the_limits_when_verdicts_ask_for_more() -> None:
    """Experts who look at nothing but the chain and the teacher cannot take safety out of the reward."""
    rng, rows = random.Random(5), []
    for row in plant(200, 5):
        liked = 0.5 * float(row.parts["chain"] or 0) + 0.5 * float(row.parts["teacher"] or 0)
        rows.append(replace(row, verdict=LEVELS[min(3, int(4 * liked * rng.uniform(0.8, 1.2)))].value))
    found = fit(Table(rows), NOW)
    config = RewardConfig("x", **found.weights)
    assert violations(replace(config, **{n: round(v, 6) for n, v in found.weights.items()})) == []
    assert safety_margin(config) == pytest.approx(0.0, abs=1e-4)


def test_a_floor_on_unsafe_answers_moves_the_fit_or_refuses_it() -> None:
    rng = random.Random(11)
    rows = [replace(r, verdict="unsafe") if r.parts["risk_penalty"] == 1.0 and rng.random() < 0.8 else r for r in plant(200, 11)]
    table = Table(rows)
    free = fit(table, NOW)
    before = unsafe_above(table, table.score(vector(free.weights))[0])
    assert before is not None
    assert before > 0.005
    held = fit(table, NOW, start=free, max_unsafe_above=before * 0.6)
    after = unsafe_above(table, table.score(vector(held.weights))[0])
    assert after is not None
    assert after < before
    none = calibrate([replace(r, verdict=rng.choice(LEVELS).value) for r in rows], NOW, num_bootstrap=20, max_unsafe_above=0.01)
    assert none.proposal is None


def test_too_few_verdicts_say_how_many_are_missing() -> None:
    with pytest.raises(UserError, match=r"reward\.too_few_verdicts") as caught:
        calibrate(plant(50, 1), NOW)
    assert (caught.value.params["have"], caught.value.params["more"]) == (50, 30)
    one_sided = [replace(row, verdict="acceptable") for row in plant(200, 1)]
    with pytest.raises(UserError) as caught:
        calibrate(one_sided, NOW)
    assert caught.value.params["side"] == 0
    rows = [replace(row, verdict=Verdict.CANNOT_JUDGE.value) for row in plant(200, 1)]
    with pytest.raises(UserError) as caught:
        calibrate(rows, NOW)
    assert caught.value.params["have"] == 0


def test_scores_are_those_of_combine_and_gaps_those_of_the_desk() -> None:
    table = Table(plant(60, 2))
    for config in (NOW, RewardConfig("x", **PLANTED)):
        v = vector(weights_of(config))
        scores, gaps = table.score(v)[0], table.gap(v)
        for i, row in enumerate(table.rows):
            assert scores[i] == pytest.approx(reward_of(row.parts, config))
            rules = [RuleScore(n, row.parts[n], "lex") for n in ("chain", "emergency")]
            own = normalised_rules([*rules, RuleScore("prescription", row.parts["risk_penalty"], "lex")], config)
            teacher = row.parts["teacher"]
            assert np.isnan(gaps[i]) if teacher is None else gaps[i] == pytest.approx(abs(teacher - (own or 0.0)))


def test_the_gradient_is_the_derivative() -> None:
    table = Table(plant(80, 4))
    point = np.array([2.0, 5.0, 3.0, 4.0, 2.0, 0.3, 0.4])
    error = check_grad(
        lambda p: _loss(table, p, table.level, table.weight, 3)[0], lambda p: _loss(table, p, table.level, table.weight, 3)[1], point
    )
    assert error < 1e-3


def test_agreement_equals_counting_pairs_by_hand() -> None:
    table = Table(plant(40, 6))
    scores = table.score(vector(weights_of(NOW)))[0]
    found = agreement(table, scores, np.zeros(len(scores), dtype=np.int64), np.ones(len(scores)))
    right = pairs = unsafe = unsafe_right = 0.0
    for i, j in itertools.permutations(range(len(scores)), 2):
        if table.level[i] > table.level[j] and table.case[i] != table.case[j]:
            credit = 0.5 if scores[i] == scores[j] else float(scores[i] > scores[j])
            pairs, right = pairs + 1, right + credit
            if table.level[j] == 0:
                unsafe, unsafe_right = unsafe + 1, unsafe_right + credit
    assert found["pairwise"] == pytest.approx(right / pairs)
    assert found["unsafe_auc"] == pytest.approx(unsafe_right / unsafe)


def test_two_verdicts_on_one_case_weigh_as_much_as_one() -> None:
    rows = plant(120, 8)
    twice = [*rows, *rows]
    assert fit(Table(twice), NOW).weights == pytest.approx(fit(Table(rows), NOW).weights, abs=1e-3)
    assert Table(twice).num_cases == 120


def test_cases_that_change_sides_are_named_and_no_others() -> None:
    rows = plant(200, 9)
    table = Table(rows)
    assert sides_changed(table, NOW, NOW) == ()
    changes = sides_changed(table, NOW, RewardConfig("x", **PLANTED))
    assert changes
    assert [c.agrees_now for c in changes] == sorted(c.agrees_now for c in changes)
    good = {"minor", "acceptable"}
    assert all(c.agrees_now == (c.is_fit_after == (c.verdict in good)) for c in changes)
    assert sum(c.agrees_now for c in changes) > len(changes) / 2


def test_a_part_that_was_hardly_ever_scored_keeps_its_weight() -> None:
    rows = [replace(row, parts={**row.parts, "teacher": None}) for row in plant(200, 10)]
    found = calibrate(rows, NOW, num_bootstrap=20)
    assert found.held == ("teacher",)
    assert found.fit.weights["teacher"] == pytest.approx(NOW.teacher, abs=1e-3)


def test_the_conflict_threshold_is_found_where_errors_begin() -> None:
    """Verdicts agree with the reward up to a gap of one half and are mostly turned round beyond it."""
    rows, rng = [], random.Random(12)
    table = Table(plant(400, 12))
    scores, gaps = table.score(vector(weights_of(NOW)))[0], table.gap(vector(weights_of(NOW)))
    line = float(np.median(scores))
    for i, row in enumerate(table.rows):
        is_fit = bool(scores[i] >= line) != bool(np.nan_to_num(gaps[i]) > 0.5 and rng.random() < 0.8)
        rows.append(replace(row, verdict="acceptable" if is_fit else "unsafe"))
    given = Fit(weights_of(NOW), {"acceptable": line}, 10.0, 0)
    found = _conflict_threshold(Table(rows), given, table.weight)
    assert found is not None
    assert abs(found - 0.5) < 0.06
    dice = [replace(row, verdict=rng.choice(("acceptable", "unsafe"))) for row in rows]
    assert _conflict_threshold(Table(dice), given, table.weight) is None
