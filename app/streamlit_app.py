"""Streamlit's entry script: who is here, which pages they may see, then the page itself.

Pages are registered by absolute path and by role; a page that is not registered does not exist for that person. This is
convenience, not protection: every page and callback calls `require()` itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app.i18n import t
from app.menu import user_menu
from app.session import find_user
from app.widgets import guarded

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Screen:
    """One page: file in pages/, url, icon, the roles that see it (an admin sees all) and the menu it stands in ("": the bar)."""

    file: str
    url: str
    icon: str
    roles: tuple[str, ...]
    section: str = ""


EVERYONE = ("clinician", "product", "engineer")
#: what people open every day stands in the bar itself; the rest under three headings, so that the bar fits on a laptop
SCREENS = (
    Screen("home", "home", "home", EVERYONE),
    Screen("case_desk", "desk", "clinical_notes", ("clinician",)),
    Screen("bench", "bench", "compare", ("product", "engineer")),
    Screen("jobs", "jobs", "play_circle", ("engineer",)),
    Screen("ask", "ask", "search", EVERYONE),
    Screen("arbitration", "arbitration", "gavel", ("clinician",), "review"),
    Screen("guideline", "guideline", "menu_book", EVERYONE, "review"),
    Screen("followups", "followups", "task_alt", EVERYONE, "review"),
    Screen("assignments", "assignments", "assignment_ind", (), "review"),
    Screen("agreement", "agreement", "groups", EVERYONE, "review"),
    Screen("models", "models", "deployed_code", EVERYONE, "models"),
    Screen("evaluations", "evaluations", "monitoring", EVERYONE, "models"),
    Screen("retrieval", "retrieval", "stairs", EVERYONE, "models"),
    Screen("expansion", "expansion", "manage_search", ("product", "engineer"), "models"),
    Screen("expansion_data", "expansion_data", "checklist", ("clinician", "engineer"), "models"),
    Screen("training_run", "run", "query_stats", ("product", "engineer"), "models"),
    Screen("reward", "reward", "balance", ("product", "engineer"), "models"),
    Screen("teacher", "teacher", "school", ("product", "engineer"), "models"),
    Screen("data", "data", "database", ("engineer",), "data"),
    Screen("exports", "exports", "download", ("product", "engineer"), "data"),
    Screen("audit", "record", "history_edu", ("product",), "data"),
    Screen("settings", "settings", "settings", EVERYONE),
)


def page_of(screen: Screen) -> Any:
    """Streamlit's page of a screen."""
    title, icon = t(f"common.page_{screen.file}"), f":material/{screen.icon}:"
    return st.Page(ROOT / "pages" / f"{screen.file}.py", title=title, icon=icon, url_path=screen.url, default=screen.file == "home")


def may_see(screen: Screen, role: str) -> bool:
    return role == "admin" or role in screen.roles


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
    pages = {screen: page_of(screen) for screen in SCREENS if may_see(screen, person.role)}
    sections: dict[str, list[Any]] = {}
    for screen, found in pages.items():
        sections.setdefault(t(f"common.menu_{screen.section}") if screen.section else "", []).append(found)
    page = st.navigation(sections, position="top")
    user_menu(person, next((p for p in pages.values() if p.url_path == "settings"), None))
    with guarded():
        page.run()


main()
