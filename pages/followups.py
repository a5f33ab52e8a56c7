"""Follow-ups: what decisions on the desk asked of others, one list per kind; whoever owns a list closes its rows."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.review_widgets import verdict_name
from app.session import current_user, require
from app.widgets import ago, ai_notice, guarded, link_to, page_title
from core.desk import followups, teacher_tests
from core.desk.followups import KINDS, OWNERS, SETS, FollowUpShown

DONE = "followups_done"
TEAM = ("clinician", "product", "engineer")


def show_result(row: FollowUpShown) -> None:
    """The newest run of a test of the teacher."""
    results = row.detail.get("results") or []
    if not results:
        st.caption(t("followups.never_run"))
        return
    last = results[-1]
    if last["passes"] is None:
        reason = t(f"scoring.reason_{last['unscored_reason']}") if last["unscored_reason"] else "–"
        st.caption(t("followups.unscored", teacher=last["teacher"], reason=reason))
        return
    text = t("followups.passed" if last["passes"] else "followups.failed", teacher=last["teacher"], score=f"{last['score']:.2f}")
    st.badge(text, color="green" if last["passes"] else "red")


def show_row(row: FollowUpShown, *, may_close: bool) -> None:
    """Texts of models and people are shown as text, never as markup."""
    with st.container(border=True):
        st.caption(t("followups.by", name=row.by, when=ago(row.created_at), case=row.conflict_id))
        st.text(row.question)
        with st.expander(t("followups.model_answer")):
            ai_notice()
            st.text(row.answer_shown or "–")
        st.caption(t("followups.expected", verdict=verdict_name(row.verdict) if row.verdict else "–"))
        if row.note:
            st.text(row.note)
        if row.kind in SETS:
            split, num = row.detail["split_before"], len(row.detail["sample_ids"])
            st.caption(t("followups.from_split", split=split, num=num))
            if split == "train":
                st.caption(f":material/visibility: {t('followups.seen_warning')}")
        if row.kind == "teacher_test":
            show_result(row)
        if current_user().role in ("clinician", "admin"):
            link_to(
                "case_desk", t("followups.open_case", case=row.conflict_id), icon=":material/clinical_notes:", case=str(row.conflict_id)
            )
        if row.closed_at is not None:
            st.text(t("followups.closed_line", status=t(f"followups.status_{row.status}"), name=row.closed_by, answer=row.answer))
        elif may_close:
            close_form(row)


def close_form(row: FollowUpShown) -> None:
    suffix = "_data_request" if row.kind == "data_request" else ""
    with st.form(f"close{row.id}", clear_on_submit=False, border=False):
        answer = st.text_area(t(f"followups.answer{suffix}"), height=80)
        yes, no, _ = st.columns([2, 2, 3])
        accepted = yes.form_submit_button(t(f"followups.accept{suffix}"), type="primary", width="stretch")
        withdrawn = no.form_submit_button(t(f"followups.withdraw{suffix}"), width="stretch")
    if accepted or withdrawn:
        with guarded():
            followups.close(require(*TEAM).id, row.id, answer, accept=accepted)
            st.session_state[DONE] = t("followups.done")
            st.rerun()


def run_tests() -> None:
    if st.button(t("followups.run", num=teacher_tests.MAX_AT_ONCE), icon=":material/school:"):
        with guarded():
            with st.spinner(t("followups.asking")):
                ran = teacher_tests.run(require(*OWNERS["teacher_test"]).id)
            numbers = {"passed": ran.num_passed, "failed": ran.num_failed, "unscored": ran.num_unscored}
            st.session_state[DONE] = t("followups.ran", teacher=ran.teacher, **numbers)
            st.rerun()


def main() -> None:
    person = require(*TEAM)
    page_title("followups.title")
    st.caption(t("followups.intro"))
    if done := st.session_state.pop(DONE, None):
        st.success(done, icon=":material/check:")
    counts = followups.num_open()
    kind = st.segmented_control(
        t("followups.kind"),
        KINDS,
        default=next((kind for kind in KINDS if counts[kind]), KINDS[0]),
        required=True,
        format_func=lambda k: f"{t(f'followups.kind_{k}')} ({counts[k]})",
        key="followups_kind",
    )
    st.caption(t(f"followups.help_{kind}"))
    may_close = person.role in OWNERS[kind]
    is_closed = st.toggle(t("followups.show_closed"), key="followups_closed")
    rows = followups.listing(kind, is_open=not is_closed)
    if kind == "teacher_test" and rows and may_close and not is_closed:
        run_tests()
    if not rows:
        st.info(t("followups.empty_closed" if is_closed else "followups.empty"), icon=":material/task_alt:")
    for row in rows:
        show_row(row, may_close=may_close)


with guarded():
    main()
