"""Settings: profile, sign-ins, users and what only some may see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from core import accounts, passwords
from core.accounts import Person
from core.errors import UserError

PASSWORD = "a calm morning round"


def tabs(screen: AppTest) -> list[str]:
    return [tab.label for tab in screen.tabs]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("role", "num_tabs"), [("clinician", 3), ("product", 3), ("engineer", 5), ("admin", 6)])
def test_each_role_sees_its_tabs(open_page: Callable[..., AppTest], role: str, num_tabs: int, language: str) -> None:
    screen = open_page(role, "settings", language=language)
    assert not screen.exception
    assert not screen.error
    assert len(tabs(screen)) == num_tabs


def add_user(screen: AppTest, username: str, name: str = "") -> None:
    """Fill the form of the Users tab and send it."""
    fields = {field.label: field for field in screen.text_input}
    fields["User name"].set_value(username)
    fields["Name"].set_value(name)
    next(button for button in screen.button if button.label == "Add").click().run()


def test_an_admin_adds_a_user_and_hands_over_a_link_that_works_once(open_page: Callable[..., AppTest]) -> None:
    screen = open_page("admin", "settings")
    add_user(screen, "Dr.Wang", "Dr Wang")
    link = screen.code[0].value
    token = link.rpartition("/")[2]
    assert accounts.link_owner(token) == "dr.wang"
    accounts.use_link(token, PASSWORD)
    with pytest.raises(UserError, match="link_used"):
        accounts.use_link(token, PASSWORD)
    assert passwords.authenticate("dr.wang", PASSWORD, "10.0.0.1") == accounts.find_user("dr.wang")


def test_a_bad_user_name_is_one_sentence_and_adds_nobody(open_page: Callable[..., AppTest]) -> None:
    screen = open_page("admin", "settings")
    add_user(screen, "no spaces please")
    assert "2 to 40 small letters" in screen.error[0].value
    assert len(accounts.list_accounts()) == 1


def test_a_disabled_account_is_out_at_once(open_page: Callable[..., AppTest], sign_in: Callable[..., Person]) -> None:
    victim = sign_in("clinician", name="aaa")
    screen = open_page("admin", "settings")
    screen.button(key="settings_toggle").click().run()
    assert accounts.person_for_session(victim.session_id) is None
    assert not next(a for a in accounts.list_accounts() if a.id == victim.id).is_active


def test_the_last_administrator_stays(open_page: Callable[..., AppTest]) -> None:
    screen = open_page("admin", "settings")
    screen.button(key="settings_toggle").click().run()
    assert "last administrator" in screen.error[0].value
    assert accounts.list_accounts()[0].is_active


def test_ending_another_sign_in(open_page: Callable[..., AppTest], sign_in: Callable[..., Person]) -> None:
    me = sign_in("clinician")
    other = accounts.person_for_token(accounts.open_session(me.id, "another browser"))
    assert other
    screen = open_page(me, "settings")
    screen.button(key=f"settings_end_{other.session_id}").click().run()
    assert accounts.person_for_session(other.session_id) is None
    assert accounts.person_for_session(me.session_id) is not None
    assert not screen.error


def test_secrets_are_masked(open_page: Callable[..., AppTest], monkeypatch: pytest.MonkeyPatch, home: object) -> None:
    from core.home import open_home
    from core.settings import load_settings

    monkeypatch.setenv("CONSILIUM_TEACHER_API_KEY", "sk-very-secret")
    open_home(load_settings())
    screen = open_page("engineer", "settings")
    shown = " ".join(str(frame.value.to_dict()) for frame in screen.dataframe)
    assert "teacher_api_key" in shown
    assert "sk-very-secret" not in shown
