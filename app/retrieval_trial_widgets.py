"""Pieces of the Retrieval page: the decision with its evidence, costs and checklist; trials with their next step."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app.i18n import t
from app.retrieval_widgets import table
from app.session import require
from app.widgets import guarded
from core import retrieval_reports as reports
from core import retrieval_trials as trials
from core.retrieval.decision import Decision, Prices

COLOURS = {"no_finetuning_needed": "green", "monitor": "blue", "recommended": "orange", "critical": "red"}
STATUS = {"kept_aside": "gray", "accepted": "blue", "running": "violet", "promoted": "green", "stopped": "orange", "rolled_back": "orange"}
PERCENT = ("value", "share", "expected")


def show_decision(chosen: int) -> None:
    """The verdict first, then what to do, why, what it would cost, and what to check before."""
    with st.expander(t("retrieval.prices")):
        left, right = st.columns(2)
        standard = Prices()
        prices = Prices(
            minutes_per_pair=left.number_input(t("retrieval.minutes_per_pair"), 0.1, 60.0, standard.minutes_per_pair),
            cost_per_hour=right.number_input(t("retrieval.cost_per_hour"), 0.0, 1000.0, standard.cost_per_hour),
            asks_per_month=left.number_input(t("retrieval.asks_per_month"), 1, 10_000_000, standard.asks_per_month),
            minutes_lost_per_failure=right.number_input(t("retrieval.minutes_lost"), 0.0, 120.0, standard.minutes_lost_per_failure),
        )
    decision = reports.decision_of(chosen, prices)
    st.badge(t(f"retrieval.level_{decision.level}"), color=COLOURS[decision.level])  # type: ignore[arg-type]
    for action in decision.actions:
        st.markdown(f"- {t(f'retrieval.action_{action}')}")
    st.subheader(t("retrieval.evidence"), anchor=False)
    for signal in decision.signals:
        params = {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in signal.params.items()}
        st.markdown(f"- {t(f'retrieval.signal_{signal.key}', **params)} ({t(f'retrieval.level_{signal.level}')})")
    change = reports.drift(chosen)
    if change is not None:
        st.markdown(
            t("retrieval.drift", changes=", ".join(f"{m} {v:+.3f}" for m, v in change.items() if m in ("recall@10", "mrr@10", "ndcg@10")))
        )
    show_sheet(decision)


def show_sheet(decision: Decision) -> None:
    """Costs and return under the stated prices, and the checklist."""
    left, right = st.columns(2)
    sheet = decision.sheet
    with left:
        st.subheader(t("retrieval.sheet"), anchor=False)
        rows: list[tuple[object, ...]] = [
            (t("retrieval.pairs_missing"), f"{sheet.pairs_missing}"),
            (t("retrieval.labelling_cost"), f"{sheet.labelling_cost:,.0f}"),
            (t("retrieval.training_cost"), f"{sheet.training_cost:,.0f}"),
            (t("retrieval.failures_per_month"), "–" if sheet.failures_per_month is None else f"{sheet.failures_per_month:,.0f}"),
            (t("retrieval.mendable"), "–" if sheet.mendable_share is None else f"{sheet.mendable_share:.0%}"),
            (t("retrieval.saved_per_month"), "–" if sheet.saved_per_month is None else f"{sheet.saved_per_month:,.0f}"),
            (t("retrieval.payback"), "–" if sheet.payback_months is None else f"{sheet.payback_months:.1f}"),
        ]
        table(("item", "amount"), rows)
    with right:
        st.subheader(t("retrieval.checklist"), anchor=False)
        for check in decision.checklist:
            icon = {True: "check_circle", False: "cancel", None: "help"}[check.is_done]
            st.markdown(f":material/{icon}: {t(f'retrieval.check_{check.key}', **check.params)}")


def show_trials() -> None:
    """Every change with the gate's verdict; the next step of each is one press with a reason."""
    rows = trials.listing()
    if not rows:
        st.info(t("retrieval.no_trials"), icon=":material/science:")
        return
    may_press = require("clinician", "product", "engineer").role in ("engineer", "admin")
    for row in rows:
        v = row.verdict
        with st.container(border=True):
            st.badge(t(f"retrieval.status_{row.status}"), color=STATUS[row.status])  # type: ignore[arg-type]
            versions = f" v{row.control} → v{row.candidate}" if row.candidate else ""
            st.markdown(
                f"**#{row.id} · {row.index_name}{versions} · {t(f'retrieval.change_{row.change}')}** · {row.created_at:%Y-%m-%d %H:%M}"
            )
            st.markdown(t(f"retrieval.gate_{v.get('reason', 'too_few_queries')}"))
            if v.get("difference") is not None:
                gain = "–" if v["relative_gain"] is None else f"{v['relative_gain']:+.1%}"
                params = {"metric": v["metric"], "n": v["n"], "set": v.get("set", ""), "control": f"{v['control']:.3f}"}
                interval = f"{v['difference']:+.3f} [{v['ci_low']:+.3f}, {v['ci_high']:+.3f}]"
                st.caption(t("retrieval.gate_figures", candidate=f"{v['candidate']:.3f}", gain=gain, interval=interval, **params))
                st.caption(t("retrieval.gate_needed", bar=v["needed_for_bar"] or "–", seen=v["needed_for_seen"] or "–"))
            if row.status == trials.RUNNING:
                show_look(row.id, row.share)
            if may_press:
                show_presses(row)


def show_look(trial_id: int, share: float) -> None:
    """What the arms have earned so far. Looked at only when asked for: every look spends a part of the error rate."""
    st.progress(share, t("retrieval.share", share=f"{share:.0%}"))
    if st.button(t("retrieval.look"), key=f"look_{trial_id}", icon=":material/visibility:"):
        with guarded():
            seen = trials.look_at(trial_id)
            interval = "–" if seen.difference is None else f"{seen.difference:+.3f} [{seen.ci_low:+.3f}, {seen.ci_high:+.3f}]"
            params = {"control": seen.num_control, "candidate": seen.num_candidate, "interval": interval}
            st.markdown(t(f"retrieval.look_{seen.action}", **params))


def show_presses(row: trials.TrialShown) -> None:
    """The steps this trial can take now."""
    steps: dict[str, Callable[[int, str], object]] = {}
    if row.status in (trials.ACCEPTED, trials.STOPPED) and row.verdict.get("is_accepted"):
        steps["start"] = lambda user, reason: trials.start(user, row.id, reason=reason)
    if row.status == trials.ACCEPTED:
        steps["promote"] = lambda user, reason: trials.promote(user, row.id, reason=reason)
    if row.status == trials.RUNNING:
        steps["advance"] = lambda user, reason: trials.advance(user, row.id, reason=reason)
        steps["stop"] = lambda user, reason: trials.stop(user, row.id, reason=reason)
    if row.status == trials.PROMOTED:
        steps["roll_back"] = lambda user, reason: trials.roll_back(user, row.id, reason=reason)
    if not steps:
        return
    with st.form(f"trial_{row.id}", border=False):
        reason = st.text_input(t("retrieval.reason"))
        for column, (name, press) in zip(st.columns(len(steps) + 1), steps.items(), strict=False):
            if column.form_submit_button(t(f"retrieval.press_{name}"), width="stretch"):
                with guarded():
                    press(require("engineer").id, reason)
                    st.rerun()
