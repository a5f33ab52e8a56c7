"""The password field of a signing dialog. Called by app.models_widgets and app.reward_widgets."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from core import signing
from core.accounts import Person


def password_field(person: Person, key: str) -> str:
    """What was typed; "" where a recent password counts. Give it to `core.signing.confirm` before anything is signed."""
    if not signing.needs_password(person):
        return ""
    return st.text_input(t("trust.password"), type="password", key=key, autocomplete="current-password")
