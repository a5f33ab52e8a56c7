"""The Guideline page with its rooms, and the Exports page with its webhooks, driven as a person would."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from core import guidelines, rooms, webhooks
from core.exports import service
from db import tables as t
from db.engine import write_session
from tests import factories


@pytest.mark.parametrize(("language", "title"), [("en", "Judging guideline"), ("zh", "评判指引")])
def test_a_clinician_reads_flags_and_calibrates(open_page: Callable[..., AppTest], language: str, title: str) -> None:
    screen = open_page("clinician", "guideline", language=language)
    assert not screen.exception
    assert screen.header[0].value == title
    assert any("120" in block.value or "g1" in block.value for block in screen.caption)
    heading = screen.selectbox[0].options[3]
    screen.selectbox[0].set_value(heading)
    screen.text_area[0].set_value("What about a fever in a newborn?")
    next(b for b in screen.button if b.label in ("Send", "提交")).click().run()
    assert not screen.exception
    assert [flag.paragraph for flag in guidelines.flags()] == [heading]


def test_a_room_is_judged_on_the_page(open_page: Callable[..., AppTest]) -> None:
    with write_session() as session:
        cases = [factories.conflict(session).id for _ in range(2)]
        other = factories.user(session).id
    screen = open_page("clinician", "guideline", language="en")
    with write_session() as session:
        me = session.query(t.User).filter(t.User.role == "clinician", t.User.id != other).one().id
    room = rooms.open_room(other, "hard ones", cases, [me])
    screen.run()
    screen.radio[0].set_value("minor")
    next(b for b in screen.button if b.label == "Store my verdict").click().run()
    assert not screen.exception
    assert next(r for r in rooms.rooms_of(me) if r.id == room).num_done == 1
    assert not any(b.label.startswith("End the blind round") for b in screen.button)  # the host leads


def test_an_engineer_exports_and_is_told_when_there_is_nothing(open_page: Callable[..., AppTest]) -> None:
    screen = open_page("engineer", "exports", language="en")
    assert not screen.exception
    next(b for b in screen.button if b.label == "Export").click().run()
    assert any("There is nothing to export" in error.value for error in screen.error)
    with write_session() as session:
        sample = factories.sample(session, split="train")
        session.add(t.PreferencePair(sample_id=sample.id, chosen="Call 120.", rejected="Rest.", source="adjudication"))
    next(b for b in screen.button if b.label == "Export").click().run()
    assert not screen.exception
    assert service.newest()[0].num_rows == 1
    assert not any("Webhooks" in tab.label for tab in screen.tabs)


def test_an_administrator_adds_a_webhook(open_page: Callable[..., AppTest]) -> None:
    screen = open_page("admin", "exports", language="zh")
    assert not screen.exception
    screen.text_input[0].set_value("https://hospital.example/hook")
    screen.multiselect[0].set_value(["stop_cord"])
    next(b for b in screen.button if b.label == "添加推送").click().run()
    assert not screen.exception
    with write_session() as session:
        admin = session.query(t.User).filter(t.User.role == "admin").one().id
    assert [row.events for row in webhooks.listing(admin)] == [("stop_cord",)]
