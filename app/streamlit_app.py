"""Streamlit's entry script: who is here, which pages they may see, then the page itself.

Pages are registered by absolute path and by role; a page that is not registered does not exist for that person. This is
convenience, not protection: every page and callback calls `require()` itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from app.i18n import t
from app.menu import user_menu
from app.session import find_user
from app.widgets import guarded

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Screen:
    """One page: file in pages/, url, icon and the roles that see it (an admin sees all)."""

    file: str
    url: str
    icon: str
    roles: tuple[str, ...]


EVERYONE = ("clinician", "product", "engineer")
SCREENS = (
    Screen("home", "home", "home", EVERYONE),
    Screen("case_desk", "desk", "clinical_notes", ("clinician",)),
    Screen("arbitration", "arbitration", "gavel", ("clinician",)),
    Screen("agreement", "agreement", "groups", EVERYONE),
    Screen("bench", "bench", "compare", ("product", "engineer")),
    Screen("models", "models", "deployed_code", EVERYONE),
    Screen("jobs", "jobs", "play_circle", ("engineer",)),
    Screen("training_run", "run", "query_stats", ("product", "engineer")),
    Screen("data", "data", "database", ("engineer",)),
    Screen("guideline", "guideline", "menu_book", EVERYONE),
    Screen("exports", "exports", "download", ("product", "engineer")),
    Screen("ask", "ask", "search", EVERYONE),
    Screen("reward", "reward", "balance", ("product", "engineer")),
    Screen("evaluations", "evaluations", "monitoring", EVERYONE),
    Screen("teacher", "teacher", "school", ("product", "engineer")),
    Screen("settings", "settings", "settings", EVERYONE),
)


def main() -> None:
    """Run once per interaction."""
    icon = ROOT / "assets" / "web" / "icon.png"
    st.set_page_config(page_title="Consilium", page_icon=icon, layout="wide")
    st.logo(icon)
    person = find_user()
    if person is None:
        st.error(t("errors.signed_out"))
        st.link_button(t("common.sign_in"), "/login")
        st.stop()
    pages = [
        st.Page(
            ROOT / "pages" / f"{screen.file}.py",
            title=t(f"common.page_{screen.file}"),
            icon=f":material/{screen.icon}:",
            url_path=screen.url,
            default=screen.file == "home",
        )
        for screen in SCREENS
        if (person.role == "admin" or person.role in screen.roles) and (ROOT / "pages" / f"{screen.file}.py").is_file()
    ]
    page = st.navigation(pages, position="top")
    user_menu(person, next((p for p in pages if p.url_path == "settings"), None))
    with guarded():
        page.run()


main()
