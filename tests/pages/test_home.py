"""The shell around every page, and Home."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from core.accounts import Person
from tests.pages.conftest import ROOT


@pytest.mark.parametrize(("language", "title"), [("en", "Home"), ("zh", "首页")])
def test_home_speaks_the_persons_language(open_page: Callable[..., AppTest], language: str, title: str) -> None:
    screen = open_page("clinician", "home", language=language)
    assert not screen.exception
    assert screen.header[0].value == title


def shell(person: Person) -> AppTest:
    screen = AppTest.from_file(ROOT / "app" / "streamlit_app.py", default_timeout=30)
    screen.user = {"session_id": str(person.session_id)}
    return screen.run()


def test_switching_the_language_is_remembered(sign_in: Callable[..., Person]) -> None:
    person = sign_in("product")
    screen = shell(person)
    screen.segmented_control(key="menu_language").set_value("zh").run()
    assert screen.header[0].value == "首页"
    assert shell(person).header[0].value == "首页"


def test_after_signing_out_no_page_runs(sign_in: Callable[..., Person]) -> None:
    person = sign_in("product")
    screen = shell(person)
    screen.button(key="menu_sign_out").click().run()
    assert [e.value for e in screen.error]
    assert not screen.header
