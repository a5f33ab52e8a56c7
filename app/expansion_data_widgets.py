"""Pieces of the expansion data page: the list of rows, one row with its score and deductions, what a set holds, a new set."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, cast

import streamlit as st

from app.i18n import t
from app.session import current_user, language, require
from app.widgets import Colour, guarded, link_to
from core.expansion import analyse, reward, schema, sets
from core.expansion.explain import explain
from core.expansion.points import MAXIMA
from core.expansion.sets import Listed, Stored
from core.i18n import error_text
from core.jobs import views as jobs
from core.model_list import list_versions

EDITORS = ("clinician", "engineer")
PAGE = 20
RATING_COLOURS: dict[str, Colour] = {"excellent": "green", "good": "blue", "acceptable": "orange", "poor": "red", "failed": "red"}
SPLITS = ("train", "val", "test")
EXAMPLE = """{"query": "gout treatment", "output": [["lex", "gout colchicine urate"], ["vec", "how is gout treated"]]}
{"query": "痛风 吃什么药", "output": [["lex", "痛风 秋水仙碱 降尿酸"], ["vec", "痛风发作时应该用哪些药"]]}"""


# --- rows -----------------------------------------------------------------------------------------------------------------


def show_rows(chosen: Listed) -> None:
    """Filters, one page of rows, and the row that was picked."""
    spoken = language()  # a select box goes on showing the words it was made with
    left, middle, right, last = st.columns([3, 1.4, 1.4, 1.6])
    search = left.text_input(t("expansion.search"), key="ed_search", placeholder=t("expansion.search_hint"))
    status = middle.selectbox(
        t("expansion.status"), ["", "kept", "rejected", "edited"], format_func=_status_word, key=f"ed_status_{spoken}"
    )
    split = right.selectbox(
        t("expansion.split"), ["", *SPLITS], format_func=lambda s: t(f"expansion.split_{s or 'all'}"), key=f"ed_split_{spoken}"
    )
    order = last.selectbox(
        t("expansion.order"), ["rubric", "number"], format_func=lambda o: t(f"expansion.order_{o}"), key=f"ed_order_{spoken}"
    )
    key = f"ed_page_{chosen.id}_{search}_{status}_{split}_{order}"
    number = st.session_state.setdefault(key, 0)
    rows, total = sets.page(
        chosen.id, search=search, status=status, split=split, order=cast("sets.Order", order), offset=number * PAGE, size=PAGE
    )
    if not rows:
        st.info(t("expansion.no_match"), icon=":material/search_off:")
        return
    progress = st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)
    picked = st.dataframe(
        [_line(one) for one in rows], hide_index=True, width="stretch", on_select="rerun", selection_mode="single-row",
        key=f"{key}_{number}", column_config={
            t("expansion.col_score"): progress,
            t("expansion.col_number"): st.column_config.NumberColumn(width=60),
            t("expansion.col_lines"): st.column_config.NumberColumn(width=60),
            t("expansion.col_query"): st.column_config.TextColumn(width="large"),
        },
    )  # fmt: skip
    back, text, forward = st.columns([1, 3, 1], vertical_alignment="center")
    text.caption(t("expansion.shown", first=number * PAGE + 1, last=number * PAGE + len(rows), total=total) + " " + t("expansion.pick"))
    if back.button(t("expansion.previous"), disabled=number == 0, width="stretch"):
        st.session_state[key] = number - 1
        st.rerun()
    if forward.button(t("expansion.next"), disabled=(number + 1) * PAGE >= total, width="stretch"):
        st.session_state[key] = number + 1
        st.rerun()
    places = cast("Any", picked).selection.rows
    with st.container(border=True):
        show_row(rows[places[0]] if places and places[0] < len(rows) else rows[0])


def _status_word(status: str) -> str:
    return t(f"expansion.status_{status or 'all'}")


def _line(one: Stored) -> dict[str, Any]:
    return {
        t("expansion.col_number"): one.row.number,
        t("expansion.col_query"): one.row.query,
        t("expansion.col_score"): None if one.rubric is None else round(one.rubric, 2),
        t("expansion.col_lines"): len(one.row.lines),
        t("expansion.col_split"): t(f"expansion.split_{one.split}") if one.split else "–",
        t("expansion.col_status"): _status_word(one.status) + (f" · {t('expansion.edits', num=one.num_edits)}" if one.num_edits else ""),
    }


def show_row(one: Stored) -> None:
    """The lines, why points are missing, and what can be done about it."""
    scored = reward.score(one.row.query, one.row.output)
    head, badge = st.columns([5, 1.2], vertical_alignment="center")
    head.markdown(f"**{one.row.number} · {_plain(one.row.query)}**")
    badge.badge(f"{t(f'expansion.rating_{scored.rating}')} · {scored.reward:.0%}", color=RATING_COLOURS[scored.rating])
    left, right = st.columns([3, 2])
    with left:
        st.code(one.row.output, language=None, wrap_lines=True)
    with right:
        has_hyde = any(line.kind == "hyde" for line in one.row.lines)
        shown = {name: f"{value:g}/{MAXIMA[name]}" if has_hyde or name != "hyde" else "–" for name, value in scored.dimensions.items()}
        parts = [f"{t(f'expansion.dim_{name}')} {value}" for name, value in shown.items()]
        st.caption(" · ".join(parts))
        owed = [d for d in scored.deductions if d.points]
        for deduction in owed:
            st.markdown(f":red[{deduction.points:+.0f}] {_plain(explain(deduction, language()))}")
        if not owed:
            st.markdown(f":material/check_circle: {t('expansion.nothing_missing')}")
    if current_user().role in (*EDITORS, "admin"):
        show_editing(one)
    show_history(one)


def show_editing(one: Stored) -> None:
    """Fix, reject or take in again; the reason is asked for every time."""
    # a new key after every edit: the boxes then show what is stored now
    key = f"ed_{one.id}_{one.num_edits}"
    with st.form(key, border=False):
        query = st.text_input(t("expansion.col_query"), one.row.query, key=f"{key}_query")
        output = st.text_area(t("expansion.lines"), one.row.output, height=150, key=f"{key}_output", help=t("expansion.lines_help"))
        reason = st.text_input(t("expansion.reason"), key=f"{key}_reason", placeholder=t("expansion.reason_hint"))
        save, other, _ = st.columns([1, 1, 2])
        is_kept = one.status == "kept"
        is_saved = save.form_submit_button(t("expansion.save"), type="primary", icon=":material/save:", width="stretch")
        word, icon = ("expansion.reject", ":material/block:") if is_kept else ("expansion.restore", ":material/undo:")
        is_moved = other.form_submit_button(t(word), icon=icon, width="stretch")
    with guarded():
        if is_saved:
            rubric = sets.fix(one.id, query, output, reason, by=require(*EDITORS).id, seen_edits=one.num_edits)
            _said(t("expansion.saved", number=one.row.number, score=f"{rubric:.0%}"))
        elif is_moved:
            act = sets.reject if is_kept else sets.restore
            act(one.id, reason, by=require(*EDITORS).id, seen_edits=one.num_edits)
            _said(t("expansion.rejected" if is_kept else "expansion.restored", number=one.row.number))


def show_history(one: Stored) -> None:
    """Who changed the row, when and why, and what it was before."""
    if not one.num_edits:
        return
    with st.expander(t("expansion.history", num=one.num_edits)):
        for edit in reversed(sets.history(one.id)):
            st.markdown(f"**{t(f'expansion.did_{edit.kind}')}** · {_plain(edit.by)} · {edit.at:%Y-%m-%d %H:%M} UTC — {_plain(edit.reason)}")
            if edit.kind == "fix":
                before, after = st.columns(2)
                for cell, state, label in ((before, edit.before, "before"), (after, edit.after, "after")):
                    cell.caption(t(f"expansion.{label}"))
                    cell.code(
                        "\n".join([state["query"], *(f"{kind}: {text}" for kind, text in state["lines"])]), language=None, wrap_lines=True
                    )


# --- the set --------------------------------------------------------------------------------------------------------------


def show_overview(chosen: Listed) -> None:
    """What the set holds, its split, and the way out."""
    rows = sets.kept_rows(chosen.id)
    if not rows:
        st.info(t("expansion.all_rejected"), icon=":material/block:")
        return
    found = _analysis(chosen.id, chosen.num_edits, json.dumps(chosen.splits, sort_keys=True))
    for code, facts in found["warnings"]:
        st.warning(t(f"expansion.{code}", **facts), icon=":material/warning:")
    tables = (("kinds", found["lines"]), ("languages", found["languages"]), ("lengths", found["lengths"]), ("ratings", found["ratings"]))
    for cell, (name, counts) in zip(st.columns(4), tables, strict=True):
        cell.dataframe(
            [{t(f"expansion.by_{name}"): t(f"expansion.{name}_{k}"), t("expansion.count"): n} for k, n in counts.items()],
            hide_index=True, width="stretch",
        )  # fmt: skip
    facts = {"families": found["families"], "near_duplicates": found["near_duplicates"], "with_names": found["with_names"]}
    st.caption(" · ".join(t(f"expansion.fact_{name}", num=num) for name, num in facts.items()))
    st.subheader(t("expansion.split_title"), anchor=False)
    st.caption(t("expansion.split_help"))
    if current_user().role in ("engineer", "admin"):
        seed, go, _ = st.columns([1, 1.5, 3], vertical_alignment="bottom")
        chosen_seed = seed.number_input(t("expansion.seed"), 0, 10_000, 0, key="ed_seed")
        if go.button(t("expansion.split_now"), icon=":material/call_split:", width="stretch"):
            counts = sets.assign_splits(chosen.id, by=require("engineer").id, seed=int(chosen_seed))
            _said(t("expansion.split_done", **counts))
    st.subheader(t("expansion.export_title"), anchor=False)
    for cell, split in zip(st.columns(4), ("", *SPLITS), strict=True):
        num = len(rows) if not split else chosen.splits.get(split, 0)
        word = t(f"expansion.split_{split or 'all'}")
        cell.download_button(
            f"{word} ({num})", _jsonl(chosen.id, split), "-".join(part for part in (chosen.name, split) if part) + ".jsonl",
            "application/jsonl", disabled=not num, width="stretch", icon=":material/download:", key=f"ed_export_{split}",
        )  # fmt: skip


@st.cache_data(max_entries=20, show_spinner=False)
def _analysis(set_id: int, num_edits: int, splits: str) -> dict[str, Any]:
    """Edits and splits are part of the key: what they change is counted anew."""
    return analyse.analyse(sets.kept_rows(set_id))


def _jsonl(set_id: int, split: str) -> str:
    return "".join(json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in sets.kept_rows(set_id, split or None))


# --- a new set ------------------------------------------------------------------------------------------------------------


def show_import() -> None:
    """A file, checked line by line before anything is stored."""
    st.caption(t("expansion.import_help"))
    with st.expander(t("expansion.form_title")):
        st.code(EXAMPLE, language="json", wrap_lines=True)
    file = st.file_uploader(t("expansion.file"), type=["jsonl", "ndjson", "txt"], key="ed_file")
    if file is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(file.name).name
        path.write_bytes(file.getvalue())
        rows, wrong = schema.check_file(path)
    if wrong:
        st.error(t("expansion.import_wrong", num=len(wrong), good=len(rows)), icon=":material/error:")
        for problem in wrong[:20]:
            st.markdown(f"- {_plain(error_text(problem.error(file.name), language()))}")
        if rows:
            good = "".join(json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in rows)
            name = f"{Path(file.name).stem}-good.jsonl"
            st.download_button(t("expansion.download_good", num=len(rows)), good, name, "application/jsonl", icon=":material/download:")
        return
    st.success(t("expansion.import_good", num=len(rows)), icon=":material/check_circle:")
    with st.form("ed_import", border=False):
        name = st.text_input(t("expansion.name"), Path(file.name).stem, key="ed_name", max_chars=100)
        with_split = st.checkbox(t("expansion.with_split"), value=True, key="ed_with_split")
        if st.form_submit_button(t("expansion.import_now"), type="primary", icon=":material/upload:"):
            by = require("engineer").id
            made = sets.store(name, rows, source=file.name, by=by)
            if with_split:
                sets.assign_splits(made, by=by)
            st.query_params["set"] = str(made)
            _said(t("expansion.imported", num=len(rows), name=name))


def show_generate() -> None:
    """A job that makes a set."""
    st.caption(t("expansion.generate_help"))
    source = st.segmented_control(
        t("expansion.source"), ["folder", "clicks", "teacher"], default="folder", required=True, key="ed_source",
        format_func=lambda s: t(f"expansion.source_{s}"),
    )  # fmt: skip
    with st.form("ed_generate", border=False):
        name = st.text_input(t("expansion.name"), key="ed_generate_name", max_chars=100)
        folder = "" if source == "clicks" else st.text_input(t("expansion.folder"), key="ed_folder", help=t("expansion.folder_help"))
        teacher = st.selectbox(t("expansion.teacher"), [v.name for v in list_versions()], key="ed_teacher") if source == "teacher" else ""
        limit = st.number_input(t("expansion.limit"), 0, 1_000_000, 2000, step=500, key="ed_limit", help=t("expansion.limit_help"))
        if st.form_submit_button(t("expansion.generate_now"), type="primary", icon=":material/play_circle:"):
            values = {"name": name, "source": source, "folder": folder, "teacher": teacher or "", "limit": int(limit)}
            job = jobs.start("expansion_data", values, require("engineer").id)
            st.success(t("expansion.generating", id=job), icon=":material/hourglass_top:")
            link_to("jobs", t("expansion.to_job", id=job), icon=":material/play_circle:", job=str(job))


def _said(text: str) -> None:
    """Say it after the page has been drawn anew."""
    st.session_state["ed_said"] = text
    st.rerun()


def _plain(text: str) -> str:
    """Text of others inside Markdown: shown as it is."""
    for sign in "\\`*_[]<>$:#":
        text = text.replace(sign, f"\\{sign}")
    return text
