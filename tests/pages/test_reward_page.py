"""The Reward page as people see it: who may look, propose and sign; sliders, evidence, the watch and its answers."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from core import hack_reports, reward_configs
from core.accounts import Person
from core.errors import Forbidden, NotFound, UserError
from core.home import Home
from core.records import RewardConfig
from core.reward_watch import WatchRow, watch
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.db.test_reward_jobs import decide

OpenPage = Callable[..., AppTest]
NEW = RewardConfig("", chain=0.30, emergency=0.30, teacher=0.20, risk_penalty=0.20)


def words(screen: AppTest) -> str:
    parts = [*screen.markdown, *screen.caption, *screen.warning, *screen.info, *screen.success, *screen.error, *screen.subheader]
    return "\n".join(str(part.value) for part in parts)


def button(screen: AppTest, key: str) -> bool:
    return any(one.key == key for one in screen.button)


@pytest.mark.parametrize(("language", "word"), [("en", "Nothing waits for a decision"), ("zh", "目前没有待决定的提议")])
def test_the_formula_in_force(open_page: OpenPage, language: str, word: str) -> None:
    screen = open_page("product", "reward", language)
    assert not screen.exception
    assert "**0.35** · " in words(screen)
    assert word in words(screen)
    assert not button(screen, "reward_calibrate")  # product reads


def test_a_clinician_has_no_such_page(open_page: OpenPage) -> None:
    screen = open_page("clinician", "reward")
    assert len(screen.error) == 1
    assert not screen.slider


def test_an_engineer_tries_weights_and_proposes_them(open_page: OpenPage) -> None:
    decide(30)
    screen = open_page("engineer", "reward")
    assert screen.button(key="reward_calibrate").disabled  # thirty cases are too few
    assert screen.metric[0].value == "0"
    before = screen.metric[1].value
    for name, value in (("chain", 0.15), ("emergency", 0.40), ("teacher", 0.20), ("risk_penalty", 0.25)):
        screen.slider(key=f"reward_slider_{name}").set_value(value)
    screen.run()
    assert not screen.exception
    assert screen.metric[1].value != before
    screen.text_input(key="reward_propose_reason").set_value("experts weigh safety more")
    next(one for one in screen.button if one.label == "Propose these weights").click().run()
    assert reward_configs.get("v2").config == RewardConfig("v2", chain=0.15, emergency=0.40, teacher=0.20, risk_penalty=0.25)
    screen.slider(key="reward_slider_emergency").set_value(0.10)
    screen.slider(key="reward_slider_risk_penalty").set_value(0.10)
    screen.slider(key="reward_slider_chain").set_value(0.50).run()
    assert "safety margin" in words(screen)
    assert not [one for one in screen.button if one.label == "Propose these weights"]


def test_an_administrator_signs_another_persons_proposal(open_page: OpenPage, sign_in: Callable[..., Person]) -> None:
    engineer, admin = sign_in("engineer"), sign_in("admin")
    version = reward_configs.propose(engineer.id, NEW, reason="experts agree more")
    assert not button(open_page(engineer, "reward"), f"reward_approve_{version}")
    screen = open_page(admin, "reward")
    screen.button(key=f"reward_approve_{version}").click().run()
    screen.text_area(key="reward_reason").set_value("the numbers convince me")
    screen.text_input(key="reward_signature").set_value("somebody else")
    screen.button(key="reward_decide").click().run()
    assert "type your name" in words(screen)
    assert reward_configs.get().config.version == "v1"
    screen.text_input(key="reward_signature").set_value(admin.display_name)
    screen.button(key="reward_decide").click().run()
    assert not screen.exception
    assert reward_configs.get().config.version == version
    own = reward_configs.propose(admin.id, RewardConfig("", conflict_threshold=0.3), reason="fewer cases missed")
    screen = open_page(admin, "reward")
    assert not button(screen, f"reward_approve_{own}")
    assert button(screen, f"reward_reject_{own}")


@pytest.fixture
def flagged(home: Home) -> str:
    """A version whose run was paid by length."""
    rows = [
        WatchRow(0.01 * (n := 40 + r * 4 + i), {"chain": 0.5, "emergency": 1.0, "risk_penalty": 0.0, "teacher": (i * 7 % 10) / 10}, n, r)
        for r in range(12)
        for i in range(24)
    ]
    report = watch(rows)
    assert "length" in {flag.code for flag in report.flags}
    with write_session() as session:
        row = factories.version(session, "rl", path="models/rl/long")
        name = row.name
    folder = home.models / "rl" / "long"
    folder.mkdir(parents=True)
    (folder / "hack_watch.json").write_text(json.dumps(report.as_dict()))
    return name


def test_a_flag_is_a_question_until_somebody_answers(home: Home, flagged: str, open_page: OpenPage, sign_in: Callable[..., Person]) -> None:
    engineer, product = sign_in("engineer"), sign_in("product")
    screen = open_page(engineer, "reward")
    assert not screen.exception
    assert "Longer answers earn more" in words(screen)
    keys = [flag.key for flag in hack_reports.newest()[0].flags]
    with pytest.raises(Forbidden):
        hack_reports.answer(product.id, flagged, keys[0], answer="harmless", reason="looks fine to me")
    with pytest.raises(UserError, match=r"reward\.reason_missing"):
        hack_reports.answer(engineer.id, flagged, keys[0], answer="harmless", reason="")
    with pytest.raises(NotFound):
        hack_reports.answer(engineer.id, flagged, "copied:copied", answer="harmless", reason="there is none")
    for key in keys:
        hack_reports.answer(engineer.id, flagged, key, answer="hack", reason="it pads the answer")
    with read_session() as session:
        version = session.get(t.ModelVersion, 1)
        assert version is not None
        assert [flag.key for flag in hack_reports.open_flags(session, version)] == keys
    hack_reports.answer(engineer.id, flagged, keys[0], answer="harmless", reason="asked for by the ward")
    with read_session() as session:
        version = session.get(t.ModelVersion, 1)
        assert version is not None
        assert [flag.key for flag in hack_reports.open_flags(session, version)] == keys[1:]
        assert session.query(t.AuditEntry).filter_by(action="answer_hack_flag").count() == len(keys) + 1
    assert "asked for by the ward" in words(open_page(product, "reward", "zh"))


def test_a_version_without_a_report_has_no_flags(home: Home) -> None:
    with write_session() as session:
        factories.version(session, "rl", path="models/rl/old")
    assert hack_reports.newest()[0].report is None
    assert hack_reports.newest()[0].flags == ()
