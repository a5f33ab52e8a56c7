"""Pieces of the Teacher page: alarms, proposals, prices, files. Drawn by pages/teacher.py; `may_decide` is false for readers."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from app.i18n import t
from app.session import require
from app.widgets import ago, guarded, link_to
from core.teacher import exchange, proposals, report
from core.teacher.drift import WINDOW
from core.teacher.proposals import ProposalLine
from core.teacher.report import Alarm, TeacherView

DECIDERS = ("engineer", "admin")


def usd(amount: float) -> str:
    """Money with as many digits as it needs."""
    return f"{amount:.2f}" if amount >= 1 or amount == 0 else f"{amount:.4f}"


def said(alarm: Alarm) -> str:
    """An alarm as a sentence."""
    d = alarm.detail
    if alarm.kind == "version":
        before = " ".join(filter(None, (d.get("model_before"), d.get("fingerprint_before")))) or "–"
        after = " ".join(filter(None, (d.get("model"), d.get("fingerprint")))) or "–"
        return t("teacher.alarm_version", before=before, after=after)
    if alarm.kind == "distribution":
        numbers = {"before": f"{d['mean_before']:.2f}", "after": f"{d['mean_after']:.2f}", "ks": f"{d['ks']:.2f}", "psi": f"{d['psi']:.2f}"}
        return t("teacher.alarm_distribution", **numbers)
    return t("teacher.alarm_consistency", gap=f"{d['mean_abs']:.2f}", flips=d["flips"], num=d["num"])


def alarm_notice(*, with_link: bool = True) -> None:
    """One line when alarms about the teacher are open; nothing otherwise."""
    if num := report.num_open_alarms():
        st.warning(t("teacher.open_alarms", num=num), icon=":material/notification_important:")
        if with_link:
            link_to("teacher", t("teacher.title"), icon=":material/school:")


def show_agreement(view: TeacherView) -> None:
    """Second opinions against first ones, with intervals."""
    st.subheader(t("teacher.agreement"), anchor=False)
    st.caption(t("teacher.agreement_help", share=f"{view.audit_share:.0%}"))
    found = view.agreement
    if found.mean_abs is None or found.low is None or found.high is None or found.shift is None:
        st.info(t("teacher.no_audits"), icon=":material/balance:")
        return
    left, right = st.columns(2)
    left.metric(t("teacher.mean_gap"), f"{found.mean_abs:.3f}")
    left.caption(t("teacher.interval", low=f"{found.low:.3f}", high=f"{found.high:.3f}", num=found.num))
    right.metric(t("teacher.flips"), f"{found.flips} / {found.num_flags}")
    right.caption(t("teacher.interval", low=f"{found.flips_low:.1%}", high=f"{found.flips_high:.1%}", num=found.num_flags))
    st.caption(t("teacher.shift", shift=f"{found.shift:+.3f}"))


def show_alarms(alarms: list[Alarm], may_decide: bool) -> None:
    """Open alarms with a form to close them; closed ones below."""
    st.subheader(t("teacher.drift"), anchor=False)
    st.caption(t("teacher.drift_help", window=WINDOW))
    open_ones, closed = [a for a in alarms if a.is_open], [a for a in alarms if not a.is_open]
    if not open_ones:
        st.success(t("teacher.no_alarms"), icon=":material/notifications_off:")
    for alarm in open_ones:
        with st.container(border=True):
            st.warning(said(alarm), icon=":material/notification_important:")
            st.caption(f"{alarm.teacher} · {ago(alarm.created_at)}")
            if may_decide:
                with st.form(f"teacher_alarm_{alarm.id}", border=False):
                    reason = st.text_input(t("teacher.alarm_reason"))
                    if st.form_submit_button(t("teacher.close")):
                        with guarded():
                            report.close_alarm(require(*DECIDERS).id, alarm.id, reason)
                            st.toast(t("teacher.closed"))
                            st.rerun()
    if closed:
        with st.expander(t("teacher.earlier_alarms")):
            for alarm in closed:
                st.markdown(said(alarm))
                st.caption(t("teacher.closed_by", name=alarm.closed_by or "–", reason=alarm.closed_reason))


def why(line: ProposalLine) -> str:
    """What speaks for a proposal."""
    d = line.detail
    if line.kind == "weight":
        numbers = {"weight": d["weight"], "mean": f"{d['mean']:.2f}", "unsafe": f"{d['unsafe']:.0%}", "num": d["num"]}
        return t("teacher.weight_why", **numbers)
    return t("teacher.suggested", text=d["answer"]) if line.kind == "best_answer" else str(d.get("critique", ""))


def show_proposals(may_decide: bool) -> None:
    """The open ones to select and decide, and what was decided."""
    st.caption(t("teacher.proposals_help"))
    lines = proposals.listing("proposed")
    if not lines:
        st.info(t("teacher.no_proposals"), icon=":material/playlist_add_check:")
    else:
        rows = [
            {
                t("teacher.col_kind"): t(f"teacher.kind_{one.kind}"),
                t("teacher.col_about"): one.text,
                t("teacher.col_why"): why(one),
                t("teacher.col_score"): one.detail.get("score", one.detail.get("mean")),
                t("teacher.col_dataset"): one.dataset,
            }
            for one in lines
        ]
        if may_decide:
            picked = st.dataframe(rows, hide_index=True, width="stretch", key="teacher_open", on_select="rerun", selection_mode="multi-row")
            _decide([lines[i].id for i in picked.selection.rows if i < len(lines)])
        else:
            st.dataframe(rows, hide_index=True, width="stretch")
    decided = [one for one in proposals.listing() if one.status != "proposed"]
    if decided:
        with st.expander(t("teacher.earlier_decisions")):
            st.dataframe(
                [
                    {
                        t("teacher.col_kind"): t(f"teacher.kind_{one.kind}"),
                        t("teacher.col_about"): one.text,
                        t("teacher.col_status"): t(f"teacher.status_{one.status}"),
                        t("teacher.col_by"): one.decided_by,
                        t("teacher.reason"): one.decided_reason,
                    }
                    for one in decided
                ],
                hide_index=True,
                width="stretch",
            )


def _decide(ids: list[int]) -> None:
    if not ids:
        st.caption(t("teacher.choose_rows"))
        return
    with st.form("teacher_decide"):
        reason = st.text_input(t("teacher.reason"))
        with st.container(horizontal=True):
            accepts = st.form_submit_button(t("teacher.accept", num=len(ids)), type="primary")
            rejects = st.form_submit_button(t("teacher.reject", num=len(ids)))
    if accepts or rejects:
        with guarded():
            proposals.decide(require(*DECIDERS).id, ids, accept=accepts, reason=reason)
            st.toast(t("teacher.decided_now"))
            st.rerun()


def show_price(view: TeacherView, may_decide: bool) -> None:
    """The price in force, and a form for a new one."""
    st.subheader(t("teacher.price", model=view.model), anchor=False)
    if view.price is None:
        st.warning(t("teacher.price_none"), icon=":material/sell:")
    else:
        cached = view.price.input if view.price.cached_input is None else view.price.cached_input
        numbers = {"input": f"{view.price.input:g}", "cached": f"{cached:g}", "output": f"{view.price.output:g}"}
        st.markdown(t("teacher.price_is", **numbers, day=view.price.as_of, source=view.price.source))
    if not may_decide:
        return
    with st.expander(t("teacher.new_price")), st.form("teacher_price", border=False):
        model = st.text_input(t("teacher.price_model"), value=view.model)
        first, second, third = st.columns(3)
        paid_in = first.number_input(t("teacher.price_input"), min_value=0.0, step=0.01, format="%.4f")
        cached_in = second.number_input(t("teacher.price_cached"), min_value=0.0, step=0.01, format="%.4f")
        paid_out = third.number_input(t("teacher.price_output"), min_value=0.0, step=0.01, format="%.4f")
        day = st.date_input(t("teacher.price_day"), value=datetime.now(UTC).date())
        source = st.text_input(t("teacher.price_source"))
        if st.form_submit_button(t("teacher.save_price"), type="primary"):
            with guarded():
                by = require(*DECIDERS).id
                report.set_price(by, model, input_usd=paid_in, output_usd=paid_out, cached_usd=cached_in or None, as_of=day, source=source)
                st.toast(t("teacher.price_saved"))
                st.rerun()


def show_files(view: TeacherView, may_decide: bool) -> None:
    """Verdicts out and in."""
    st.subheader(t("teacher.files"), anchor=False)
    st.caption(t("teacher.files_help"))
    if view.num_verdicts and st.button(t("teacher.prepare", num=view.num_verdicts), key="teacher_export"):
        content = "".join(exchange.export_lines())
        st.download_button(t("teacher.download"), content, "teacher_judgements.jsonl", "application/x-ndjson", icon=":material/download:")
    if may_decide:
        given = st.file_uploader(t("teacher.upload"), type=["jsonl"], key="teacher_upload")
        if given is not None and st.button(t("teacher.bring_in"), key="teacher_import", type="primary"):
            with guarded():
                done = exchange.import_lines(given, by=require(*DECIDERS).id, name=given.name)
                counts = {"new": done.num_new, "known": done.num_known, "different": done.num_different, "bad": done.num_bad}
                st.success(t("teacher.brought_in", **counts))
                for number, reason in done.bad_lines:
                    st.caption(t("teacher.bad_line", number=number, reason=reason))
    st.caption(t("teacher.log_hint"))
