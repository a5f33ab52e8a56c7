"""Assignments: an administrator gives cases to readers by name, by speciality, or to all; counts of waiting work, no ranking."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.session import require
from app.widgets import guarded, page_title
from core.desk import assigning, plan
from core.desk.assigning import Free, Load
from core.desk.queue import Wish

DONE = "assignments_done"


def show_loads(people: list[Load]) -> None:
    st.subheader(t("assign.load"), anchor=False)
    heads = [t(f"assign.col_{name}") for name in ("name", "speciality", "seats", "in_hand")]
    rows = [(one.name, one.speciality or "–", one.num_seats, one.num_in_hand) for one in people]
    st.dataframe([dict(zip(heads, row, strict=True)) for row in rows], hide_index=True, width="stretch")
    st.caption(t("assign.load_help"))


def choose_wish() -> Wish:
    topic, language, risk = st.columns(3)
    known = assigning.topics()
    return Wish(
        topic=topic.selectbox(t("assign.topic"), [None, *known], format_func=lambda v: v or t("assign.any"), key="assign_topic"),
        language=language.selectbox(t("assign.language"), [None, "en", "zh"], format_func=language_name, key="assign_language"),
        risk=risk.selectbox(t("assign.risk"), [None, "high", "medium", "low"], format_func=risk_name, key="assign_risk"),
    )


def language_name(value: str | None) -> str:
    return {"en": "English", "zh": "中文"}.get(value or "", t("assign.any"))


def risk_name(value: str | None) -> str:
    return t(f"assign.risk_{value}") if value else t("assign.any")


def choose_cases(rows: list[Free], total: int) -> list[int]:
    """Rows that were ticked, else the first of the list."""
    st.caption(t("assign.found", num=total))
    heads = [t(f"assign.col_{name}") for name in ("case", "question", "topic", "risk")]
    lines = [dict(zip(heads, (r.conflict_id, r.question, r.topic, risk_name(r.risk)), strict=True)) for r in rows]
    table = st.dataframe(
        lines, hide_index=True, width="stretch", height=260, on_select="rerun", selection_mode="multi-row", key="assign_rows"
    )
    picked = table.selection.rows
    num = st.columns(3)[0].number_input(t("assign.how_many"), 1, len(rows), min(10, len(rows)), disabled=bool(picked), key="assign_num")
    return [rows[i].conflict_id for i in picked if i < len(rows)] or [one.conflict_id for one in rows[: int(num)]]


def give(people: list[Load]) -> None:
    st.subheader(t("assign.give"), anchor=False)
    rows, total = assigning.free_cases(choose_wish())
    if not rows:
        st.info(t("assign.none_free"), icon=":material/inbox:")
        return
    cases = choose_cases(rows, total)
    way = st.segmented_control(
        t("assign.way"), assigning.WAYS, default="named", required=True, format_func=lambda w: t(f"assign.way_{w}"), key="assign_way"
    )
    names = {one.user_id: one.name for one in people}
    chosen: list[int] = []
    speciality = ""
    if way == "named":
        chosen = st.multiselect(t("assign.people"), list(names), default=list(names), format_func=names.__getitem__, key="assign_people")
    if way == "speciality":
        speciality = st.selectbox(t("assign.speciality"), assigning.specialities(), key="assign_speciality") or ""
    overlap = st.columns(3)[0].number_input(
        t("assign.overlap"), 1, assigning.MAX_OVERLAP, min(2, max(1, len(people))), key="assign_overlap"
    )
    if st.button(t("assign.assign"), type="primary", icon=":material/assignment_ind:"):
        with guarded():
            by = require("admin").id
            num = assigning.assign_cases(by, cases, way, user_ids=chosen, speciality=speciality, overlap=int(overlap))
            st.session_state[DONE] = t("assign.done", num=num)
            st.rerun()


def show_given(people: list[Load]) -> None:
    rows = assigning.given()
    st.subheader(t("assign.given", num=len(rows)), anchor=False)
    if not rows:
        st.caption(t("assign.none_given"))
        return
    heads = [t(f"assign.col_{name}") for name in ("case", "seat", "holder", "question")]
    lines = [dict(zip(heads, (r.conflict_id, r.seat, r.holder or t("assign.anybody"), r.question), strict=True)) for r in rows]
    st.dataframe(lines, hide_index=True, width="stretch", height=260)
    names = {one.user_id: one.name for one in people}
    with st.form("assign_move", border=True):
        seat, who, field = st.columns([1, 1, 1])
        chosen = seat.selectbox(
            t("assign.seat"), rows, format_func=lambda r: f"{r.conflict_id} / {r.seat} · {r.holder or t('assign.anybody')}"
        )
        user = who.selectbox(t("assign.col_holder"), [None, *names], format_func=lambda u: names.get(u, t("assign.anybody")))
        speciality = field.selectbox(t("assign.speciality"), ["", *assigning.specialities()], format_func=lambda s: s or "–")
        if st.form_submit_button(t("assign.move")):
            with guarded():
                plan.assign(require("admin").id, chosen.conflict_id, chosen.seat, user_id=user, speciality="" if user else speciality)
                st.session_state[DONE] = t("assign.moved")
                st.rerun()


def main() -> None:
    require("admin")
    page_title("assign.title")
    st.caption(t("assign.intro"))
    if done := st.session_state.pop(DONE, None):
        st.success(done, icon=":material/check:")
    people = assigning.loads()
    show_loads(people)
    give(people)
    show_given(people)


with guarded():
    main()
