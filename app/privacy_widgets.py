"""Pieces of the Data page: rows in quarantine with the decisions on them, the policy, and the note beside a preview.

What was found is never on the screen, only its kind; the text around it is (`core.quarantine` masks it before it comes here).
"""

from __future__ import annotations

from typing import Literal

import streamlit as st

from app.i18n import t
from app.session import current_user, require
from app.widgets import guarded
from core import quarantine
from core.quarantine import Waiting

PAGE = 20
STATUSES = ("held", "released", "surrogate", "dropped")
ROLES = ("engineer", "admin")
DECISIONS: tuple[Literal["surrogate", "dropped", "released"], ...] = ("surrogate", "dropped", "released")


def kinds_text(kinds: dict[str, int]) -> str:
    """`name 2, mobile phone 1` in the person's language."""
    return ", ".join(f"{t(f'privacy.kind_{kind}')} × {num}" if num > 1 else t(f"privacy.kind_{kind}") for kind, num in kinds.items())


def localised(preview: str) -> str:
    """A masked preview with the kinds in the person's language."""
    for kind in quarantine.KINDS:
        preview = preview.replace(f"[{kind}]", f"[{t(f'privacy.kind_{kind}')}]")
    return preview


def show_quarantine() -> None:
    """The tab: policy, filter, rows, decision."""
    st.caption(t("privacy.about"))
    show_policy()
    if done := st.session_state.pop("quarantine_done", 0):
        st.success(t("privacy.decided", num=done))
    found = quarantine.counts()
    left, right = st.columns(2)
    status = left.selectbox(t("privacy.filter_status"), STATUSES, format_func=lambda s: t(f"privacy.status_{s}"), key="quarantine_status")
    kinds = list(found) if status == "held" else [""]

    def name(kind: str) -> str:
        if not kind:
            return t("privacy.all", num=found[""]) if status == "held" else t("privacy.status_" + status)
        return t("privacy.with_count", kind=t(f"privacy.kind_{kind}"), num=found[kind])

    kind = right.selectbox(t("privacy.filter_kind"), kinds, format_func=name, key=f"quarantine_kind_{status}")
    key = f"quarantine_page_{status}_{kind}"
    page = st.session_state.setdefault(key, 0)
    rows, total = quarantine.waiting(kind=kind, status=status, page=page, size=PAGE)
    if not rows and page:
        st.session_state[key] = 0
        st.rerun()
    if not rows:
        st.info(t("privacy.empty" if status == "held" else "privacy.empty_filter"), icon=":material/shield:")
        return
    chosen = show_rows(rows, status)
    back, text, forward = st.columns([1, 3, 1])
    text.caption(t("privacy.shown", shown=f"{page * PAGE + 1}–{page * PAGE + len(rows)}", total=total))
    if back.button(t("privacy.newer"), disabled=page == 0, key="quarantine_newer"):
        st.session_state[key] = page - 1
        st.rerun()
    if forward.button(t("privacy.older"), disabled=(page + 1) * PAGE >= total, key="quarantine_older"):
        st.session_state[key] = page + 1
        st.rerun()
    if status == "held":
        show_decision(chosen)


def show_rows(rows: list[Waiting], status: str) -> list[Waiting]:
    """The table; returns the selected rows."""
    table = [
        {
            t("privacy.col_dataset"): w.dataset,
            t("privacy.col_row"): str(w.row) if w.row is not None else t("privacy.stored_sample", id=w.sample_id),
            t("privacy.col_kinds"): kinds_text(w.kinds),
            t("privacy.col_preview"): localised(w.preview),
            t("privacy.col_since"): f"{w.created_at:%Y-%m-%d %H:%M}",
        }
        | ({} if status == "held" else {t("privacy.col_decided"): w.decided_by, t("privacy.col_reason"): w.reason})
        for w in rows
    ]
    wide = {t("privacy.col_preview"): st.column_config.TextColumn(width="large")}
    if status != "held":
        st.dataframe(table, hide_index=True, width="stretch", column_config=wide)
        return []
    st.caption(t("privacy.select_help"))
    version = st.session_state.get("quarantine_table", 0)  # a new table after each decision: its selection meant other rows
    shown = st.dataframe(
        table,
        hide_index=True,
        width="stretch",
        column_config=wide,
        on_select="rerun",
        selection_mode="multi-row",
        key=f"quarantine_{version}",
    )
    return [rows[i] for i in shown["selection"]["rows"] if i < len(rows)]


def show_decision(chosen: list[Waiting]) -> None:
    """What to do with the selected rows, and why."""
    options = [d for d in DECISIONS if d != "released" or current_user().role == "admin"]
    with st.form("quarantine_decision", border=True):
        st.markdown(t("privacy.chosen", num=len(chosen)))
        decision = st.radio(t("privacy.decision"), options, format_func=lambda d: t(f"privacy.decide_{d}"))
        reason = st.text_input(t("privacy.reason"), max_chars=quarantine.MOST_REASON)
        if not st.form_submit_button(t("privacy.apply"), type="primary", disabled=not chosen):
            return
    with guarded():
        num = quarantine.decide(require(*ROLES), [w.id for w in chosen], decision, reason)
        st.session_state["quarantine_done"] = num
        st.session_state["quarantine_table"] = st.session_state.get("quarantine_table", 0) + 1
        st.rerun()


def show_policy() -> None:
    """The policy in force, who chose it, and for administrators the choice."""
    now = quarantine.policy()
    if now.at is None:
        st.info(t("privacy.policy_now_quarantine"), icon=":material/shield:")
    else:
        key = "privacy.policy_now_quarantine_by" if now.action == "quarantine" else f"privacy.policy_now_{now.action}"
        say = st.error if now.action == "off" else st.info
        say(t(key, by=now.by, at=f"{now.at:%Y-%m-%d %H:%M} UTC", reason=now.reason), icon=":material/shield:")
    with st.expander(t("privacy.policy_change")):
        if current_user().role != "admin":
            st.caption(t("privacy.policy_admin_only"))
            return
        with st.form("privacy_policy", border=False):
            places = {action: i for i, action in enumerate(quarantine.ACTIONS)}
            action = st.radio(t("privacy.decision"), quarantine.ACTIONS, places[now.action], format_func=lambda a: t(f"privacy.policy_{a}"))
            reason = st.text_input(t("privacy.reason"), max_chars=quarantine.MOST_REASON, key="privacy_policy_reason")
            if st.form_submit_button(t("privacy.policy_save")):
                with guarded():
                    quarantine.set_policy(require("admin"), action, reason)
                    st.toast(t("privacy.policy_saved"))
                    st.rerun()


def preview_note(num_held: int, num_shown: int) -> None:
    """Beside the preview of a file: what will happen to rows with a hit."""
    if num_held:
        action = quarantine.policy().action
        key = {"quarantine": "privacy.preview_held", "surrogate": "privacy.preview_surrogate", "off": "privacy.preview_off"}[action]
        st.warning(t(key, num=num_held, shown=num_shown), icon=":material/shield:")


def dataset_note(dataset_id: int) -> None:
    """Beside a dataset: how many of its rows wait."""
    _, total = quarantine.waiting(dataset_id=dataset_id, size=1)
    if total:
        st.caption(f":material/shield: {t('privacy.dataset_held', num=total)}")
