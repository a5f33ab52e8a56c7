"""Choosing with known probabilities: the same cases for ever, the stated probability in fact, and estimates that find the truth."""

from __future__ import annotations

import random

import pytest

from core.sampling import Chosen, Observed, allocation, simple_sample, stratified_sample, weighted_share

FRAME = {
    "score_gap / chest / rl-1": list(range(0, 400)),
    "score_gap / child / rl-1": list(range(400, 440)),
    "safety / chest / rl-1": list(range(440, 470)),
    "safety / child / sft": [470, 471],
    "score_gap / eye / sft": [472],
}


def test_the_same_seed_gives_the_same_cases_whatever_the_order_of_the_frame() -> None:
    shuffled = {name: random.Random(1).sample(ids, len(ids)) for name, ids in reversed(FRAME.items())}
    first = stratified_sample(FRAME, 32, 7, "conflict")
    assert first == stratified_sample(shuffled, 32, 7, "conflict")
    assert first != stratified_sample(FRAME, 32, 8, "conflict")
    # recorded once: a change of these numbers means that older draws cannot be reproduced any more
    assert [one.unit_id for one in simple_sample(range(1000), 4, 2026, "control")] == [201, 661, 362, 130]


def test_sizes_and_probabilities() -> None:
    expected = allocation({name: len(ids) for name, ids in FRAME.items()}, 32)
    assert sum(expected.values()) == pytest.approx(32)
    assert expected["score_gap / eye / sft"] <= 1
    chosen = stratified_sample(FRAME, 32, 3, "conflict")
    assert len(chosen) == len({one.unit_id for one in chosen}) == 32
    for name, ids in FRAME.items():
        mine = [one for one in chosen if one.stratum == name]
        assert abs(len(mine) - expected[name]) < 1
        assert {one.inclusion_probability for one in mine} <= {expected[name] / len(ids)}
    assert stratified_sample(FRAME, 10_000, 3, "conflict") == [
        Chosen(one.unit_id, one.stratum, 1.0) for one in stratified_sample(FRAME, 473, 3, "conflict")
    ]
    assert stratified_sample({}, 32, 3, "conflict") == []
    assert simple_sample([], 8, 3, "control") == []


def test_more_strata_than_places() -> None:
    frame = {f"stratum {i:03d}": list(range(i * 10, i * 10 + 1 + i % 9)) for i in range(120)}
    for seed in range(50):
        assert len(stratified_sample(frame, 32, seed, "conflict")) == 32


def test_units_are_chosen_as_often_as_their_probability_says() -> None:
    seen: dict[int, int] = {}
    stated: dict[int, float] = {}
    trials = 400
    for seed in range(trials):
        for one in stratified_sample(FRAME, 32, seed, "conflict"):
            seen[one.unit_id] = seen.get(one.unit_id, 0) + 1
            stated[one.unit_id] = one.inclusion_probability
    for name, ids in FRAME.items():
        known = [i for i in ids if i in stated]
        share = sum(seen[i] for i in known) / (trials * len(ids))
        assert share == pytest.approx(stated[known[0]], abs=0.03), name


def world(rng: random.Random) -> tuple[dict[str, list[int]], list[int], dict[int, bool]]:
    """1800 answers: 300 conflicts in six strata of which 60 % are wrong, and 1500 on which all agree, 4 % wrong."""
    frame = {f"stratum {s}": list(range(s * 50, s * 50 + 50)) for s in range(6)}
    agreed = list(range(300, 1800))
    wrong = {i: rng.random() < (0.3 + 0.12 * (i // 50) if i < 300 else 0.04) for i in range(1800)}
    return frame, agreed, wrong


def test_weighted_estimates_find_the_planted_error_rate_and_plain_shares_do_not() -> None:
    held = plain_held = 0
    errors = []
    for seed in range(50):
        frame, agreed, wrong = world(random.Random(seed))
        truth = sum(wrong.values()) / len(wrong)
        observed, plain = [], []
        for week in range(4):  # four weeks of the default draw, as the page pools them
            for one in stratified_sample(frame, 32, 100 * seed + week, "conflict"):
                observed.append(Observed(wrong[one.unit_id], one.inclusion_probability, "conflict"))
            for one in simple_sample(agreed, 8, 100 * seed + week, "control"):
                observed.append(Observed(wrong[one.unit_id], one.inclusion_probability, "control"))
        plain = [Observed(one.is_hit, 1e-9) for one in observed]
        share, unweighted = weighted_share(observed), weighted_share(plain)
        assert share.low is not None
        assert share.high is not None
        assert share.value is not None
        assert unweighted.low is not None
        held += share.low <= truth <= share.high
        plain_held += unweighted.low <= truth
        errors.append(share.value - truth)
    assert held >= 44, held
    assert plain_held == 0, "the plain share of worst-first cases is far too high, every time"
    assert abs(sum(errors) / len(errors)) < 0.015, "unbiased"


def test_a_group_without_hits_keeps_its_doubt_and_a_census_has_none() -> None:
    controls = [Observed(False, 0.01, "control")] * 8
    share = weighted_share([*controls, Observed(True, 0.5, "conflict")])
    assert share.value is not None
    assert share.high is not None
    assert share.value < 0.01 < 0.25 < share.high
    whole = weighted_share([Observed(i < 3, 1.0) for i in range(10)])
    assert (whole.value, whole.low, whole.high) == (pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.3))
    assert weighted_share([]).value is None
