"""Pieces of the Record page: verification in a thread of its own with progress, anchors, newest entries, lineage tables.

A verification belongs to the process, not to a browser: whoever looks while one runs sees the same progress, and a second press
starts no second walk. Called by pages/audit.py.
"""

from __future__ import annotations

import threading
from typing import Any

import streamlit as st
from sqlalchemy.exc import SQLAlchemyError

from app.errors import describe
from app.i18n import t
from app.session import language
from app.widgets import link_to_job
from core import audit_anchor, audit_log, audit_rows
from core.errors import UserError
from core.home import current_home
from core.lineage import Behind, Made, Overtaken

NUM_ENTRIES = 100


class Verification:
    """One walk of the chain. `found` or `error` is set when it has ended."""

    def __init__(self) -> None:
        self.done, self.total = 0, 0
        self.found: audit_rows.Whole | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="audit-verification", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.found = audit_rows.examine_all(current_home(), self._progress)
        except (UserError, SQLAlchemyError, OSError) as error:
            self.error = error

    def _progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total


_lock = threading.Lock()
_newest: list[Verification] = []


def start_verification() -> None:
    """Start one unless one runs."""
    with _lock:
        if not _newest or not _newest[-1].is_running:
            _newest[:] = [Verification()]


def show_verification() -> None:
    """The button, and what the newest verification has found; looks again by itself while one runs."""
    st.button(t("trust.verify"), type="primary", icon=":material/verified:", on_click=start_verification)
    if _newest:
        st.fragment(_show_state, run_every=0.5 if _newest[-1].is_running else None)()


def _show_state() -> None:
    one = _newest[-1]
    if one.is_running:
        st.progress(one.done / one.total if one.total else 0.0, t("trust.verifying", done=f"{one.done:,}", total=f"{one.total:,}"))
        st.session_state["audit_watched"] = True
        return
    if st.session_state.pop("audit_watched", False):
        st.rerun()  # the whole page once more, so that nothing goes on asking
    if one.error is not None:
        st.error(describe(one.error, language()).text)
    elif one.found is not None and one.found.broken is not None:
        st.error(t("trust.said_broken", entry=one.found.broken.entry_id, why=t(f"trust.why_{one.found.broken.why}")))
    elif one.found is not None:
        found = one.found
        st.success(
            t("trust.verified_page", num=f"{found.num_entries:,}", points=found.num_points, rows=f"{found.num_rows:,}"),
            icon=":material/verified:",
        )


def show_anchors() -> None:
    st.caption(t("trust.anchors_about"))
    days = audit_anchor.listing(current_home())
    if not days:
        st.info(t("trust.no_anchors"), icon=":material/anchor:")
        return
    rows = [
        {
            t("trust.day"): day,
            t("trust.entries"): points[-1].count,
            t("trust.field_entry_hash"): points[-1].hash,
            " ": "✓" if points[-1].holds else f"✗ {t('trust.chain_broken')}",
        }
        for day, points in days
    ]
    st.dataframe(rows, hide_index=True, height=min(320, 36 + 35 * len(rows)))


def show_entries() -> None:
    actions = audit_log.actions()
    chosen = st.selectbox(t("trust.filter_action"), ["", *actions], format_func=lambda a: a or t("trust.all"), width=320)
    rows = [
        {
            t("trust.field_id"): one.id,
            t("trust.field_created_at"): f"{one.at:%Y-%m-%d %H:%M:%S}",
            t("trust.field_action"): one.action,
            t("trust.field_object_type"): f"{one.object_type} {one.object_id}",
            t("trust.field_actor_id"): one.actor or t("trust.system"),
            t("trust.field_reason"): one.reason,
            t("trust.field_entry_hash"): one.hash[:16],
        }
        for one in audit_log.newest(NUM_ENTRIES, chosen)
    ]
    st.dataframe(rows, hide_index=True)


def show_behind(found: list[Behind]) -> None:
    """One card per version, newest first."""
    if not found:
        st.info(t("trust.no_version"), icon=":material/info:")
    for one in found:
        with st.container(border=True):
            st.markdown(f"**{one.version}** · {one.kind}")
            if one.content_hash:
                st.caption(f"SHA-256 `{one.content_hash[:16]}`")
            if one.job_id:
                link_to_job(one.job_id, f"{t('trust.field_job_id')} {one.job_id} · {one.job_kind or ''}")
            data = one.dataset or {}
            named = f"{data.get('name')} · {str(data.get('content_hash') or '')[:16]}" if data else ""
            facts: dict[str, Any] = {
                "dataset": named,
                "reward_config": one.reward_config,
                "teacher": " · ".join(str((one.teacher or {}).get(key) or "") for key in ("name", "rubric_version")).strip(" ·"),
                "adjudications": ", ".join(map(str, one.adjudications)),
                "votes": ", ".join(map(str, one.votes)),
                "reviewers": ", ".join(one.reviewers),
                "guideline_versions": ", ".join(one.guideline_versions),
                "rule_versions": ", ".join(one.rule_versions),
            }
            for key, value in facts.items():
                st.markdown(f"{t(f'trust.field_{key}')}: {value or t('trust.not_recorded')}")


def show_made(made: list[Made] | tuple[Made, ...]) -> None:
    if not made:
        st.caption(t("trust.nothing_made"))
    for one in made:
        way = t(f"trust.field_through_{one.through}") + (f" ({one.via})" if one.via else "")
        words = f"{t(f'trust.field_kind_{one.kind}')} **{one.name}** · {way}"
        st.markdown(words)
        if one.job_id:
            link_to_job(one.job_id, f"{t('trust.field_job_id')} {one.job_id}")


def show_overtaken(rows: list[Overtaken]) -> None:
    st.caption(t("trust.overtaken_about"))
    if not rows:
        st.info(t("trust.no_overtaken"), icon=":material/check:")
    for one in rows:
        with st.container(border=True):
            why = t(f"trust.why_{one.why}")
            st.markdown(f"**{t('trust.field_decision')} {one.adjudication_id}** · {t('trust.case_number')} {one.conflict_id} · {why}")
            st.caption(f"{one.at:%Y-%m-%d %H:%M} UTC" + (f" · {one.reason}" if one.reason else ""))
            show_made(one.made)
