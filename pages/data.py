"""Data: datasets with their cards, samples and refused rows; import of a file with column mapping and preview."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.data_widgets import choose_mapping, show_samples
from app.i18n import t
from app.privacy_widgets import dataset_note, preview_note, show_quarantine
from app.session import current_user, language, require
from app.widgets import guarded, link_to_job, page_title
from core.home import current_home
from core.importing import browse
from core.importing.importer import preview
from core.importing.recognise import KINDS
from core.jobs.configs import ImportConfig
from core.records import Split

ROLES = ("engineer", "admin")


def show_datasets() -> None:
    rows = browse.list_datasets()
    if not rows:
        st.info(t("data.empty"), icon=":material/database:")
        return
    table = [
        {
            t("data.col_name"): d.name,
            t("data.col_kind"): t(f"data.kind_{d.kind}"),
            t("data.col_samples"): d.num_samples,
            t("data.col_rejected"): d.num_rejected,
            t("data.col_created"): f"{d.created_at:%Y-%m-%d %H:%M}",
        }
        for d in rows
    ]
    st.dataframe(table, hide_index=True, width="stretch")
    chosen = st.selectbox(t("data.choose"), rows, format_func=lambda d: d.name, key="data_chosen")
    dataset_note(chosen.id)
    samples, card, refused = st.tabs([t("data.samples"), t("data.card"), t("data.rejected")])
    with samples:
        show_samples(chosen)
    with card:
        st.markdown(browse.card_markdown(current_home(), chosen.card_path) or "—")
    with refused:
        show_refused(chosen)


def show_refused(chosen: browse.DatasetRow) -> None:
    errors = chosen.report.get("errors", [])
    if not errors:
        st.success(t("data.none_rejected"))
        return
    head = (t("data.col_row"), t("data.col_line"), t("data.col_reason"))
    st.dataframe([dict(zip(head, (e["row"], e["line"], browse.reason_text(e, language())), strict=True)) for e in errors], hide_index=True)
    content = browse.rejected_file(current_home(), chosen.card_path)
    st.download_button(t("data.download_rejected"), content, f"{chosen.name}-rejected.jsonl", "application/jsonl")


def show_import() -> None:
    home = current_home()
    st.caption(t("data.upload_help"))
    upload = st.file_uploader(t("data.upload", size=home.settings.max_upload_mb), key="data_upload")
    if upload is None:
        return
    if st.session_state.get("data_upload_id") != upload.file_id:
        st.session_state["data_path"] = str(browse.keep_upload(home, upload.name, upload.getvalue()))
        st.session_state["data_upload_id"] = upload.file_id
    path = Path(st.session_state["data_path"])
    first = preview(path)
    kind_name = t(f"data.kind_{first.kind}")
    st.caption(t("data.recognised", kind=kind_name, columns=len(first.columns), encoding=first.encoding or "Parquet"))
    kind = st.selectbox(t("data.kind"), KINDS, KINDS.index(first.kind), format_func=lambda k: t(f"data.kind_{k}"))
    with st.expander(t("data.mapping"), expanded=bool(first.missing)):
        mapping = choose_mapping(first.columns, first.mapping)
    shown = preview(path, kind=kind, mapping=mapping)
    if shown.missing:
        st.warning(t("data.column_missing", field=", ".join(shown.missing), columns=", ".join(shown.columns)))
        return
    st.subheader(t("data.preview"))
    head = (t("data.col_row"), t("data.col_prompt"), t("data.col_reference"), t("data.col_language"), t("data.col_category"))
    rows = [(i.row, i.text, i.reference or "", str(i.language), i.category) for i in shown.items[:8]]
    st.dataframe([dict(zip(head, row, strict=True)) for row in rows], hide_index=True, width="stretch")
    preview_note(len(shown.held), len(shown.items))
    if shown.errors:
        st.caption(t("data.preview_errors"))
        names = (t("data.col_row"), t("data.col_line"), t("data.col_reason"))
        found = [(e.row, e.line, t(f"data.{e.code}", **e.params)) for e in shown.errors]
        st.dataframe([dict(zip(names, row, strict=True)) for row in found], hide_index=True)
    name = st.text_input(t("data.name"), path.stem, max_chars=100)
    left, middle, right = st.columns(3)
    source, licence = left.text_input(t("data.source")), middle.text_input(t("data.licence"))
    split = right.selectbox(t("data.split"), ["", *[s.value for s in Split]], format_func=lambda s: s or t("data.split_auto"))
    if st.button(t("data.start"), type="primary"):
        with guarded():
            require(*ROLES)
            config = ImportConfig(
                path=home.relative(path),
                dataset=name.strip() or " ",
                mapping=mapping,
                kind=kind,
                source=source,
                licence=licence,
                split=split,
            )
            job = browse.start_import(path, config, current_user().id)
            st.success(t("data.started", job=job))
            link_to_job(job, t("data.open_job"))


page_title("data.title")
with guarded():
    require(*ROLES)
    datasets_tab, import_tab, quarantine_tab = st.tabs([t("data.tab_datasets"), t("data.tab_import"), t("privacy.tab")])
    with datasets_tab:
        show_datasets()
    with import_tab, guarded():
        show_import()
    with quarantine_tab, guarded():
        show_quarantine()
