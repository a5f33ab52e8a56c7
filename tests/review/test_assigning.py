"""Giving cases to readers: who gets what, who may give, and that nobody is ranked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest
from sqlalchemy import select

from core.desk import assigning, mailbox
from core.desk.queue import Wish
from core.errors import Forbidden, UserError
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.review.conftest import SignCase


@pytest.fixture
def admin(people: tuple[int, int]) -> int:
    with write_session() as session:
        return factories.user(session, "admin").id


def seats(case: int) -> list[tuple[int | None, str | None]]:
    with read_session() as session:
        rows = session.scalars(select(t.Assignment).where(t.Assignment.conflict_id == case).order_by(t.Assignment.seat))
        return [(row.user_id, row.speciality) for row in rows]


def queue_of(person: int) -> set[int]:
    return {row["id"] for row in mailbox.deliver(person, "en")["queue"]}


def test_by_name_the_least_burdened_comes_first(people: tuple[int, int], admin: int, new_case: Callable[..., int]) -> None:
    cases = [new_case(f"Question {n}?") for n in range(5)]
    assert assigning.assign_cases(admin, cases[:1], "named", user_ids=people[:1]) == 1
    assert assigning.assign_cases(admin, cases[1:], "named", user_ids=people) == 4
    assert [seats(case)[0][0] for case in cases] == [people[0], people[1], people[0], people[1], people[0]]
    assert [(one.name, one.num_seats) for one in assigning.loads()] == [("Dr Chen", 3), ("Dr Meyer", 2)]
    assert queue_of(people[1]) == {cases[1], cases[3]}
    assert assigning.assign_cases(admin, cases, "open") == 0, "a case that has readers keeps them"


def test_overlap_and_speciality(people: tuple[int, int], admin: int, new_case: Callable[..., int]) -> None:
    with write_session() as session:
        session.get_one(t.User, people[0]).speciality = "Cardiology"
    heart, both = new_case("Heart?"), new_case("Both?")
    assigning.assign_cases(admin, [heart], "speciality", speciality="cardiology")
    assigning.assign_cases(admin, [both], "open", overlap=2)
    assert (seats(heart), seats(both)) == ([(None, "cardiology")], [(None, None), (None, None)])
    assert (queue_of(people[0]), queue_of(people[1])) == ({heart, both}, {both})
    assert assigning.specialities() == ["Cardiology"]
    assert {(one.conflict_id, one.holder) for one in assigning.given()} == {(heart, "cardiology"), (both, "")}


def test_nobody_reads_a_case_twice(people: tuple[int, int], admin: int, new_case: Callable[..., int], sign_case: SignCase) -> None:
    case = new_case()
    with write_session() as session:
        session.get_one(t.Conflict, case).overlap = 2
    sign_case(people[0], case)
    assert assigning.assign_cases(admin, [case], "named", user_ids=people, overlap=2) == 0
    assert assigning.assign_cases(admin, [case], "named", user_ids=people, overlap=1) == 1
    assert seats(case) == [(people[1], None)]


def test_free_cases_are_filtered_and_tell_no_reason(people: tuple[int, int], admin: int, new_case: Callable[..., int]) -> None:
    zh = new_case("胸口痛？", language="zh", category="heart")
    new_case("Cough?")
    found, total = assigning.free_cases(Wish(language="zh", topic="heart", risk="high"))
    assert ([one.conflict_id for one in found], total) == ([zh], 1)
    assert assigning.free_cases(Wish(), limit=1)[1] == 2
    assert {field.name for field in fields(found[0])} == {"conflict_id", "question", "topic", "language", "risk"}
    assert {field.name for field in fields(assigning.Load)} == {"user_id", "name", "speciality", "num_seats", "num_in_hand"}


@pytest.mark.parametrize(
    ("way", "values", "code"),
    [
        ("named", {"overlap": 3}, "assign.needs_people"),
        ("open", {"overlap": 4}, "assign.needs_people"),
        ("speciality", {}, "assign.needs_speciality"),
        ("open", {"cases": []}, "assign.nothing_chosen"),
        ("open", {"cases": range(1, 600)}, "assign.too_many"),
    ],
)
def test_what_cannot_be_given(
    people: tuple[int, int], admin: int, new_case: Callable[..., int], way: assigning.Way, values: dict[str, object], code: str
) -> None:
    cases = values.pop("cases", [new_case()])
    with pytest.raises(UserError) as refused:
        assigning.assign_cases(admin, cases, way, user_ids=people, **values)  # type: ignore[arg-type]
    assert refused.value.code == code


def test_only_an_administrator_gives(people: tuple[int, int], admin: int, new_case: Callable[..., int]) -> None:
    with pytest.raises(Forbidden):
        assigning.assign_cases(people[0], [new_case()], "open")
