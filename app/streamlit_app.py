"""Streamlit's entry script: who is here, which pages they may see, then the page itself.

Pages are registered by absolute path and by role; a page that is not registered does not exist for that person. This is
convenience, not protection: every page and callback calls `require()` itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from app.i18n import t
from app.menu import user_menu
from app.request_log import HEADER
from app.session import find_user
from app.widgets import guarded
from core.access import Screen, screens_of
from core.logs import REQUEST_ID

ROOT = Path(__file__).resolve().parents[1]


def page_of(screen: Screen) -> Any:
    """Streamlit's page of a screen."""
    title, icon = t(f"common.page_{screen.file}"), f":material/{screen.icon}:"
    return st.Page(ROOT / "pages" / f"{screen.file}.py", title=title, icon=icon, url_path=screen.url, default=screen.file == "home")


def main() -> None:
    """Run once per interaction."""
    REQUEST_ID.set(st.context.headers.get(HEADER))  # a script's thread knows nothing of the request that its socket came with
    icon = ROOT / "assets" / "web" / "icon.png"
    st.set_page_config(page_title="Consilium", page_icon=icon, layout="wide")
    st.logo(icon)
    person = find_user()
    if person is None:
        st.error(t("errors.signed_out"))
        st.link_button(t("common.sign_in"), "/login")
        st.stop()
    pages = {screen: page_of(screen) for screen in screens_of(person.role)}
    sections: dict[str, list[Any]] = {}
    for screen, found in pages.items():
        sections.setdefault(t(f"common.menu_{screen.section}") if screen.section else "", []).append(found)
    page = st.navigation(sections, position="top")
    user_menu(person, next((p for p in pages.values() if p.url_path == "settings"), None))
    with guarded():
        page.run()


main()
