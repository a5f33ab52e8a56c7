"""The person's menu in the top bar of every page: language, light or dark, profile, sign out.

Streamlit keeps its theme in the browser, per path. We keep it with the person: `app.index_page` writes it into the browser
before Streamlit starts, and a switch here stores it and loads the page anew.
"""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import Page

from app.i18n import t
from app.session import current_user
from core import accounts
from core.accounts import Person

#: Streamlit's captions and links are too pale for WCAG 2.2 AA (4.5 : 1) on our background
STYLE = """<style>
.st-key-user_menu { position: fixed; top: .45rem; right: 1rem; z-index: 999991; width: auto; }
.st-key-user_menu button { border: none; background: transparent; max-width: 14rem; }
.st-key-user_menu button p { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
[data-testid="stHeader"] { padding-right: 11rem; }
[data-testid="stToolbarActions"], [data-testid="stMainMenu"], [data-testid="stAppDeployButton"] { display: none; }
[data-testid="stMainBlockContainer"] { padding-top: 4.2rem; padding-bottom: 3rem; }
[data-testid="stMain"] [data-testid="stPageLink"] a { padding-left: 0; padding-right: 0; }
[data-testid="stMain"] [data-testid="stPageLink"] a:hover { background: transparent; text-decoration: underline; }
[data-testid="stMain"] [data-testid="stPageLink"] p { color: #1b6b7f; }
[data-testid="stMarkdownContainer"] p a { text-decoration: underline; }
[data-testid="stCaptionContainer"], [data-testid="stCaptionContainer"] p { color: #56636a; opacity: 1; }
@media (max-width: 640px) {
  .st-key-user_menu { right: .4rem; }
  [data-testid="stHeader"] { padding-right: 8rem; }
  .st-key-user_menu button { max-width: 8rem; }
  [data-testid="stMainBlockContainer"] { padding-left: 1rem; padding-right: 1rem; }
}
</style>"""

#: white on the light blue of the dark theme would be hard to read
DARK_STYLE = """<style>
[data-testid="stBaseButton-primary"], [data-testid="stBaseButton-primaryFormSubmit"] { color: #0d1416; }
[data-testid="stMain"] [data-testid="stPageLink"] p { color: #5fb3c6; }
[data-testid="stCaptionContainer"], [data-testid="stCaptionContainer"] p { color: #a7b3b8; opacity: 1; }
</style>"""

THEMES = ("", "light", "dark")
LANGUAGES = {"zh": "中文", "en": "English"}


def user_menu(person: Person, profile: Page | None) -> None:
    """Draw the menu. Called by the entry script before the page runs; `profile` is the page with the person's settings."""
    st.html(STYLE)
    if (person.theme or st.context.theme.type) == "dark":
        st.html(DARK_STYLE)
    with st.container(key="user_menu"), st.popover(person.display_name, icon=":material/account_circle:"):
        st.caption(f"{person.username} · {t(f'common.role_{person.role}')}")
        st.segmented_control(
            t("common.language"),
            list(LANGUAGES),
            format_func=LANGUAGES.__getitem__,
            default=person.language,
            key="menu_language",
            on_change=_set_language,
            required=True,
        )
        st.segmented_control(
            t("common.theme"),
            THEMES,
            format_func=lambda theme: t(f"common.theme_{theme or 'auto'}"),
            default=person.theme or "",
            key="menu_theme",
            on_change=_set_theme,
            required=True,
        )
        if profile is not None:
            st.page_link(profile, label=t("common.profile"), icon=":material/badge:")
        st.button(t("common.sign_out"), icon=":material/logout:", on_click=_sign_out, key="menu_sign_out", width="stretch")
    if st.session_state.pop("menu_reload", False):
        _reload(key="menu_reload_now")


def _set_language() -> None:
    accounts.set_preferences(current_user(), language=st.session_state.menu_language)


def _set_theme() -> None:
    accounts.set_preferences(current_user(), theme=st.session_state.menu_theme)
    st.session_state.menu_reload = True


def _sign_out() -> None:
    person = current_user()
    accounts.sign_out(person.session_id, person)


_reload = st.components.v2.component("consilium_reload", js="export default function () { window.location.reload() }")
