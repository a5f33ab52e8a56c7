"""Settings: own profile, password, sign-ins and tokens; users (admin); settings in force and health (engineer, admin)."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.session import current_user, language, require
from app.token_widgets import show_tokens
from app.widgets import ago, guarded, page_title
from core import accounts, audit, health, settings
from core.errors import UserError
from core.home import current_home
from core.records import Role


def show_profile() -> None:
    me = current_user()
    facts = {"name": me.display_name, "username": me.username, "role": t(f"common.role_{me.role}"), "speciality": me.speciality or "—"}
    for column, (key, value) in zip(st.columns(len(facts)), facts.items(), strict=True):
        column.caption(t(f"settings.{key}"))
        column.markdown(f"**{value}**")
    st.caption(t("settings.appearance_hint"))
    with st.form("settings_password", clear_on_submit=True, width=420):
        st.markdown(f"**{t('settings.change_password')}**")
        old = st.text_input(t("accounts.old_password"), type="password", autocomplete="current-password")
        new = st.text_input(t("accounts.new_password"), type="password", autocomplete="new-password")
        repeat = st.text_input(t("accounts.repeat_password"), type="password", autocomplete="new-password")
        if st.form_submit_button(t("settings.change_password")):
            with guarded():
                if new != repeat:
                    raise UserError("accounts.passwords_differ")
                accounts.change_password(current_user(), old, new)
                st.success(t("settings.password_changed"))


def end_sign_ins(ids: list[int]) -> None:
    with guarded():
        for session_id in ids:
            accounts.sign_out(session_id, current_user())
        st.toast(t("settings.revoked"))


def show_sign_ins() -> None:
    me = current_user()
    rows = accounts.sign_ins(me.id)
    for row in rows:
        is_this = row.id == me.session_id
        with st.container(horizontal=True, vertical_alignment="center", border=True):
            st.markdown((row.browser or "—") + (f" · **{t('settings.this_sign_in')}**" if is_this else ""))
            st.caption(f"{t('settings.signed_in_at', time=ago(row.created_at))} · {t('settings.last_seen', time=ago(row.last_seen_at))}")
            if not is_this:
                st.button(t("settings.revoke"), key=f"settings_end_{row.id}", on_click=end_sign_ins, args=([row.id],))
    others = [row.id for row in rows if row.id != me.session_id]
    if len(others) > 1:
        st.button(t("settings.revoke_all"), key="settings_end_all", on_click=end_sign_ins, args=(others,))


def show_link(sentence: str, user_id: int) -> None:
    st.success(sentence)
    st.code(f"{health.address()}/login/once/{accounts.make_link(user_id, by=require('admin').id)}", language=None)


def show_users() -> None:
    rows = accounts.list_accounts()
    table = [
        {
            t("settings.username"): a.username,
            t("settings.name"): a.display_name,
            t("settings.role"): t(f"common.role_{a.role}"),
            t("settings.speciality"): a.speciality or "—",
            t("settings.state"): t(
                "settings.disabled" if not a.is_active else "settings.active" if a.has_password else "settings.no_password_yet"
            ),
            t("settings.seen"): ago(a.last_seen_at) if a.last_seen_at else t("settings.never"),
        }
        for a in rows
    ]
    st.dataframe(table, hide_index=True, width="stretch")
    left, right = st.columns(2, gap="large")
    with left, st.form("settings_add", clear_on_submit=True):
        st.markdown(f"**{t('settings.add_user')}**")
        username = st.text_input(t("settings.username"))
        name = st.text_input(t("settings.name"))
        role = st.selectbox(t("settings.role"), list(Role), format_func=lambda r: t(f"common.role_{r}"))
        speciality = st.text_input(t("settings.speciality"))
        if st.form_submit_button(t("settings.add"), type="primary"):
            with guarded():
                user_id = accounts.create_user(username, name, str(role), by=require("admin").id, speciality=speciality)
                show_link(t("settings.added", name=username), user_id)
    with right, st.container(border=True):
        chosen = st.selectbox(t("settings.choose_user"), rows, format_func=lambda a: f"{a.username} · {a.display_name}", key="settings_who")
        wanted = st.selectbox(
            t("settings.role"),
            list(Role),
            index=list(Role).index(Role(chosen.role)),
            format_func=lambda r: t(f"common.role_{r}"),
            key="settings_role",
        )
        with st.container(horizontal=True), guarded():
            if st.button(t("settings.save_role"), key="settings_save_role", disabled=wanted == chosen.role):
                accounts.set_role(chosen.id, str(wanted), by=require("admin").id)
                st.rerun()
            if st.button(t("settings.disable" if chosen.is_active else "settings.enable"), key="settings_toggle"):
                accounts.set_active(chosen.id, not chosen.is_active, by=require("admin").id)
                st.rerun()
            is_reset = st.button(t("settings.reset"), key="settings_reset")
        if is_reset:
            with guarded():
                show_link(t("settings.reset_done", name=chosen.username), chosen.id)


def show_settings() -> None:
    st.caption(t("settings.settings_hint"))
    columns = {"name": "setting", "value": "value", "default": "default", language(): "help", "variable": "variable"}
    rows = settings.describe(current_home().settings)
    st.dataframe(
        [{t(f"settings.column_{title}"): row[key] for key, title in columns.items()} for row in rows],
        hide_index=True,
        width="stretch",
        height="content",
    )


def show_health() -> None:
    restarts = {p.name: p.num_restarts for p in health.processes()}
    for part, state in health.check().items():
        with st.container(horizontal=True, vertical_alignment="center"):
            st.badge(t(f"settings.health_{state}"), color="green" if state == "ok" else "red")
            st.markdown(t(f"settings.part_{part}"))
            if restarts.get(part):
                st.caption(t("settings.restarts", num=restarts[part]))
    st.caption(t("settings.version", version=health.version(), path=current_home().root))
    if st.button(t("settings.check_audit"), key="settings_audit"):
        with guarded():
            num, broken = audit.check_all()
            say = st.success if broken is None else st.error
            say(t("settings.audit_ok", num=num) if broken is None else t("settings.audit_broken", id=broken))


with guarded():
    role = require("clinician", "product", "engineer").role
    page_title("common.page_settings")
    parts = {"profile": show_profile, "sign_ins": show_sign_ins, "tokens": show_tokens}
    parts |= {"users": show_users} if role == "admin" else {}
    parts |= {"settings": show_settings, "health": show_health} if role in ("engineer", "admin") else {}
    for tab, show in zip(st.tabs([t(f"settings.tab_{name}") for name in parts]), parts.values(), strict=True):
        with tab, guarded():
            show()
