"""The password field of a signing dialog. Called by the Models, Reward and Record pages."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from core import signing
from core.accounts import Person
from core.signing import Proof


def ask_proof(person: Person, key: str) -> Proof:
    """The proof that the core asks for: this sign-in, and the password as typed; none is asked where a recent one counts."""
    password = ""
    if signing.needs_password(person):
        if signing.signs_at_provider(person):
            st.link_button(t("trust.again_at_provider"), "/login/oidc/start?again=1", icon=":material/login:")
        else:
            password = st.text_input(t("trust.password"), type="password", key=key, autocomplete="current-password")
    return Proof(person.session_id, password)
