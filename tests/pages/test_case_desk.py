"""The case desk page under AppTest: what it hands to its component, and who may see it. The component itself: tests/e2e/test_desk.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core.accounts import Person
from core.desk import lease
from core.i18n import translate
from db.engine import write_session
from tests import factories


def handed_over(screen: AppTest) -> dict[str, Any]:
    """The data of the desk."""
    (proto,) = [c.proto for c in screen.get("bidi_component") if c.proto.component_name == "consilium_desk"]
    data: dict[str, Any] = json.loads(proto.json or proto.mixed.json)
    return data


def make_cases(number: int) -> list[int]:
    with write_session() as session:
        return [
            factories.conflict(session, completion=factories.completion(session, sample=factories.sample(session, f"Question {i}?"))).id
            for i in range(number)
        ]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_shows_the_desk_in_the_persons_language(
    open_page: Callable[..., AppTest], sign_in: Callable[..., Person], language: str
) -> None:
    person = sign_in("clinician", language)
    cases = make_cases(2)
    screen = open_page(person, "case_desk")
    assert not screen.exception
    data = handed_over(screen)
    assert {row["id"] for row in data["queue"]} == set(cases)
    assert data["strings"]["commit"] == translate("desk.ui_commit", language)
    assert data["user"]["name"] == person.display_name


def test_a_link_opens_one_case(open_page: Callable[..., AppTest], sign_in: Callable[..., Person]) -> None:
    person = sign_in("clinician")
    case = make_cases(30)[-1]
    assert handed_over(open_page(person, "case_desk", query={"case": str(case)}))["open"] == case
    assert "open" not in handed_over(open_page(person, "case_desk", query={"case": "999"}))
    assert "open" not in handed_over(open_page(person, "case_desk", query={"case": "x"}))


def test_a_case_in_a_colleagues_hand_is_not_offered(open_page: Callable[..., AppTest], sign_in: Callable[..., Person]) -> None:
    first, second = make_cases(2)
    lease.claim(sign_in("clinician").id, first)
    assert [row["id"] for row in handed_over(open_page("admin", "case_desk"))["queue"]] == [second]


@pytest.mark.parametrize("role", ["product", "engineer"])
def test_other_roles_get_nothing(open_page: Callable[..., AppTest], role: str) -> None:
    make_cases(1)
    screen = open_page(role, "case_desk")
    assert [error.message for error in screen.exception]  # the shell turns it into a sentence
    assert not screen.get("bidi_component")
