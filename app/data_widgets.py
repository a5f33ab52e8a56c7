"""Pieces of the Data page: paging through samples, and saying which column of a file holds what."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from core.importing import browse
from core.importing.recognise import FIELDS

PAGE = 20


def show_samples(chosen: browse.DatasetRow) -> None:
    left, right = st.columns([1, 3])
    split = left.selectbox(t("data.split"), ["", *browse.splits_of(chosen.id)], format_func=lambda s: s or t("data.all"))
    search = right.text_input(t("data.search"))
    page = st.session_state.setdefault(f"data_page_{chosen.id}_{split}_{search}", 0)
    rows, total = browse.samples_page(chosen.id, split=split, search=search, page=page, size=PAGE)
    if not rows:
        st.info(t("data.no_match"))
        return
    st.dataframe(
        [
            {
                t("data.col_prompt"): s.text,
                t("data.col_reference"): s.reference or "",
                t("data.col_category"): s.category,
                t("data.col_risk"): s.risk,
                t("data.col_language"): s.language,
                t("data.col_split"): s.split,
            }
            for s in rows
        ],
        hide_index=True,
        width="stretch",
    )
    back, text, forward = st.columns([1, 3, 1])
    text.caption(t("data.shown", shown=f"{page * PAGE + 1}–{page * PAGE + len(rows)}", total=total))
    key = f"data_page_{chosen.id}_{split}_{search}"
    if back.button(t("data.newer"), disabled=page == 0):
        st.session_state[key] = page - 1
        st.rerun()
    if forward.button(t("data.older"), disabled=(page + 1) * PAGE >= total):
        st.session_state[key] = page + 1
        st.rerun()


def choose_mapping(columns: list[str], recognised: dict[str, str]) -> dict[str, str]:
    chosen = {}
    for start in range(0, len(FIELDS), 4):
        for field, cell in zip(FIELDS[start : start + 4], st.columns(4), strict=False):
            options = ["", *columns]
            index = options.index(recognised[field]) if field in recognised else 0
            value = cell.selectbox(field, options, index, format_func=lambda c: c or t("data.unused"), key=f"data_map_{field}")
            if value:
                chosen[field] = value
    return chosen
