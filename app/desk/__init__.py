"""The case desk's browser part: one Streamlit component (v2) from the plain files beside this one, no build step.

The scripts are joined in the order of their names into one module. It runs in the page itself (`isolate_styles=False`), so
every class begins with cd-, and every text of a model or a person becomes a text node. Called by pages/case_desk.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

FOLDER = Path(__file__).resolve().parent
KEY = "case_desk"


def script() -> str:
    """The whole module."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((FOLDER / "js").glob("*.js")))


_component = st.components.v2.component(
    "consilium_case_desk",
    html=(FOLDER / "desk.html").read_text(encoding="utf-8"),
    css=(FOLDER / "desk.css").read_text(encoding="utf-8"),
    js=script(),
    isolate_styles=False,
)


def mount(data: Mapping[str, Any], on_post: Callable[[], None]) -> None:
    """Show the desk. `on_post` runs when the browser posted something; `posted()` then says what."""
    _component(key=KEY, data=dict(data), on_post_change=on_post)


def posted() -> dict[str, Any] | None:
    """What the browser posted in this run: {messages, view}."""
    state = st.session_state.get(KEY)
    post = state.get("post") if isinstance(state, Mapping) else None
    return post if isinstance(post, dict) else None
