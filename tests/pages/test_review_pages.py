"""The agreement and arbitration pages under AppTest: empty, filled, by role and language, and a ruling by clicks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from core.accounts import Person
from core.desk import arbitration, draw
from core.i18n import translate
from core.jobs.configs_review import DrawConfig
from tests.db.test_measures import quick_rows
from tests.db.test_review_plan import disputed, make_case


@pytest.mark.parametrize(("role", "language"), [("clinician", "zh"), ("product", "en"), ("admin", "en")])
def test_the_agreement_page_empty_and_filled(
    open_page: Callable[..., AppTest], sign_in: Callable[..., Person], role: str, language: str
) -> None:
    person = sign_in(role, language)
    screen = open_page(person, "agreement")
    assert not screen.exception
    assert translate("agreement.empty", language) in [one.value for one in screen.info]
    pair = [sign_in("clinician").id, person.id if role != "product" else sign_in("clinician").id]
    quick_rows(pair, [("minor", "minor")] * 18 + [("minor", "acceptable")] * 6)
    make_case(seats=0)
    draw.make_draw(DrawConfig(name="w1"))
    screen = open_page(person, "agreement")
    assert not screen.exception
    first = screen.dataframe[0].value
    assert first.iloc[0, 2].startswith("0.75 [")
    assert first.iloc[2, 2] == translate("agreement.too_few", language)
    strata = [frame for frame in screen.dataframe if translate("agreement.col_stratum", language) in frame.value.columns]
    assert len(strata) == (role != "clinician"), "kinds of case would unblind a reader"


def test_a_ruling_by_clicks(open_page: Callable[..., AppTest], sign_in: Callable[..., Person]) -> None:
    people = [sign_in("clinician").id for _ in range(2)]
    arbiter = sign_in("clinician")
    case = disputed(people)
    screen = open_page(arbiter, "arbitration")
    assert not screen.exception
    assert screen.session_state["arbitration_row"] == "verdict"
    screen.button(key="take_verdict_B").click().run()
    assert screen.session_state["arbitration_row"] == "emergency"
    screen.button(key="take_emergency_own").click().run()
    screen.selectbox(key="own_emergency").set_value("not_met").run()
    screen.button(key="take_reasoning_A").click().run()
    sign = next(button for button in screen.button if button.label == translate("arbitration.sign", "en"))
    sign.click().run()
    assert [one.value for one in screen.error] == [translate("arbitration.reason_needed", "en")]
    screen.text_area(key=f"reason_{case}").set_value("No word of 120.").run()
    next(button for button in screen.button if button.label == translate("arbitration.sign", "en")).click().run()
    assert not screen.exception
    assert screen.success[0].value.startswith(f"Case {case} is ruled")
    ruling = arbitration.open_dispute(people[0], case).ruling
    assert ruling is not None
    assert ruling["taken"] == {"verdict": "B", "emergency": "M", "reasoning": "A", "prescription": "A"}
    assert ruling["criteria"]["emergency"] == "not_met"


def test_arbitration_says_when_there_is_nothing_and_refuses_readers(
    open_page: Callable[..., AppTest], sign_in: Callable[..., Person]
) -> None:
    reader, other = sign_in("clinician"), sign_in("clinician")
    sign_in("clinician")
    screen = open_page(reader, "arbitration")
    assert screen.info[0].value == translate("arbitration.empty", "en")
    case = disputed([reader.id, other.id])
    make_case()
    screen = open_page(reader, "arbitration")
    assert screen.info[0].value == translate("arbitration.empty_others", "en", num=1)
    screen = open_page(reader, "arbitration", query={"case": str(case)})
    assert screen.error[0].value == translate("arbitration.not_yours", "en", case=case)
