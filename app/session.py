"""Who is looking at this screen: the bridge from the guard's headers to the pages.

The guard puts the id of the sign-in into the websocket's headers and Streamlit shows it as `st.user`. It is looked up
in the database on every run, so that a revoked sign-in, a changed role or language counts at the next click.
"""

from __future__ import annotations

from typing import Literal, cast

import streamlit as st

from core import accounts
from core.accounts import Person
from core.errors import Forbidden
from core.home import current_home


def find_user() -> Person | None:
    """The signed-in person, or None when the sign-in has ended."""
    raw = str(st.user.get("session_id") or "")
    return accounts.person_for_session(int(raw)) if raw.isdecimal() else None


def current_user() -> Person:
    """The signed-in person. Raises Forbidden("signed_out") when the sign-in has ended."""
    person = find_user()
    if person is None:
        raise Forbidden("signed_out")
    return person


def language() -> Literal["en", "zh"]:
    """The language of the current person; of the settings when nobody is signed in."""
    person = find_user()
    return cast("Literal['en', 'zh']", person.language if person else current_home().settings.language)


def require(*roles: str) -> Person:
    """The current person, if one of `roles` (an admin always is). Raises Forbidden("forbidden").

    Call it at the start of a page and again in every callback: callbacks do not pass through the entry script.
    """
    person = current_user()
    if person.role != "admin" and person.role not in roles:
        raise Forbidden("forbidden", role=person.role)
    return person
