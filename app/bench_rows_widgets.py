"""The questions of a batch comparison: worst first, both answers side by side, one press to the desk, and the files to take away."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from app.i18n import t
from app.session import current_user, require
from app.widgets import guarded, link_to
from core import bench_batches
from core.bench_batches import CHANGES, LOST, Batch, BatchReport, Side
from core.exports.service import file_of

#: questions on screen at once
PAGE = 8
ROLES = ("product", "engineer")


def side_name(report: BatchReport, side: Side) -> str:
    one = report[side]
    return f"{one['name']} + {t('bench.evidence')}" if one["with_evidence"] else one["name"]


def show_rows(batch: Batch) -> None:
    """The questions, what was lost first; a filter by what became of them."""
    rows = bench_batches.rows_of(current_user().id, batch.id)
    counts = {c: n for c in CHANGES if (n := batch.report["changes"].get(c, 0))}
    options = [c for c in (*LOST, *CHANGES[3:]) if c in counts]
    chosen = st.pills(
        t("bench.batch_filter"),
        options,
        selection_mode="multi",
        format_func=lambda c: f"{t(f'bench.change_{c}')} ({counts[c]})",
        key=f"batch_filter_{batch.id}",
    )
    shown = [row for row in rows if not chosen or row["change"] in chosen]
    num_pages = max(1, -(-len(shown) // PAGE))
    page = 1
    if num_pages > 1:
        label = t("bench.batch_page", num=num_pages)
        page = int(st.number_input(label, 1, num_pages, 1, key=f"batch_page_{batch.id}_{'-'.join(chosen)}", width=220))
    for row in shown[(page - 1) * PAGE : page * PAGE]:
        show_row(batch, row)


def show_row(batch: Batch, row: dict[str, Any]) -> None:
    """One question with both answers; one press sends an answer to the desk."""
    colour = "red" if row["change"] in LOST else "green" if row["change"].startswith("won") else "gray"
    is_open = row["change"] == "lost_emergency"
    word = t("bench.change_" + row["change"])
    title = f":{colour}-badge[{word}] {row['row']}. {plain(row['question'][:110])}"
    with st.expander(title, expanded=is_open):
        st.text(row["question"])
        if row["danger_signs"]:
            words = [t(f"scoring.term_{term}") for term in row["danger_signs"].split(", ")]
            st.caption(t("bench.batch_signs", signs=" · ".join(words)))
        for column, side in zip(st.columns(2), ("first", "second"), strict=True):
            with column, st.container(border=True):
                show_side(batch, row, "first" if side == "first" else "second")


def show_side(batch: Batch, row: dict[str, Any], side: Side) -> None:
    st.markdown(f"**{plain(side_name(batch.report, side))}**")
    if row[f"{side}_notices"]:
        kinds = row.get(f"{side}_notice_kinds") or []  # files of earlier comparisons have none
        told = " · ".join(t(f"bench.notice_{kind}") for kind in kinds) or row[f"{side}_notices"]
        (st.error if row[f"{side}_emergency"] == "no" else st.caption)(told)
    if row[f"{side}_answer"]:
        st.text(row[f"{side}_answer"])
    else:
        st.error(t("bench.too_long" if row[f"{side}_error"] else "bench.batch_silent"), icon=":material/speaker_notes_off:")
    if row[f"{side}_thinking"]:
        with st.popover(t("bench.batch_thinking")):
            st.text(row[f"{side}_thinking"])
    for passage in row[f"{side}_evidence"]:
        st.caption(plain(passage))
    key = f"batch_case_{batch.id}_{row['row']}_{side}"
    if key in st.session_state and isinstance(st.session_state[key], int):
        st.success(t("bench.batch_filed", id=st.session_state[key]), icon=":material/health_and_safety:")
        link_to("case_desk", t("bench.batch_to_desk"), icon=":material/clinical_notes:", case=str(st.session_state[key]))
    elif row[f"{side}_answer"]:
        label = t("bench.batch_unsafe")
        st.button(
            label, key=f"{key}_press", icon=":material/health_and_safety:", on_click=file_case, args=(batch.id, row["row"], side, key)
        )


def file_case(batch_id: int, row: int, side: Side, key: str) -> None:
    with guarded():
        st.session_state[key] = bench_batches.file_case(require(*ROLES).id, batch_id, row, side)


def plain(text: str) -> str:
    """Words of a model or a person inside Markdown: nothing of it is markup."""
    return "".join("\\" + c if c in "\\`*_[]<>|#:$~" else c for c in text.replace("\n", " "))


def show_exports(batch: Batch) -> None:
    """Write the whole table as a recorded export; then its file and manifest."""
    with st.container(horizontal=True, vertical_alignment="center"):
        for form in bench_batches.EXPORT_FORMATS:
            key = f"batch_export_{batch.id}_{form}"
            if (made := st.session_state.get(key)) is not None:
                st.download_button(
                    t("bench.batch_download", form=form.upper()), partial(content_of, made), f"bench-{batch.id}.{form}", key=f"{key}_file"
                )
            elif st.button(t("bench.batch_export", form=form.upper()), key=f"{key}_make", icon=":material/download:"):
                with guarded():
                    st.session_state[key] = bench_batches.export(require(*ROLES).id, batch.id, form).id
                    st.rerun()
        link_to("exports", t("bench.batch_all_exports"))


def content_of(export_id: int) -> bytes:
    return file_of(export_id)[1].read_bytes()
