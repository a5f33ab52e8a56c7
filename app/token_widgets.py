"""The Settings page's tab of tokens for programs: one's own, and everybody's for an administrator."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.session import current_user
from app.widgets import ago, guarded
from core import tokens

MADE = "tokens_made"


def scope_name(scope: str) -> str:
    """`Jobs: read`."""
    area, _, mode = scope.partition(":")
    return f"{t(f'tokens.area_{area}')} · {t(f'tokens.mode_{mode}')}"


def show_tokens() -> None:
    """The list with its buttons, and the form for a new one."""
    me = current_user()
    st.caption(t("tokens.about"))
    if made := st.session_state.pop(MADE, None):
        st.success(t("tokens.made"), icon=":material/key:")
        st.code(made, language=None)
    rows = [row for row in tokens.listing(me.id) if row.is_open]
    if not rows:
        st.caption(t("tokens.none"))
    for row in rows:
        with st.container(horizontal=True, vertical_alignment="center", border=True):
            owner = f" · {row.username}" if row.user_id != me.id else ""
            st.text(f"{row.name}{owner} · {row.hint}…")
            used = t("tokens.used", time=ago(row.last_used_at)) if row.last_used_at else t("tokens.unused")
            until = t("tokens.until", date=f"{row.expires_at:%Y-%m-%d}")
            st.caption(" · ".join([", ".join(map(scope_name, row.scopes)), until, used]))
            st.button(t("tokens.revoke"), key=f"tokens_revoke_{row.id}", on_click=_revoke, args=(row.id,))
    with st.form("tokens_new", clear_on_submit=True, width=560):
        st.markdown(f"**{t('tokens.new')}**")
        name = st.text_input(t("tokens.name"), max_chars=100)
        scopes = st.multiselect(t("tokens.scopes"), tokens.scopes_for(me.role), format_func=scope_name)
        days = st.number_input(t("tokens.days"), 1, tokens.MAX_DAYS, 90)
        if st.form_submit_button(t("tokens.make"), type="primary"):
            with guarded():
                by = current_user().id
                st.session_state[MADE] = tokens.create(by, name, scopes, int(days), by=by)[1]
                st.rerun()


def _revoke(token_id: int) -> None:
    with guarded():
        tokens.revoke(token_id, by=current_user().id)
        st.toast(t("tokens.revoked"))
