"""The calibration rooms on the Guideline page: judge, see the spread, lead on, and what the talk changed."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.session import current_user, require
from app.widgets import ai_notice, guarded, toy_notice
from core import accounts, rooms
from core.agreement import Estimate
from core.errors import UserError


def show_rooms() -> None:
    """All rooms of this person, and the form for a new one."""
    found = rooms.rooms_of(current_user().id)
    if not found:
        st.info(t("rooms.none"), icon=":material/groups:")
    for room in found:
        with st.expander(f"**{room.name}** · {t(f'rooms.stage_{room.stage}')}", expanded=room.stage != "closed"), guarded():
            show_room(room)
    with st.expander(t("rooms.new")):
        show_new()


def show_room(room: rooms.RoomShown) -> None:
    """One room in its stage."""
    stage = t(f"rooms.stage_{room.stage}")
    st.caption(t("rooms.line", stage=stage, version=room.guideline_version, host=room.host, members=", ".join(room.members)))
    if room.is_member and room.stage in rooms.ROUND:
        judge(room)
    if room.is_member and room.stage != "blind":
        show_spreads(room)
    if room.is_member and room.stage == "closed":
        show_change(room)
    if room.stage in rooms.NEXT and (room.is_host or current_user().role == "admin"):
        st.button(t(f"rooms.advance_{room.stage}"), key=f"advance{room.id}", on_click=advance, args=(room.id, room.stage))


def judge(room: rooms.RoomShown) -> None:
    """The next case of the open round, blind."""
    st.markdown(t("rooms.progress", done=room.num_done, num=len(room.case_ids), ready=room.num_ready))
    case = rooms.next_case(current_user().id, room.id)
    if case is None:
        st.success(t("rooms.all_done"))
        return
    st.markdown(f"**{t('rooms.case', id=case['id'])}**")
    for turn in case["turns"]:
        st.chat_message(turn["role"]).text(turn["text"])
    st.chat_message("assistant").text(case["answer_text"])
    ai_notice()
    if case["is_toy"]:
        toy_notice()
    with st.form(f"opinion{room.id}-{case['id']}", clear_on_submit=True):
        verdict = st.radio(t("rooms.verdict"), rooms.VERDICTS, format_func=lambda v: t(f"desk.ui_verdict_{v}"), horizontal=True, index=None)
        note = st.text_input(t("rooms.note"))
        if st.form_submit_button(t("rooms.give"), type="primary"):
            with guarded():
                rooms.give(require("clinician", "admin").id, room.id, case["id"], verdict or "", note)
                st.rerun()


def show_spreads(room: rooms.RoomShown) -> None:
    """How many chose what, most split first; never who."""
    for spread in rooms.spreads(current_user().id, room.id):
        head = t("rooms.split") if spread.is_split else t("rooms.agreed")
        with st.container(border=True):
            st.markdown(f"**{t('rooms.case', id=spread.conflict_id)}** · {head}")
            st.text(spread.question[:300])
            for counts in (spread.first, spread.second):
                if counts:
                    st.caption(" · ".join(f"{t(f'desk.ui_verdict_{v}')} {n}" for v, n in sorted(counts.items(), key=lambda x: -x[1])))
            for note in spread.notes:
                st.text(f"– {note}")


def show_change(room: rooms.RoomShown) -> None:
    """Agreement before and after."""
    change = rooms.change(current_user().id, room.id)
    for name, found in (("before", change.before), ("after", change.after)):
        st.markdown(said(name, found))
    st.caption(t("rooms.moved", num=change.num_changed, all=change.num_pairs))


def said(name: str, found: Estimate) -> str:
    if found.value is None or found.low is None or found.high is None:
        return f"{t(f'rooms.{name}', value='–', low='–', high='–')} ({t('rooms.few')})"
    return t(f"rooms.{name}", value=f"{found.value:.2f}", low=f"{found.low:.2f}", high=f"{found.high:.2f}")


def advance(room_id: int, stage: str) -> None:
    with guarded():
        rooms.advance(require("clinician", "admin").id, room_id, expected_stage=stage)


def show_new() -> None:
    """Name, cases and people of a new room."""
    people = [a for a in accounts.list_accounts() if a.is_active and a.role in rooms.HOSTS and a.id != current_user().id]
    with st.form("new_room"):
        name = st.text_input(t("rooms.name"))
        cases = st.text_input(t("rooms.cases"))
        chosen = st.multiselect(t("rooms.people"), people, format_func=lambda a: a.display_name)
        if st.form_submit_button(t("rooms.open")):
            with guarded():
                parts = [part.strip() for part in cases.replace("，", ",").split(",") if part.strip()]
                if not all(part.isdecimal() for part in parts):
                    raise UserError("rooms.bad_cases", text=cases[:80])
                rooms.open_room(require("clinician", "admin").id, name, [int(part) for part in parts], [a.id for a in chosen])
                st.rerun()
