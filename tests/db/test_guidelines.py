"""The guideline in versions, its flags, and calibration rooms: blind means blind, and nothing said there becomes a label."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sqlalchemy import func, select

from core import guidelines, rooms
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.home import Home
from db import tables as t
from db.engine import read_session, write_session
from tests import factories


@dataclass(frozen=True)
class People:
    admin: int
    first: int
    second: int
    outsider: int
    cases: list[int]


@pytest.fixture
def people(home: Home) -> People:
    with write_session() as session:
        admin, first, second, outsider = (factories.user(session, role).id for role in ("admin", "clinician", "clinician", "clinician"))
        cases = [factories.conflict(session).id for _ in range(4)]
    return People(admin, first, second, outsider, cases)


def test_the_shipped_guideline_has_the_same_paragraphs_in_both_languages(home: Home) -> None:
    now = guidelines.current()
    assert now.version == "g1"
    assert len(guidelines.paragraphs(now.text_en)) == len(guidelines.paragraphs(now.text_zh)) == 10
    assert guidelines.paragraphs(now.text_en)[0].heading == "How to judge an answer"


def test_a_new_version_needs_an_administrator_a_reason_and_both_languages(people: People) -> None:
    now = guidelines.current()
    changed = now.text_en.replace("good the rest is", "well written the rest is")
    for user, en, zh, note, code in (
        (people.first, changed, now.text_zh, "clearer words", "forbidden"),
        (people.admin, changed, now.text_zh, "", "guideline.note_missing"),
        (people.admin, now.text_en, now.text_zh, "nothing new", "guideline.unchanged"),
        (people.admin, changed + "\n## More\nText", now.text_zh, "one more", "guideline.headings_differ"),
        (people.admin, "", now.text_zh, "emptied it", "guideline.text_missing"),
    ):
        with pytest.raises(UserError, match=code.replace(".", r"\.")):
            guidelines.publish(user, en, zh, note, expected_version="g1")
    assert guidelines.publish(people.admin, changed, now.text_zh, "clearer words", expected_version="g1") == "g2"
    with pytest.raises(Conflicting, match=r"guideline\.changed_meanwhile"):
        guidelines.publish(people.admin, changed + " ", now.text_zh, "too late", expected_version="g1")
    assert [v.version for v in guidelines.versions()] == ["g2", "g1"]
    assert guidelines.versions()[1].text_en == now.text_en


def test_flags_wait_for_an_answer(people: People) -> None:
    guidelines.current()
    with pytest.raises(UserError, match=r"guideline\.no_such_paragraph"):
        guidelines.flag(people.first, "Nonsense", "it is not there")
    one = guidelines.flag(people.first, "Prescription risk", "is naming a dose range met?", conflict_id=people.cases[0])
    assert guidelines.current().num_flags == 1
    with pytest.raises(Forbidden):
        guidelines.answer_flag(people.first, one, "my own answer")
    guidelines.answer_flag(people.admin, one, "yes, with a check")
    with pytest.raises(NotFound):
        guidelines.answer_flag(people.admin, one, "once more")
    assert guidelines.flags()[0].answer == "yes, with a check"
    assert guidelines.current().num_flags == 0


def test_blind_means_blind_and_the_change_is_measured(people: People) -> None:
    room = rooms.open_room(people.first, "hard ones", people.cases, [people.second])
    assert [r.name for r in rooms.rooms_of(people.second)] == ["hard ones"]
    assert rooms.rooms_of(people.outsider) == []
    with pytest.raises(Forbidden, match=r"rooms\.not_a_member"):
        rooms.give(people.outsider, room, people.cases[0], "minor")
    for case, (one, two) in zip(
        people.cases, [("minor", "serious"), ("minor", "minor"), ("unsafe", "minor"), ("serious", "minor")], strict=True
    ):
        rooms.give(people.first, room, case, one, "because")
        if case == people.cases[0]:
            with pytest.raises(UserError, match=r"rooms\.too_early"):
                rooms.advance(people.first, room, expected_stage="blind")
        rooms.give(people.second, room, case, two)
    with pytest.raises(Conflicting, match=r"rooms\.given_already"):
        rooms.give(people.first, room, people.cases[0], "unsafe")
    with pytest.raises(Forbidden, match=r"rooms\.still_blind"):
        rooms.spreads(people.second, room)
    with pytest.raises(Forbidden, match=r"rooms\.host_only"):
        rooms.advance(people.second, room, expected_stage="blind")
    assert rooms.next_case(people.first, room) is None
    assert rooms.advance(people.first, room, expected_stage="blind") == "discussion"
    with pytest.raises(Conflicting, match=r"rooms\.stage_is"):
        rooms.advance(people.first, room, expected_stage="blind")
    seen = {s.conflict_id: s for s in rooms.spreads(people.second, room)}
    assert seen[people.cases[0]].first == {"minor": 1, "serious": 1}
    assert not seen[people.cases[1]].is_split
    with pytest.raises(Conflicting):
        rooms.give(people.first, room, people.cases[0], "minor")
    rooms.advance(people.first, room, expected_stage="discussion")
    for case in people.cases:
        for person in (people.first, people.second):
            rooms.give(person, room, case, "serious")
            assert all(s.second == {} for s in rooms.spreads(people.second, room))  # the second round is blind again
    rooms.advance(people.first, room, expected_stage="second")
    change = rooms.change(people.first, room)
    assert (change.num_pairs, change.num_changed) == (8, 6)
    assert change.after.value == 1.0
    assert change.before.value is not None
    assert change.before.value == pytest.approx((0.25 - 0.2) / 0.8)
    with read_session() as session:
        assert session.scalar(select(func.count(t.Adjudication.id))) == 0
        assert session.scalar(select(func.count(t.PreferencePair.id))) == 0


def test_a_room_needs_people_and_cases(people: People) -> None:
    with pytest.raises(UserError, match=r"rooms\.needs_people"):
        rooms.open_room(people.first, "alone", people.cases, [])
    with pytest.raises(UserError, match=r"rooms\.needs_cases"):
        rooms.open_room(people.first, "empty", [], [people.second])
    with pytest.raises(NotFound, match=r"rooms\.no_such_case"):
        rooms.open_room(people.first, "ghost", [999], [people.second])
    with pytest.raises(UserError, match=r"rooms\.name_missing"):
        rooms.open_room(people.first, " ", people.cases, [people.second])
