"""The bench's batch mode: start a comparison, watch it run, and read what was lost, worst first."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.bench_rows_widgets import ROLES, show_exports, show_rows, side_name
from app.i18n import t
from app.session import current_user, language, require
from app.widgets import ago, ai_notice, guarded, status_badge, toy_notice
from core import bench_batches, bench_questions, model_list
from core.bench_batches import Batch, BatchListed, BatchReport
from core.bench_slices import MIN_SLICE
from core.errors import UserError
from core.i18n import error_text
from core.records import FINAL_JOB_STATUSES

#: how often a running comparison is looked at
REFRESH_S = 2.0


def show_batches() -> None:
    """The whole view."""
    st.caption(t("bench.batch_help"))
    rows = bench_batches.list_batches(current_user().id)
    with st.expander(t("bench.batch_new"), icon=":material/playlist_play:", expanded=not rows), guarded():
        show_form()
    if not rows:
        st.info(t("bench.batch_empty"), icon=":material/table_view:")
        return
    if any(row.status not in FINAL_JOB_STATUSES for row in rows):
        st.fragment(show_running, run_every=REFRESH_S)()
    for row in rows:
        if row.status in FINAL_JOB_STATUSES and row.batch_id is None:
            show_failed(row)
            break
    finished = [row for row in rows if row.batch_id is not None]
    if finished:
        show_batch(choose(finished))


def show_form() -> None:
    """What to compare, on which questions."""
    versions = [v.name for v in model_list.list_versions()]
    sets = bench_questions.datasets()
    if not versions or not sets:
        st.info(t("bench.batch_nothing"), icon=":material/info:")
        return
    one, two = model_list.default_pair(model_list.list_versions())
    service = model_list.service()
    old = service.name if service else one
    columns = st.columns(2)
    sides: dict[str, Any] = {}
    for column, key, name in ((columns[0], "first", old), (columns[1], "second", two if two != old else one)):
        with column:
            index = versions.index(name) if name in versions else 0
            sides[key] = st.selectbox(t(f"bench.batch_{key}"), versions, index=index, key=f"batch_{key}")
            sides[f"{key}_with_evidence"] = st.checkbox(t("bench.with_evidence"), key=f"batch_{key}_evidence")
    left, middle, right = st.columns(3)
    dataset = left.selectbox(t("bench.dataset"), sets, key="batch_dataset")
    found = bench_questions.splits_of(dataset)
    splits = middle.multiselect(
        t("bench.batch_splits"),
        list(found),
        default=[s for s in ("test",) if s in found] or list(found)[:1],
        format_func=lambda s: f"{s} ({found[s]})",
        key=f"batch_splits_{dataset}",
    )
    number = right.number_input(t("bench.batch_number"), min_value=0, value=100, step=10, key="batch_number")
    a, b, c, d = st.columns(4)
    any_word = t("bench.any")
    spoken = a.selectbox(
        t("bench.language"), ["", "zh", "en"], format_func=lambda x: {"": any_word, "zh": "中文", "en": "English"}[x], key="batch_language"
    )
    risks = ["", "high", "medium", "low"]
    risk = b.selectbox(t("bench.risk"), risks, format_func=lambda x: t(f"bench.risk_{x}") if x else any_word, key="batch_risk")
    temperature = c.number_input(t("bench.temperature"), 0.0, 1.5, 0.2, 0.1, key="batch_temperature")
    seed = d.number_input(t("bench.seed"), 0, 2**31 - 1, 7, key="batch_seed")
    with_teacher = st.toggle(t("bench.batch_teacher"), key="batch_teacher")
    if st.button(t("bench.batch_start"), type="primary", icon=":material/play_arrow:", key="batch_start", disabled=not splits):
        config = dict(
            name=f"{sides['first']} → {sides['second']} · {dataset}",
            dataset=dataset,
            splits=splits,
            language=spoken,
            risk=risk,
            num_samples=int(number),
            temperature=float(temperature),
            seed=int(seed),
            with_teacher=with_teacher,
            **sides,
        )
        bench_batches.start(require(*ROLES).id, config)
        st.rerun()


def show_running() -> None:
    """Comparisons that have not ended, with how far they are; the page is drawn anew when one ends."""
    with guarded():
        rows = [r for r in bench_batches.list_batches(current_user().id) if r.status not in FINAL_JOB_STATUSES]
        for row in rows:
            with st.container(border=True):
                with st.container(horizontal=True, vertical_alignment="center"):
                    status_badge(row.status)
                    st.markdown(f"**{row.name}**")
                done, total = row.progress
                if total:
                    st.progress(min(1.0, done / total), t("bench.batch_progress", done=done, total=total))
                elif row.status == "queued":
                    st.caption(t("bench.batch_queued"))
        before = st.session_state.get("batch_running")
        st.session_state["batch_running"] = [r.job_id for r in rows]
        if before is not None and before != st.session_state["batch_running"]:
            st.rerun()


def show_failed(row: BatchListed) -> None:
    """The newest comparison that ended without a result, and why."""
    reason = ""
    if row.error.get("code"):
        reason = error_text(UserError(row.error["code"], **row.error.get("params", {})), language())
    st.warning(f"{t('bench.batch_failed', name=row.name)} {reason}", icon=":material/error:")


def choose(rows: list[BatchListed]) -> Batch:
    """Which comparison is open; its number is in the address (?batch=), so that it can be sent to somebody."""
    asked = st.query_params.get("batch", "")
    ids = [row.batch_id or 0 for row in rows]
    names = {row.batch_id or 0: f"{row.batch_id} · {row.name} · {row.created_at:%Y-%m-%d %H:%M}" for row in rows}
    index = ids.index(int(asked)) if asked.isdecimal() and int(asked) in ids else 0
    chosen = st.selectbox(t("bench.batch_choose"), ids, index=index, format_func=names.__getitem__, key="batch_chosen")
    return bench_batches.open_batch(current_user().id, chosen)


def show_batch(batch: Batch) -> None:
    """Harm first, then what else changed, slices, the questions, and how it was made."""
    report = batch.report
    show_verdict(report)
    ai_notice()
    if report["first"]["is_toy"] or report["second"]["is_toy"]:
        toy_notice()
    show_outcomes(report)
    show_slices(report)
    show_rows(batch)
    show_exports(batch)
    made_with(batch)


def show_verdict(report: BatchReport) -> None:
    """Was a danger sign missed that the older one met, and how sure can one be?"""
    lost, red = report["changes"]["lost_emergency"], report["num_red_flag"]
    words = {"n": red, "first": side_name(report, "first"), "second": side_name(report, "second"), "bound": f"{report['bound']:.1%}"}
    if not red:
        st.info(t("bench.batch_no_red_flag"), icon=":material/info:")
    elif lost:
        st.error(t("bench.batch_lost", num=lost, **words), icon=":material/emergency_home:")
    else:
        st.success(t("bench.batch_none_lost", **words), icon=":material/verified_user:")
    for side in ("first", "second"):
        if num := report[side]["num_unanswered"]:
            st.warning(t("bench.batch_unanswered", num=num, name=side_name(report, side)), icon=":material/speaker_notes_off:")


def show_outcomes(report: BatchReport) -> None:
    """Paired outcomes with their intervals."""
    heads = [t(f"bench.col_{c}") for c in ("outcome", "n", "both", "only_first", "only_second", "neither", "difference", "p")]
    lines = []
    for o in report["outcomes"]:
        known = o["n"] >= MIN_SLICE
        interval = f"{o['difference']:+.3f} [{o['ci_low']:+.3f}, {o['ci_high']:+.3f}]" if known else t("bench.too_few")
        cells = (
            o["n"],
            o["both"],
            o["only_baseline"],
            o["only_candidate"],
            o["neither"],
            interval,
            ("< 0.001" if o["p_value"] < 0.001 else f"{o['p_value']:.3f}") if known else "–",
        )
        lines.append(dict(zip(heads, (t(f"bench.outcome_{o['outcome']}"), *cells), strict=True)))
    st.dataframe(lines, hide_index=True, width="stretch")
    if not report["teacher"]:
        st.caption(t("bench.batch_no_teacher"))


def show_slices(report: BatchReport) -> None:
    """Every group of questions with its count; a number and an interval from MIN_SLICE on."""
    heads = [t(f"bench.col_{c}") for c in ("slice", "n", "lost", "won", "reward_difference")]
    lines = []
    for s in report["slices"]:
        number = t("bench.too_few")
        if s["difference"] is not None:
            number = f"{s['difference']:+.3f} [{s['ci_low']:+.3f}, {s['ci_high']:+.3f}]"
        name = slice_name(s["by"], s["value"])
        lines.append(dict(zip(heads, (name, s["n"], s["num_lost"], s["num_won"], number), strict=True)))
    if lines:
        with st.expander(t("bench.slices"), icon=":material/donut_small:"):
            st.dataframe(lines, hide_index=True, width="stretch")
            st.caption(t("bench.slices_help", num=MIN_SLICE))


def slice_name(by: str, value: str) -> str:
    """A group in words: `Topic: cardiovascular`, `Pregnancy`."""
    if by in ("pregnancy", "child", "drug"):
        return t(f"bench.slice_{by}")
    if by == "emergency":
        return t(f"bench.slice_emergency_{value}")
    words = {"zh": "中文", "en": "English"}.get(value, value) if by == "language" else t(f"bench.risk_{value}") if by == "risk" else value
    return f"{t(f'bench.slice_{by}')}: {words}"


def made_with(batch: Batch) -> None:
    """Everything that another person needs to make the same comparison again."""
    r = batch.report
    teacher = (
        r["teacher"] + (f" ({t('bench.batch_offline')})" if r["teacher_is_offline"] else "") if r["teacher"] else t("bench.batch_none")
    )
    hashes = {side: r[side]["content_hash"][:8] or "–" for side in ("first", "second")}
    words = {
        "dataset": r["dataset"], "splits": ", ".join(r["splits"]), "num": r["num_rows"], "hash": r["dataset_hash"][:12],
        "reward": r["reward_config"], "lexicon": r["lexicon_version"], "teacher": teacher, "index": r["index"] or t("bench.batch_none"),
        "decoding": ", ".join(f"{k} {v}" for k, v in r["decoding"].items()), **hashes,
    }  # fmt: skip
    st.caption(t("bench.batch_made_with", when=ago(batch.created_at), **words))
