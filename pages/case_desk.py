"""Case desk: a clinician decides where the teacher and the rules disagree.

The screen is a component in the browser; this page hands its posts to `core.desk.mailbox` and its answers back. It runs as a fragment,
so a decision re-runs these few lines and not the page. An error leaves the component standing with what it last showed.
"""

from __future__ import annotations

import streamlit as st

from app import desk
from app.session import require
from app.widgets import guarded
from core.desk import mailbox

POST = "case_desk_post"


def receive() -> None:
    """Keep what the browser posted; it is worked off inside the fragment, behind the error edge."""
    st.session_state[POST] = desk.posted()


def linked_case() -> int | None:
    """The case of a link like /desk?case=12."""
    raw = str(st.query_params.get("case", ""))
    return int(raw) if raw.isdecimal() else None


@st.fragment
def screen() -> None:
    reply: dict[str, object] = {}
    with guarded():
        person = require("clinician")
        post = st.session_state.pop(POST, None)
        reply = mailbox.deliver(person.id, person.language, post, open_case=None if post else linked_case(), session_id=person.session_id)
    desk.mount(reply, receive)


require("clinician")
desk.bring()
screen()
