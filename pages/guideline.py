"""The judging guideline: the text in force, flags, versions and editing, and the calibration rooms."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.room_widgets import show_rooms
from app.session import current_user, language, require
from app.widgets import ago, guarded, page_title
from core import guidelines


def show_text(now: guidelines.GuidelineShown) -> None:
    st.caption(t("guideline.in_force", version=now.version, date=f"{now.created_at:%Y-%m-%d}", num=now.num_decisions))
    parts = guidelines.paragraphs(now.text(language()))
    for part in parts:
        st.markdown(f"#### {part.heading}\n\n{part.text}")
    with st.form("flag", clear_on_submit=True):
        st.markdown(f"**{t('guideline.flag')}**")
        heading = st.selectbox(t("guideline.paragraph"), [part.heading for part in parts])
        note = st.text_area(t("guideline.what"))
        if st.form_submit_button(t("guideline.send")):
            with guarded():
                guidelines.flag(current_user().id, heading, note)
                st.toast(t("guideline.flagged"))


def show_flags() -> None:
    found = guidelines.flags()
    if not found:
        st.info(t("guideline.no_flags"), icon=":material/flag:")
    for flag in found:
        with st.container(border=True):
            case = f" · {t('guideline.case', id=flag.conflict_id)}" if flag.conflict_id else ""
            st.markdown(f"**{flag.paragraph}** · {flag.version}{case}")
            st.text(flag.note)
            st.caption(f"{flag.by} · {ago(flag.created_at)}")
            if flag.closed_at:
                st.text(t("guideline.answered", name=flag.closed_by, answer=flag.answer))
            elif current_user().role == "admin":
                with st.form(f"answer{flag.id}", clear_on_submit=True):
                    answer = st.text_input(t("guideline.answer"))
                    if st.form_submit_button(t("guideline.close")):
                        with guarded():
                            guidelines.answer_flag(require("admin").id, flag.id, answer)
                            st.rerun()


def show_versions(all_versions: list[guidelines.GuidelineShown]) -> None:
    now = all_versions[0]
    for one in all_versions:
        day, who = f"{one.created_at:%Y-%m-%d}", one.created_by or "–"
        line = t("guideline.version_line", version=one.version, date=day, who=who, num=one.num_decisions)
        with st.expander(line):
            st.caption(one.note)
            st.markdown(one.text(language()))
    if current_user().role != "admin":
        return
    with st.form("edit"):
        st.markdown(f"**{t('guideline.edit')}**")
        english = st.text_area(t("guideline.english"), now.text_en, height=320)
        chinese = st.text_area(t("guideline.chinese"), now.text_zh, height=320)
        note = st.text_input(t("guideline.note"))
        if st.form_submit_button(t("guideline.publish"), type="primary"):
            with guarded():
                version = guidelines.publish(require("admin").id, english, chinese, note, expected_version=now.version)
                st.success(t("guideline.published", version=version))


def main() -> None:
    require("clinician", "product", "engineer", "admin")
    page_title("guideline.title")
    now = guidelines.current()
    names = [t("guideline.tab_text"), t("guideline.tab_flags", num=now.num_flags), t("guideline.tab_versions")]
    may_meet = current_user().role in ("clinician", "admin")
    tabs = st.tabs([*names, t("guideline.tab_rooms")] if may_meet else names)
    with tabs[0]:
        show_text(now)
    with tabs[1]:
        show_flags()
    with tabs[2]:
        show_versions(guidelines.versions())
    if may_meet:
        with tabs[3]:
            show_rooms()


with guarded():
    main()
