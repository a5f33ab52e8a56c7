"""The case desk's browser part: plain html, css and js beside this file, no build step.

It is one Streamlit component (v2) in two pieces: `bring` sends the program and its styles once per page, `mount` is the
desk itself and carries only data, so that an answer to a decision is a few kilobytes and not the program again. It runs in the
page itself (`isolate_styles=False`): every class begins with cd-, every text of a model or a person becomes a text node.
Called by pages/case_desk.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

FOLDER = Path(__file__).resolve().parent
KEY = "case_desk"


def script() -> str:
    """The whole program: the files of js/ in the order of their names."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((FOLDER / "js").glob("*.js")))


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


_program = st.components.v2.component("consilium_desk_program", css=_read("desk.css"), js=script(), isolate_styles=False)
_desk = st.components.v2.component("consilium_desk", html=_read("desk.html"), js=_read("loader.js"), isolate_styles=False)


def bring() -> None:
    """Send the program to the browser. Call it once per page, outside of the fragment."""
    _program(key="case_desk_program")


def mount(data: Mapping[str, Any], on_post: Callable[[], None]) -> None:
    """Show the desk. `on_post` runs when the browser posted something; `posted()` then says what."""
    _desk(key=KEY, data=dict(data), on_post_change=on_post)


def posted() -> dict[str, Any] | None:
    """What the browser posted in this run: {messages, view}."""
    state = st.session_state.get(KEY)
    post = state.get("post") if isinstance(state, Mapping) else None
    return post if isinstance(post, dict) else None
