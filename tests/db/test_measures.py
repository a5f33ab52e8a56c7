"""The agreement page's numbers, from decisions made through the public functions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from core.desk import draw, measures, scorers
from core.home import Home
from core.jobs.configs_review import DrawConfig
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories
from tests.db.test_review_plan import disputed, make_case, read


@pytest.fixture
def people(home: Home) -> list[int]:
    with write_session() as session:
        return [factories.user(session, display_name=f"Dr {name}").id for name in ("Ash", "Birch", "Cedar")]


def quick_rows(people: list[int], verdicts: list[tuple[str, ...]], **values: object) -> list[int]:
    """Cases with ready blind rows: many are needed, and the way through the desk is tested elsewhere."""
    cases = []
    with write_session() as session:
        for n, given in enumerate(verdicts):
            case = factories.conflict(session)
            cases.append(case.id)
            for user_id, verdict in zip(people, given, strict=False):
                for stage in ("blind", "signed"):
                    client = f"{stage}-{n}-{user_id}-{case.id}"
                    row = t.Adjudication(conflict_id=case.id, user_id=user_id, stage=stage, client_id=client, verdict=verdict)
                    row.active_s = 60.0
                    session.add(row)
    return cases


def test_agreement_is_of_blind_verdicts_with_counts(people: list[int]) -> None:
    case = make_case()
    read(people[0], case, "acceptable", "minor")
    read(people[1], case, "minor")
    found = measures.agreement(people[0])
    verdict = found.measures[0]
    assert (found.num_cases, verdict.by_coefficient["raw"].value) == (1, 0.0), "signed alike, but seen differently"
    assert not verdict.is_enough
    harmful = next(one for one in found.measures if one.name == "harmful")
    assert harmful.by_coefficient["raw"].value == 1.0
    assert "alpha_ordinal" not in harmful.by_coefficient


def test_enough_cases_give_numbers_and_only_own_pairs(people: list[int]) -> None:
    quick_rows(people[:2], [("minor", "minor")] * 15 + [("minor", "acceptable")] * 9)
    quick_rows([people[1], people[2]], [("serious", "serious")] * 3)
    found = measures.agreement(people[0])
    raw = found.measures[0].by_coefficient["raw"]
    assert (found.measures[0].is_enough, raw.num_cases, raw.value) == (True, 27, pytest.approx(18 / 27))
    assert [(pair.first, pair.second, pair.is_enough) for pair in found.pairs] == [("Dr Ash", "Dr Birch", True)]
    with write_session() as session:
        admin = factories.user(session, "admin").id
    assert len(measures.agreement(admin).pairs) == 2
    assert measures.agreement(people[0], until=utc_now() - timedelta(days=1)).num_cases == 0, "the window is a window"
    own = measures.own_work(people[0])
    assert (own.num_signed, own.active_s, own.num_shared, own.agreed) == (24, 24 * 60.0, 24, pytest.approx(15 / 24))
    assert own.per_hour == pytest.approx(60)
    rolling = measures.weekly(num_weeks=3)
    assert {name for _, name, _ in rolling} == {"raw", "randolph", "alpha_ordinal"}


def test_drift_compares_a_repeat_with_the_first_blind_verdict(people: list[int]) -> None:
    cases = quick_rows(people[:1], [("minor",)] * 2)
    with write_session() as session:
        for case in cases:
            session.get_one(t.Conflict, case).status = "adjudicated"
        for row in session.scalars(select(t.Adjudication)):
            row.created_at = utc_now() - timedelta(weeks=5)
    draw.make_draw(DrawConfig(name="w1", num_repeats_same=1, num_repeats_other=1))
    with read_session() as session:
        repeats = {item.purpose: item.conflict_id for item in session.scalars(select(t.DrawItem))}
        other = session.scalars(select(t.Assignment.user_id).where(t.Assignment.conflict_id == repeats["repeat_other"])).one()
    read(people[0], repeats["repeat_same"], "minor")
    read(other or 0, repeats["repeat_other"], "serious")
    same, another = measures.agreement(people[0]).drift
    assert (same.num, same.num_same, same.mean_shift) == (1, 1, 0.0)
    assert (another.num, another.num_same, another.mean_shift) == (1, 0, 1.0)


def test_scorers_are_weighted_and_count_what_waits_for_an_arbiter(people: list[int]) -> None:
    with write_session() as session:
        for n in range(12):
            completion = factories.completion(session, sample=factories.sample(session, f"Question {n}"))
            for rule, score in (("emergency", 0.0 if n < 6 else 1.0), ("verbosity", 0.1)):
                session.add(t.RuleScore(completion_id=completion.id, rule_id=rule, lexicon_version="1", score=score))
            if n < 6:
                factories.conflict(session, completion=completion, teacher_value=0.1 if n < 4 else 0.9)
    draw.make_draw(DrawConfig(name="w1", num_conflicts=6, num_controls=3, num_repeats_same=0, num_repeats_other=0))
    with read_session() as session:
        items = [(item.conflict_id, item.purpose) for item in session.scalars(select(t.DrawItem))]
    for case, purpose in items:
        verdict = "unsafe" if purpose == "conflict" else "acceptable"
        for user_id in people[:2]:
            read(user_id, case, verdict, criteria={"emergency": "not_met" if purpose == "conflict" else "met"})
    rate = scorers.error_rate()
    assert rate.num_observed == 9
    assert rate.value == pytest.approx(6 / 12), "six of all twelve answers, though six of nine were read"
    by_name = {one.name: one for one in scorers.scorers()}
    assert by_name["emergency"].at_rest.recall.value == 1.0
    assert by_name["emergency"].at_rest.precision.value == 1.0
    teacher = by_name["teacher"].at_rest
    assert (teacher.num_alarms, teacher.num_bad, teacher.recall.value) == (4, 6, pytest.approx(4 / 6))
    assert by_name["verbosity"].at_rest.num_alarms == 0


def test_rulings_are_counted_for_whom_they_upheld(people: list[int]) -> None:
    from core.desk import arbitration

    case = disputed(people)
    dispute = arbitration.open_dispute(people[2], case)
    mine = next(side.letter for side in dispute.sides if side.verdict == "unsafe")
    arbitration.rule(
        people[2],
        case,
        dispute.version,
        arbitration.Ruling(dict.fromkeys(arbitration.ROWS, mine), "Needs 120."),
        proof=factories.proof(people[2]),
    )
    assert [(own.num_ruled, own.num_upheld) for own in map(measures.own_work, people[:2])] == [(1, 0), (1, 1)]


def test_how_far_a_draw_is(people: list[int]) -> None:
    case = make_case(seats=0)
    draw.make_draw(DrawConfig(name="w1"))
    (state,) = draw.draws()
    assert (state.num_items, state.num_decided, state.frame_sizes["conflict"]) == (1, 0, 1)
    for user_id in people[:2]:
        read(user_id, case, "minor")
    (state,) = draw.draws()
    assert state.by_purpose == {"conflict": (1, 1)}
    assert list(state.by_stratum.values()) == [(1, 1, 1.0)]
