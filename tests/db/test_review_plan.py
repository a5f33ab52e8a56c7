"""Several readers per case: seats, blindness between readers, third readers, stop cord, arbitration, search."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from core import adjudication, audit
from core.adjudication import Decision, Receipt
from core.desk import arbitration, lease, plan, queue, search
from core.desk.arbitration import Ruling
from core.desk.cases import reveal
from core.desk.plan import Seat
from core.desk.queue import Wish
from core.errors import Conflicting, Forbidden, UserError
from core.home import Home
from db import tables as t
from db.engine import read_session, write_session
from tests import factories


@pytest.fixture
def people(home: Home) -> list[int]:
    """Four clinicians."""
    with write_session() as session:
        return [factories.user(session, display_name=f"Dr Secret{n}").id for n in range(4)]


def make_case(text: str = "Chest pain with cold sweat since noon?", seats: int = 2, **values: Any) -> int:
    with write_session() as session:
        sample = factories.sample(session, text, split="train", language=values.pop("language", "en"), **values.pop("about", {}))
        conflict = factories.conflict(session, completion=factories.completion(session, sample=sample), **values)
        plan.give_seats(session, conflict, [Seat()] * seats)
        return conflict.id


def read(user_id: int, case: int, blind: str, signed: str | None = None, **values: Any) -> Receipt:
    form = {"verdict": blind, "dwell_ms": 900, "who_was_right": "rules", "note": "as I see it", "active_s": 40, **values}
    claim = lease.claim(user_id, case)
    mine = Decision(case, f"blind-{user_id}-{case}", form, claim.lease_token, claim.version)
    receipt = adjudication.commit_blind(user_id, mine)
    form = {**form, "verdict": signed or blind, "revision_reason": "on reflection" if signed else ""}
    return adjudication.sign(
        user_id, replace(mine, client_id=f"sign-{user_id}-{case}", form=form, version=receipt.version, proof=factories.proof(user_id))
    )


def conflict(case: int) -> t.Conflict:
    with read_session() as session:
        return session.get_one(t.Conflict, case)


def test_two_readers_who_agree_close_the_case_and_neither_sees_the_other(people: list[int]) -> None:
    case = make_case()
    assert read(people[0], case, "minor", note="first thought").status == "open"
    with pytest.raises(Conflicting, match="already_read"):
        lease.claim(people[0], case)
    claim = lease.claim(people[1], case)
    with read_session() as session:
        assert case not in queue.next_ids(session, people[0])
        with pytest.raises(Forbidden):
            reveal(session, people[1], case)
    form = {"verdict": "minor", "dwell_ms": 900}
    receipt = adjudication.commit_blind(people[1], Decision(case, "second-blind", form, claim.lease_token, claim.version))
    with read_session() as session:
        assert "first thought" not in json.dumps(reveal(session, people[1], case)), "the first reader's note stays hidden until the end"
    form["who_was_right"] = "rules"
    done = adjudication.sign(people[1], Decision(case, "second-sign", form, claim.lease_token, receipt.version, factories.proof(people[1])))
    assert done.status == "adjudicated"
    with read_session() as session:
        assert "first thought" in json.dumps(reveal(session, people[1], case))
        assert all(session.scalars(select(t.Assignment.adjudication_id).where(t.Assignment.conflict_id == case)))


def test_a_released_case_with_one_reading_stays_open(people: list[int]) -> None:
    case = make_case()
    read(people[0], case, "minor")
    claim = lease.claim(people[1], case)
    lease.release(people[1], case, claim.lease_token)
    assert conflict(case).status == "open"


def test_neighbouring_verdicts_call_a_third_reader_who_settles_it(people: list[int]) -> None:
    case = make_case()
    read(people[0], case, "acceptable")
    assert read(people[1], case, "minor").status == "open"
    assert (conflict(case).overlap, conflict(case).arbitration_at) == (3, None)
    assert read(people[2], case, "minor").status == "adjudicated"


def test_not_my_field_leaves_the_seat_to_another(people: list[int]) -> None:
    case = make_case()
    read(people[0], case, "cannot_judge", cannot_judge_reason="not_my_field")
    read(people[1], case, "minor")
    assert read(people[2], case, "minor").status == "adjudicated"


def test_named_seats_refuse_others_with_a_sentence(people: list[int]) -> None:
    with write_session() as session:
        case = factories.conflict(session)
        plan.give_seats(session, case, [Seat(user_id=people[0]), Seat(speciality="Cardiology")])
        session.get_one(t.User, people[1]).speciality = "cardiology"
    for user_id, may in zip(people, (True, True, False, False), strict=True):
        with read_session() as session:
            assert (case.id in queue.next_ids(session, user_id)) == may
        if not may:
            with pytest.raises(Conflicting, match="assigned_to_others"):
                lease.claim(user_id, case.id)
    assert lease.claim(people[1], case.id).conflict_id == case.id


def test_the_stop_cord_asks_for_three_readers_and_opens_a_closed_case(people: list[int]) -> None:
    case = make_case(seats=0)
    assert read(people[0], case, "minor").status == "adjudicated"
    adjudication.stop_cord(people[1], Decision(case, "cord-0001", {"note": "wrong dose"}))
    assert (conflict(case).status, conflict(case).overlap) == ("open", 3)
    assert read(people[1], case, "minor").status == "open"
    assert read(people[2], case, "serious").status == "open"
    assert conflict(case).arbitration_at is not None, "the last signature stands against the majority"


def disputed(people: list[int], text: str = "Chest pain with cold sweat since noon?") -> int:
    case = make_case(text)
    read(people[0], case, "acceptable", criteria={"emergency": "met"}, note="nothing missing")
    receipt = read(people[1], case, "unsafe", criteria={"emergency": "not_met", "reasoning": "met"}, note="no 120")
    assert receipt.status == "open"
    return case


def test_far_verdicts_wait_for_an_arbiter_who_was_no_reader(people: list[int]) -> None:
    case = disputed(people)
    for user_id in people:
        with read_session() as session:
            assert case not in queue.next_ids(session, user_id)
        with pytest.raises(Conflicting, match="in_arbitration"):
            lease.claim(user_id, case)
    assert [one.conflict_id for one in arbitration.waiting(people[2])] == [case]
    assert arbitration.waiting(people[0]) == []
    with pytest.raises(Forbidden, match="not_yours"):
        arbitration.open_dispute(people[0], case)
    dispute = arbitration.open_dispute(people[2], case)
    assert [side.letter for side in dispute.sides] == ["A", "B"]
    assert dispute.differs == {"verdict", "emergency", "reasoning"}
    assert "Secret" not in str(dispute), "readers are letters"
    assert "Secret" not in str(arbitration.scores(people[2], case))


def test_a_ruling_takes_sides_is_signed_and_keeps_the_old_verdicts(people: list[int]) -> None:
    case = disputed(people)
    dispute = arbitration.open_dispute(people[2], case)
    harsh = next(side.letter for side in dispute.sides if side.verdict == "unsafe")
    taken = {"verdict": "M", "emergency": harsh, "prescription": harsh, "reasoning": harsh}
    for broken, code in (
        (Ruling({}, "why"), "side_missing"),
        (Ruling(taken, " ", {"verdict": "serious"}), "reason_needed"),
        (Ruling(taken, "why", {"verdict": "awful"}), "verdict_unknown"),
        (Ruling({**taken, "verdict": "C"}, "why"), "side_missing"),
    ):
        with pytest.raises(UserError, match=code):
            arbitration.rule(people[2], case, dispute.version, broken, proof=factories.proof(people[2]))
    ruling = Ruling(taken, "Late advice, but it is there.", {"verdict": "serious"}, "Call 120 now.")
    receipt = arbitration.rule(people[2], case, dispute.version, ruling, client_id="ruling-01", proof=factories.proof(people[2]))
    assert (receipt.status, receipt.is_training_pair) == ("adjudicated", True)
    assert arbitration.rule(people[2], case, dispute.version, ruling, client_id="ruling-01", proof=factories.proof(people[2])).is_repeat
    with pytest.raises(Conflicting, match="changed"):
        arbitration.rule(people[3], case, dispute.version, ruling, proof=factories.proof(people[3]))
    with read_session() as session:
        rows = session.scalars(select(t.Adjudication).where(t.Adjudication.conflict_id == case).order_by(t.Adjudication.id)).all()
        assert [(row.stage, row.role) for row in rows] == [*[("blind", "reader"), ("signed", "reader")] * 2, ("signed", "arbiter")]
        last = rows[-1]
        assert (last.verdict, last.criteria) == ("serious", {"emergency": "not_met", "reasoning": "met"})
        assert last.taken["emergency"] == harsh
        assert "ruled on this case" in (last.signed_meaning or "")
        assert audit.verify(session) is None
    seen = arbitration.open_dispute(people[0], case)
    assert {side.blind for side in seen.sides} == {"acceptable", "unsafe"}, "the old verdicts stay visible, now to the readers too"
    assert seen.ruling is not None
    assert seen.ruling["reason"] == "Late advice, but it is there."


def test_earlier_rulings_on_similar_questions_are_listed(people: list[int]) -> None:
    first = disputed(people, "Chest pain with cold sweat since this morning?")
    version = arbitration.open_dispute(people[2], first).version
    taken = dict.fromkeys(arbitration.ROWS, "A")
    arbitration.rule(people[2], first, version, Ruling(taken, "Cold sweat decides."), proof=factories.proof(people[2]))
    near = arbitration.open_dispute(people[2], disputed(people, "Chest pain with cold sweat since noon?"))
    assert [(one.conflict_id, one.reason) for one in near.similar] == [(first, "Cold sweat decides.")]
    far = arbitration.open_dispute(people[2], disputed(people, "Itchy ear after swimming"))
    assert far.similar == ()


def test_where_nobody_else_is_left_a_reader_may_rule(home: Home) -> None:
    with write_session() as session:
        pair = [factories.user(session).id for _ in range(2)]
    case = disputed(pair)
    assert [one.conflict_id for one in arbitration.waiting(pair[0])] == [case]


def test_search_finds_chinese_and_english_before_and_after_indexing(people: list[int]) -> None:
    zh = make_case("孩子发烧三十九度，可以吃布洛芬吗？胸口痛", language="zh")
    en = make_case("My toddler has swallowed ibuprofen tablets")
    other = make_case("Itchy ear after swimming")

    def found(words: str) -> set[int]:
        with read_session() as session:
            return set(queue.next_ids(session, people[0], wish=Wish(text=words)))

    for is_indexed in (False, True):
        if is_indexed:
            assert search.refresh() == 3
            assert search.refresh() == 0
            assert found("ibuprofens toddler") == {en}, "stems"
            assert found("布芬") == set(), "pairs that do not stand together"
        assert found("布洛芬") == {zh}
        assert found("痛") == {zh}, "a last character"
        assert found("ibuprof") == {en}
        assert found("toddler ear") == set()
        assert found(f"#{other}") == {other}
        assert found('"; DROP') == set()
    late = make_case("A new question about ibuprofen")
    assert found("ibuprofen") == {en, late}, "the newest case is found before it is indexed"


def test_orders_and_filters(people: list[int]) -> None:
    calm = make_case("Calm", gap=0.9, about={"risk": "low", "category": "skin"})
    danger = make_case("Danger", gap=0.4, about={"risk": "high", "category": "chest"})
    with read_session() as session:

        def ids(order: Any = "mixed", **wish: Any) -> list[int]:
            return queue.next_ids(session, people[0], order=order, wish=Wish(**wish))

        assert ids("disagreement") == [calm, danger]
        assert ids("risk") == [danger, calm]
        assert ids("oldest") == [calm, danger]
        assert ids(topic="skin") == [calm]
        assert ids(risk="high") == [danger]
        assert queue.counts(session, people[0], wish=Wish(topic="skin"))["open"] == 1
        assert queue.topics(session) == ["chest", "skin"]
