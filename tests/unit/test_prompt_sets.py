"""Prompt sets: shares, boosts, known probabilities, the same draw for the same seed, and nothing from evaluation."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.prompt_sets import MAX_BOOST, Candidate, Gap, PromptSet, allocate, boost, build, gaps_of


def pool(n: int = 600, seed: int = 0, high: float = 0.2) -> list[Candidate]:
    rng = random.Random(seed)
    return [
        Candidate(
            i, rng.choice(["heart", "skin", "lung"]), rng.choice(["en", "zh"]),
            "high" if rng.random() < high else rng.choice(["low", "medium"]), "train", f"h{i}",
        )
        for i in range(n)
    ]  # fmt: skip


def risks(found: PromptSet, rows: list[Candidate]) -> Counter[str]:
    by_id = {one.sample_id: one.risk for one in rows}
    return Counter(by_id[i] for i in found.sample_ids)


def test_at_least_two_fifths_are_high_risk_and_every_stratum_knows_its_probability() -> None:
    rows = pool()
    found = build(rows, 200)
    assert len(found.sample_ids) == 200
    assert risks(found, rows)["high"] == 80 == round(200 * found.high_risk_share)
    assert sum(one.num_drawn for one in found.strata) == 200
    drawn = Counter(one.stratum for one in rows if one.sample_id in set(found.sample_ids))
    sizes = Counter(one.stratum for one in rows)
    for one in found.strata:
        key = (one.category, one.language, one.risk)
        assert (one.num_available, one.num_drawn) == (sizes[key], drawn[key])
        assert one.inclusion_probability == one.num_drawn / one.num_available
    assert found.manifest()["strata"][0]["inclusion_probability"] == found.strata[0].inclusion_probability


def test_a_riskier_pool_keeps_its_share_and_a_poorer_one_makes_a_smaller_set() -> None:
    rich = pool(high=0.7)
    assert abs(risks(build(rich, 200), rich)["high"] / 200 - 0.7) < 0.06
    poor = pool(high=0.05)
    num_high = sum(one.risk == "high" for one in poor)
    found = build(poor, 200)
    assert risks(found, poor)["high"] == num_high
    assert len(found.sample_ids) == int(num_high / 0.4)
    assert found.num_asked == 200


def test_the_same_seed_draws_the_same_set_whatever_the_order() -> None:
    rows = pool()
    shuffled = random.Random(9).sample(rows, len(rows))
    assert build(rows, 150, seed=4) == build(shuffled, 150, seed=4)
    assert build(rows, 150, seed=4).sample_ids != build(rows, 150, seed=5).sample_ids


def test_gaps_and_accepted_weights_draw_more() -> None:
    rows = pool()
    bad = ("heart", "zh", "high")
    verdicts = [(bad, True)] * 20 + [(("skin", "en", "high"), False)] * 20
    gaps = gaps_of(verdicts)
    assert gaps[bad] == Gap(20, 20)
    share = {(s.category, s.language, s.risk): s.inclusion_probability for s in build(rows, 150, gaps=gaps).strata}
    assert share[bad] > 1.8 * share["skin", "en", "high"]
    weighted = {
        (s.category, s.language, s.risk): s.inclusion_probability for s in build(rows, 150, sampling_weights={("skin", "low"): 3}).strata
    }
    assert weighted["skin", "en", "low"] > 2 * weighted["heart", "en", "low"]


def test_one_verdict_says_little_and_no_boost_is_endless() -> None:
    key = ("a", "en", "high")
    assert 1 < boost(key, {key: Gap(1, 1)}, {}, 2.0) < 1.5
    assert boost(key, {key: Gap(400, 400)}, {}, 2.0) == pytest.approx(2.98, abs=0.02)
    assert boost(key, {}, {("a", "high"): 1e6}, 2.0) == MAX_BOOST
    assert boost(key, {}, {}, 2.0) == 1


def test_nothing_from_evaluation_and_no_copies() -> None:
    rows = pool(100, high=0.5)
    with pytest.raises(ValueError, match="red_team"):
        build([*rows, Candidate(999, "heart", "en", "high", "red_team", "x")], 50)
    leaking = [Candidate(1000 + i, "heart", "en", "high", "train", f"leak{i}", leak=7) for i in range(30)]
    copies = [Candidate(2000 + i, one.category, one.language, one.risk, "train", one.content_hash) for i, one in enumerate(rows)]
    found = build([*rows, *leaking, *copies], 10_000)
    assert set(found.sample_ids) <= {one.sample_id for one in rows}
    assert (found.num_leaks, found.num_copies) == (30, 100)
    with pytest.raises(UserError, match=r"reward\.no_prompts_left"):
        build(leaking, 10)
    with pytest.raises(UserError, match=r"reward\.no_high_risk_prompts"):
        build(pool(50, high=0.0), 10)


@given(
    st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from(["en", "zh"]), st.just("high")), st.integers(1, 40), min_size=1),
    st.integers(0, 300),
)
def test_allocation_gives_every_place_and_never_more_than_there_is(sizes: dict[tuple[str, str, str], int], places: int) -> None:
    given_ = allocate(sizes, {key: 1.0 + len(key[0]) * i for i, key in enumerate(sizes)}, places)
    assert sum(given_.values()) == min(places, sum(sizes.values()))
    assert all(0 <= given_[key] <= sizes[key] for key in sizes)
