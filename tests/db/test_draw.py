"""The weekly draw on a real database: what it chooses, what it records, and that the record gives it again."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from core import audit
from core.desk import draw, plan, queue
from core.errors import Conflicting, Forbidden, UserError
from core.home import Home
from core.jobs.configs_review import DrawConfig
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories

TOPICS = ("chest", "child", "eye")


def people(number: int, **values: Any) -> list[int]:
    with write_session() as session:
        return [factories.user(session, **values).id for _ in range(number)]


def scored_completion(session: Any, owner: t.Sample, version: t.ModelVersion, text: str) -> t.Completion:
    completion = factories.completion(session, text, sample=owner, model_version_id=version.id)
    session.add(t.RuleScore(completion_id=completion.id, rule_id="chain", lexicon_version="1", score=0.8))
    session.add(t.Judgement(completion_id=completion.id, teacher="offline", rubric_version="1", teacher_score=0.7, critique="fine"))
    return completion


@pytest.fixture
def bank(home: Home) -> list[int]:
    """60 conflicts over two kinds, three topics and two versions; 90 answers without one; 12 cases decided six weeks ago."""
    readers = people(3)
    with write_session() as session:
        owner = factories.dataset(session)
        versions = [factories.version(session, name=name) for name in ("sft-1", "rl-1")]
        for n in range(150):
            sample = factories.sample(session, f"Question {n}", dataset=owner, category=TOPICS[n % 3], split="train")
            completion = scored_completion(session, sample, versions[n % 2], f"<think>{n}</think>Answer {n}.")
            if n < 60:
                kind = "safety_disagreement" if n % 5 == 0 else "score_gap"
                factories.conflict(session, completion=completion, kind=kind, priority=n / 60, gap=0.4 + n / 200)
        for n in range(12):
            sample = factories.sample(session, f"Old question {n}", dataset=owner, split="train")
            completion = scored_completion(session, sample, versions[0], f"<think>{n}</think>Old answer {n}.")
            case = factories.conflict(session, completion=completion, status="adjudicated")
            row = t.Adjudication(conflict_id=case.id, user_id=readers[n % 2], stage="signed", client_id=f"old-{n:05d}", verdict="minor")
            row.created_at = utc_now() - timedelta(weeks=6)
            session.add(row)
    return readers


def items(name: str) -> list[t.DrawItem]:
    with read_session() as session:
        query = select(t.DrawItem).join(t.Draw, t.Draw.id == t.DrawItem.draw_id).where(t.Draw.name == name)
        return list(session.scalars(query.order_by(t.DrawItem.place)))


def record(name: str) -> t.Draw:
    with read_session() as session:
        return session.scalars(select(t.Draw).where(t.Draw.name == name)).one()


def test_the_default_draw_has_its_48_places_seats_and_probabilities(bank: list[int]) -> None:
    drawn = draw.make_draw(DrawConfig(name="w1"))
    assert drawn.num_by_purpose == {"conflict": 32, "control": 8, "repeat_same": 4, "repeat_other": 4}
    assert drawn.frame_sizes == {"conflict": 60, "control": 90, "repeat": 12}
    assert len(drawn.num_by_stratum) == 12, "every kind, topic and version is seen"
    with read_session() as session:
        for item in items("w1"):
            conflict = session.get_one(t.Conflict, item.conflict_id)
            seats = session.scalars(select(t.Assignment).where(t.Assignment.conflict_id == conflict.id)).all()
            assert conflict.status == "open"
            if item.purpose == "control":
                assert item.inclusion_probability == pytest.approx(8 / 90)
                assert (conflict.kind, conflict.teacher_value, conflict.advice) == ("control", 0.7, "fine")
            if item.purpose.startswith("repeat"):
                original = session.get_one(t.Conflict, item.repeat_of_id)
                assert item.inclusion_probability == pytest.approx(8 / 12)
                assert (conflict.kind, conflict.completion_id) == ("repeat", original.completion_id)
                (seat,) = seats
                assert (seat.user_id == int(item.stratum)) == (item.purpose == "repeat_same")
                assert seat.user_id in bank
            else:
                assert [seat.user_id for seat in seats] == [None, None]
                assert conflict.overlap == 2
            assert conflict.priority <= 1
            assert (conflict.order_gap or conflict.gap or 0) >= 0.4, "nothing in the order tells a control from a conflict"
    # over many draws of this frame, every conflict's chance adds up to 32
    with read_session() as session:
        assert audit.verify(session) is None


def test_a_draw_reproduces_from_its_record_bit_for_bit(bank: list[int]) -> None:
    draw.make_draw(DrawConfig(name="w1"))
    stored = record("w1")
    again = draw.reproduce(stored)
    assert [(i.purpose, i.stratum, i.unit_id, i.inclusion_probability) for i in again] == [
        (i.purpose, i.stratum, i.unit_id, i.inclusion_probability) for i in items("w1")
    ]
    assert draw.is_intact(stored)
    stored.frame = json.loads(json.dumps(stored.frame))
    stored.frame["control"].pop()
    assert not draw.is_intact(stored), "a changed record is seen"


def test_the_next_week_draws_others_and_a_name_is_drawn_once(bank: list[int]) -> None:
    draw.make_draw(DrawConfig(name="w1"))
    with pytest.raises(Conflicting, match="draw_exists"):
        draw.make_draw(DrawConfig(name="w1"))
    second = draw.make_draw(DrawConfig(name="w2"))
    assert {i.conflict_id for i in items("w1")} & {i.conflict_id for i in items("w2")} == set()
    assert second.num_by_purpose == {"conflict": 28, "control": 8, "repeat_same": 4, "repeat_other": 0}, "what is left"
    assert record("w1").seed != record("w2").seed


def test_named_and_speciality_seats(bank: list[int]) -> None:
    draw.make_draw(DrawConfig(name="w1", assign="named", num_repeats_same=0, num_repeats_other=0))
    with read_session() as session:
        taken: dict[int | None, int] = {}
        for item in items("w1"):
            seats = session.scalars(select(t.Assignment.user_id).where(t.Assignment.conflict_id == item.conflict_id)).all()
            assert len(set(seats)) == 2
            for user_id in seats:
                taken[user_id] = taken.get(user_id, 0) + 1
    assert set(taken) == set(bank)
    assert max(taken.values()) - min(taken.values()) <= 1, "work is shared evenly"
    with write_session() as session:
        session.execute(update(t.User).where(t.User.id == bank[0]).values(speciality="Eye"))
    draw.make_draw(DrawConfig(name="w2", assign="speciality", num_repeats_same=0, num_repeats_other=0))
    with read_session() as session:
        for item in items("w2"):
            topic = session.get_one(t.Sample, session.get_one(t.Conflict, item.conflict_id).sample_id).category
            seats = session.scalars(select(t.Assignment.speciality).where(t.Assignment.conflict_id == item.conflict_id)).all()
            assert sorted(seats, key=str) == sorted(["eye", None] if topic == "eye" else [None, None], key=str)


def test_the_queue_respects_seats_and_shows_the_draw_first(bank: list[int]) -> None:
    draw.make_draw(DrawConfig(name="w1", assign="named"))
    drawn = {item.conflict_id for item in items("w1")}
    with read_session() as session:
        for user_id in bank:
            seated = set(session.scalars(select(t.Assignment.conflict_id).where(t.Assignment.user_id == user_id)))
            ids = queue.next_ids(session, user_id)
            assert set(ids) & drawn <= seated, "nobody is offered another's seat"
            assert set(ids[: min(len(seated), len(ids))]) <= seated, "one's own seats come before the backlog"
            assert queue.counts(session, user_id)["open"] == len(seated) + 28


def test_one_reader_alone_repeats_all_and_reads_once(home: Home) -> None:
    (reader,) = people(1)
    with write_session() as session:
        factories.conflict(session)
        case = factories.conflict(session, status="adjudicated")
        row = t.Adjudication(conflict_id=case.id, user_id=reader, stage="signed", client_id="old-00001", verdict="minor")
        row.created_at = utc_now() - timedelta(weeks=5)
        session.add(row)
    drawn = draw.make_draw(DrawConfig())
    assert drawn.name == draw.week_name(utc_now())
    assert drawn.num_by_purpose == {"conflict": 1, "control": 0, "repeat_same": 1, "repeat_other": 0}
    assert drawn.overlap == 1


def test_an_empty_bank_says_what_to_do(home: Home) -> None:
    with pytest.raises(UserError, match="nothing_to_draw"):
        draw.make_draw(DrawConfig())


def test_assigning_is_for_administrators_and_free_seats(bank: list[int]) -> None:
    draw.make_draw(DrawConfig(name="w1", assign="named"))
    case = items("w1")[0].conflict_id
    (admin,) = people(1, role="admin")
    with pytest.raises(Forbidden):
        plan.assign(bank[0], case, 1, user_id=bank[1])
    with pytest.raises(UserError, match="no_such_seat"):
        plan.assign(admin, case, 99, user_id=bank[1])
    plan.assign(admin, case, 1, speciality="cardiology")
    with read_session() as session:
        seat = session.scalars(select(t.Assignment).where(t.Assignment.conflict_id == case, t.Assignment.seat == 1)).one()
        assert (seat.user_id, seat.speciality) == (None, "cardiology")
