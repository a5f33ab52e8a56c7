"""Exports: choose, write, download with its manifest; and, for administrators, the webhooks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, time
from functools import partial

import streamlit as st

from app.i18n import t
from app.session import current_user, require
from app.widgets import ago, ai_notice, guarded, page_title
from core import webhooks
from core.exports import service
from core.exports.rows import Filter
from core.importing import browse


def show_form() -> None:
    kinds = list(service.FORMATS)
    kind = st.selectbox(t("exports.kind"), kinds, format_func=lambda k: t(f"exports.kind_{k}"), key="export_kind")
    columns = st.columns(4)
    form = columns[0].selectbox(t("exports.format"), service.FORMATS[kind], key=f"export_format_{kind}")
    names = ["", *(row.name for row in browse.list_datasets())]
    dataset = columns[1].selectbox(t("exports.dataset"), names, format_func=lambda n: n or t("exports.all"), key="export_dataset")
    languages = {"": t("exports.all"), "en": "English", "zh": "中文"}
    language = columns[2].selectbox(t("exports.language"), list(languages), format_func=lambda x: languages[x], key="export_language")
    since = columns[3].date_input(t("exports.since"), value=None, key="export_since")
    if st.button(t("exports.make"), type="primary", icon=":material/download:"):
        with guarded():
            start = datetime.combine(since, time(), UTC) if since else None
            made = service.make(current_user().id, kind, form, Filter(dataset, language, start))
            st.success(t("exports.made", num=made.num_rows, left_out=sum(made.manifest["num_left_out"].values())))


def content_of(export_id: int) -> bytes:
    return service.file_of(export_id)[1].read_bytes()


def show_list() -> None:
    rows = service.newest()
    if not rows:
        st.info(t("exports.empty"), icon=":material/download:")
    for row in rows:
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{t(f'exports.kind_{row.kind}')}** · {row.format} · {t('exports.rows', num=row.num_rows)}")
            st.caption(f"{ago(row.created_at)} · {row.created_by or '—'} · `{row.sha256[:12]}`")
            content = partial(content_of, row.id)
            st.download_button(t("exports.download"), content, row.file_name, row.media_type, key=f"file{row.id}")
            manifest = json.dumps(row.manifest, ensure_ascii=False, indent=1)
            st.download_button(t("exports.manifest"), manifest, f"{row.kind}-manifest.json", "application/json", key=f"manifest{row.id}")


def change(action: str, webhook_id: int) -> None:
    with guarded():
        person = require("admin")
        if action == "remove":
            webhooks.remove(person.id, webhook_id)
        else:
            webhooks.set_active(person.id, webhook_id, action == "resume")


def state_of(row: webhooks.WebhookShown) -> str:
    if not row.is_active:
        return t("webhooks.state_paused", behind=row.num_behind)
    if row.num_failures:
        return t("webhooks.state_failing", num=row.num_failures, error=row.last_error, behind=row.num_behind)
    return t("webhooks.state_ok", when=ago(row.last_delivered_at)) if row.last_delivered_at else t("webhooks.state_never")


def show_webhooks() -> None:
    st.caption(t("webhooks.about"))
    rows = webhooks.listing(current_user().id)
    if not rows:
        st.info(t("webhooks.none"), icon=":material/webhook:")
    for row in rows:
        with st.container(border=True, horizontal=True, vertical_alignment="center"):
            st.markdown(f"`{row.url}`")
            st.caption(f"{', '.join(row.events)} · {state_of(row)}")
            turn = "pause" if row.is_active else "resume"
            st.button(t(f"webhooks.{turn}"), key=f"turn{row.id}", on_click=change, args=(turn, row.id))
            st.button(t("webhooks.remove"), key=f"remove{row.id}", on_click=change, args=("remove", row.id))
    with st.form("webhook", clear_on_submit=True):
        url = st.text_input(t("webhooks.url"), placeholder="https://")
        events = st.multiselect(t("webhooks.events"), list(webhooks.EVENTS))
        if st.form_submit_button(t("webhooks.add")):
            with guarded():
                _, secret = webhooks.create(require("admin").id, url, events)
                st.code(t("webhooks.secret", secret=secret), language=None)


require("engineer", "product", "admin")
page_title("exports.title")
st.caption(t("exports.about"))
ai_notice()
if current_user().role == "admin":
    files, hooks = st.tabs([t("exports.title"), t("webhooks.title")])
    with files:
        show_form()
        show_list()
    with hooks:
        show_webhooks()
else:
    show_form()
    show_list()
