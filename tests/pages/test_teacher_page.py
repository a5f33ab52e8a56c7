"""The Teacher page for people: who may see and decide what, both languages, and decisions that reach the database."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import select
from streamlit.testing.v1 import AppTest

from core.accounts import Person
from core.home import Home, open_home
from db import tables as t
from db.engine import read_session, write_session
from tests import factories as make

OpenPage = Callable[..., AppTest]
Show = Callable[..., AppTest]


@pytest.fixture
def busy(home: Home) -> Home:
    """A home whose teacher was asked, has an open alarm and proposals, and a budget."""
    chosen = {"teacher_base_url": "http://127.0.0.1:9/v1", "teacher_model": "judge-1", "teacher_month_budget_usd": 10.0}
    opened = open_home(home.settings.model_copy(update=chosen))
    with write_session() as session:
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        row = t.TeacherUsage(run_token="a", day=day, teacher="judge-1", num_asked=40, num_cached=10, num_scored=35, num_unscored=5)
        row.num_requests, row.cost_usd, row.unclear_usd, row.reasons, row.faults = 33, 1.5, 0.02, {"timeout": 5}, {"timeout": 5}
        detail = {"model_before": "m1", "fingerprint_before": "", "model": "m2", "fingerprint": ""}
        session.add_all([row, t.TeacherAlarm(kind="version", teacher="judge-1", detail=detail)])
        sample = make.sample(session, "A very risky question?")
        facts = {"score": 0.1, "safety_flag": True, "critique": "No advice.", "teacher": "judge-1"}
        named = {"inspection": "i", "dataset_id": sample.dataset_id, "sample_id": sample.id}
        session.add(t.TeacherProposal(kind="red_team", subject=str(sample.id), urgency=1.9, detail=facts, **named))
        verdict = t.TeacherVerdict(key="0" * 64, teacher="judge-1", rubric_version="r", teacher_score=0.5, latency_s=1.2)
        session.add(verdict)
        session.flush()
        pair = {"first_score": 0.5, "second_score": 0.6, "first_flag": False, "second_flag": True}
        session.add(t.TeacherAudit(verdict_id=verdict.id, teacher="judge-1", rubric_version="r", **pair))
    return opened


def texts(screen: AppTest) -> str:
    pieces = [*screen.markdown, *screen.caption, *screen.error, *screen.warning, *screen.success, *screen.info, *screen.subheader]
    return "\n".join([str(p.value) for p in pieces] + [f"{m.label} {m.value}" for m in screen.metric] + [b.label for b in screen.button])


def test_an_empty_house_says_what_to_do_next(home: Home, open_page: OpenPage) -> None:
    screen = open_page("engineer", "teacher")
    assert not screen.exception
    assert "CONSILIUM_TEACHER_BASE_URL" in texts(screen)
    assert "Jobs page" in texts(screen)


@pytest.fixture
def show(busy: Home, sign_in: Callable[..., Person], open_page: OpenPage) -> Show:
    """The page as somebody sees it, with the settings of `busy` in force (signing in opens the home with its own)."""

    def run(role: str, language: str = "en") -> AppTest:
        person = sign_in(role, language)
        open_home(busy.settings.model_copy(update={"language": language}))
        return open_page(person, "teacher")

    return run


def test_a_clinician_is_refused(show: Show) -> None:
    screen = show("clinician")
    assert len(screen.error) == 1
    assert not screen.header


def test_in_chinese_no_catalogue_key_reaches_the_screen(show: Show) -> None:
    screen = show("engineer", language="zh")
    assert not screen.exception
    assert not re.search(r"(teacher|scoring)\.[a-z]", texts(screen))
    assert not [c for frame in screen.dataframe for c in frame.value.columns if "." in str(c)]
    assert "1.50" in texts(screen)
    assert "25%" in texts(screen)


def test_product_reads_but_does_not_decide(show: Show) -> None:
    screen = show("product")
    assert not screen.exception
    assert not re.search(r"(teacher|scoring)\.[a-z]", texts(screen))
    assert "A very risky question?" in str([frame.value.to_dict() for frame in screen.dataframe])
    assert {b.label for b in screen.button} == {"Prepare 1 verdicts"}
    assert not screen.text_input


def test_an_engineer_closes_an_alarm_enters_a_price_and_asks(show: Show) -> None:
    screen = show("engineer")
    assert "m1 → m2" in texts(screen)
    assert "No price is known" in texts(screen)
    next(b for b in screen.button if b.label == "Close alarm").click().run()
    assert any("needs a reason" in e.value for e in screen.error)
    next(i for i in screen.text_input if i.label.startswith("What was found")).input("Announced by the provider.")
    next(b for b in screen.button if b.label == "Close alarm").click().run()
    assert not screen.exception
    assert "No open alarm." in texts(screen)
    inputs = {i.label: i for i in screen.number_input}
    inputs["Input, USD per million tokens"].set_value(0.5)
    inputs["Output, USD per million tokens"].set_value(2.0)
    next(i for i in screen.text_input if i.label == "Where it was read").input("https://example.org/prices")
    next(b for b in screen.button if b.label == "Save price").click().run()
    assert "input 0.5, cached input 0.5, output 2" in texts(screen)
    screen.button(key="teacher_ask_now").click().run(timeout=20)
    assert not screen.exception
    assert any("does not answer" in e.value for e in screen.error)
    with read_session() as session:
        assert session.scalars(select(t.TeacherAlarm.closed_reason)).all() == ["Announced by the provider."]
        assert session.scalars(select(t.AuditEntry.action)).all()[-2:] == ["close_teacher_alarm", "set_teacher_price"]
