"""The Models page's two forms: signing a promotion or roll-back, and registering an external endpoint.

What is pressed here is checked again by core.promotion and core.models; the forms only show what they would say.
"""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.session import require
from app.widgets import guarded
from core import promotion
from core.models import add_external

PROMOTERS = ("product", "admin")
#: (action, version, serving version as shown) of the open dialog
DIALOG = "models_dialog"


def open_dialog(action: str, name: str, expected: str | None) -> None:
    """Remember which signature is being asked for; `show_dialog` draws it, on this run and until it is signed or closed."""
    st.session_state[DIALOG] = (action, name, expected)


def close_dialog() -> None:
    """The person closed the dialog without signing."""
    st.session_state.pop(DIALOG, None)


def show_dialog() -> None:
    """Draw the open dialog, if there is one."""
    if DIALOG in st.session_state:
        action, name, expected = st.session_state[DIALOG]
        st.dialog(t(f"models.{action}_title"), width="medium", on_dismiss=close_dialog)(sign)(action, name, expected)


def sign(action: str, name: str, expected: str | None) -> None:
    """The dialog: from -> to, the gates, a reason and a signature. What is pressed here is decided again by core.promotion."""
    with guarded():
        person = require(*PROMOTERS)
        st.markdown(f"**{expected or '–'} → {name}**")
        is_open = True
        if action == "promote":
            gates = promotion.gates_for(person.id, name)
            is_open = gates.are_open
            for gate in gates.gates:
                icon = ":green[:material/check_circle:]" if gate.is_passed else ":red[:material/block:]"
                st.markdown(f"{icon} **{t('models.gate_' + gate.name)}** — {t('models.' + gate.finding, **gate.params)}")
        else:
            st.caption(t("models.roll_back_help"))
        reason = st.text_area(t("models.reason"), key="models_reason", max_chars=1000)
        signature = st.text_input(t("models.signature", name=person.display_name), key="models_signature")
        st.caption(t("models.meaning"))
        if st.button(t(f"models.sign_{action}"), key="models_sign", type="primary", disabled=not is_open):
            switch = promotion.promote if action == "promote" else promotion.roll_back
            switch(person.id, name, reason=reason, signed_name=signature, expected_serving=expected)
            close_dialog()
            st.session_state["models_done"] = t(f"models.done_{action}", name=name)
            st.rerun()


def external_form() -> None:
    """Register an OpenAI-compatible endpoint as a version. Only the name of the key's variable is asked for."""
    with st.expander(t("models.external"), icon=":material/cloud:"), st.form("models_external", border=False), guarded():
        st.caption(t("models.external_help"))
        left, right = st.columns(2)
        name = left.text_input(t("models.ext_name"), key="models_ext_name")
        url = right.text_input(t("models.ext_url"), key="models_ext_url", placeholder="https://host/v1")
        model = left.text_input(t("models.ext_model"), key="models_ext_model")
        variable = right.text_input(t("models.ext_key"), key="models_ext_key", placeholder="OPENAI_API_KEY")
        note = st.text_input(t("models.ext_note"), key="models_ext_note")
        if st.form_submit_button(t("models.ext_save")):
            add_external(require("engineer").id, name=name, url=url, model=model, key_variable=variable.strip(), note=note)
            st.session_state["models_done"] = t("models.ext_done", name=name.strip())
            st.rerun()
