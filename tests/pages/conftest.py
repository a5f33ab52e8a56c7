"""AppTest over real pages with a real signed-in account: `screen = open_page("engineer", "jobs")`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core import accounts
from core.accounts import Person
from core.home import Home, open_home

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sign_in(home: Home) -> Callable[..., Person]:
    """`sign_in("clinician", language="en")` makes an account and an open sign-in; the password is never needed here."""

    def make(role: str, language: str = "en", name: str | None = None) -> Person:
        # AppTest calls format functions outside of a script run, where the language is the settings'
        open_home(home.settings.model_copy(update={"language": language}))
        user_id = accounts.create_user(name or f"{role}-{len(accounts.list_accounts())}", f"Dr {role.title()}", role, by=None)
        person = accounts.person_for_token(accounts.open_session(user_id, "AppTest", language))
        assert person is not None
        return person

    return make


@pytest.fixture
def open_page(sign_in: Callable[..., Person]) -> Callable[..., AppTest]:
    """`open_page("engineer", "jobs", language="zh", query={"job": "1"})` runs pages/jobs.py as that person; role or Person."""

    def run(who: str | Person, page: str, language: str = "en", query: dict[str, str] | None = None) -> AppTest:
        person = who if isinstance(who, Person) else sign_in(who, language)
        screen = AppTest.from_file(ROOT / "pages" / f"{page}.py", default_timeout=30)
        screen.user = {"session_id": str(person.session_id), "username": person.username, "role": person.role}
        for name, value in (query or {}).items():
            screen.query_params[name] = value
        return screen.run()

    return run
