"""Models: every version with its gates, lineage, manifest and measurements; promotion, override, roll-back, endpoints, history."""

from __future__ import annotations

import streamlit as st

from app.i18n import t
from app.models_widgets import asked_dialog, external_form, request_row, show_dialog, show_gates, show_service, show_waiting
from app.release_widgets import packages_panel, proposal_notice, watch_panel
from app.session import current_user, require
from app.widgets import guarded, link_to, link_to_job, page_title, status_badge
from core import model_list, override, safety
from core.model_list import VersionShown
from core.promotion import EventShown

ROLES = ("product", "engineer", "clinician", "admin")


def table(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Rows under translated headings."""
    heads = [t(f"models.col_{c}") for c in columns]
    st.dataframe([dict(zip(heads, row, strict=True)) for row in rows], hide_index=True, width="stretch")


def interval(low: float | None, high: float | None) -> str:
    """A 95 % interval, or a dash when it was not measured."""
    return "–" if low is None or high is None else f"{low:.3f} – {high:.3f}"


def show_versions(versions: list[VersionShown]) -> VersionShown:
    """The table, and which one is looked at (also by ?version=)."""
    rows: list[tuple[object, ...]] = [
        (
            v.name + (f" ({t('models.toy')})" if v.is_toy else ""),
            t(f"common.status_{v.status}"),
            t(f"models.kind_{v.kind}"),
            " ← ".join(v.lineage),
            v.num_open_cases,
            f"{v.created_at:%Y-%m-%d %H:%M}",
        )
        for v in versions
    ]
    table(("version", "status", "kind", "lineage", "cases", "made"), rows)
    asked = st.query_params.get("version")
    names = [v.name for v in versions]
    index = names.index(asked) if asked in names else 0
    name = st.selectbox(t("models.choose"), names, index=index, key="models_chosen")
    return versions[names.index(name)]


def show_detail(version: VersionShown) -> None:
    """One version: what it is, whether the disk agrees, how it measured, what is open against it."""
    detail = model_list.version_detail(version.name)
    with st.container(horizontal=True, vertical_alignment="center"):
        status_badge(version.status)
        st.badge(t(f"models.kind_{version.kind}"), color="blue")
        if version.is_toy:
            st.badge(t("models.toy"), color="orange", icon=":material/toys:")
        st.badge(t(f"models.weights_{detail.weights}"), color="green" if detail.weights in ("intact", "remote") else "red")
        if version.job_id is not None:
            link_to_job(version.job_id, t("models.job", id=version.job_id))
        if version.job_id is not None and version.kind in ("sft", "rl") and "release" not in detail.manifest:
            link_to("training_run", t("run.title"), icon=":material/query_stats:", job=str(version.job_id))
    if detail.endpoint_url:
        st.markdown(t("models.endpoint", url=detail.endpoint_url, model=detail.endpoint_model))
    st.caption(f"{' ← '.join(version.lineage)} · sha256 `{version.content_hash or '–'}` {detail.note}")
    if version.status != "serving":
        show_gates(version)
    for case in detail.cases:
        show_case(case.id, t("models.case", id=case.id, who=case.reported_by, question=case.question[:160]))
    if detail.measured:
        lines = [(f"{e} · {n}", "–" if m is None else f"{m:.3f}", interval(low, high)) for e, n, m, low, high in detail.measured]
        table(("evaluation", "mean", "interval"), list(lines))
        link_to("evaluations", t("models.to_evaluation"), icon=":material/monitoring:", evaluation=str(detail.measured[0][0]))
    with st.expander(t("models.manifest")):
        st.json(detail.manifest)


def show_case(case_id: int, text: str) -> None:
    """An open safety case; an administrator may close it here, clinicians decide it on the desk."""
    st.warning(text, icon=":material/health_and_safety:")
    if current_user().role == "admin":
        with st.popover(t("models.close_case", id=case_id)), st.form(f"models_case_{case_id}", border=False):
            reason = st.text_area(t("models.reason"), key=f"models_case_reason_{case_id}")
            if st.form_submit_button(t("models.close_case", id=case_id)):
                with guarded():
                    safety.close(require("admin").id, case_id, reason)
                    st.rerun()


def signers(event: EventShown) -> str:
    """Who signed; a return by the smoke set has nobody's name."""
    return " + ".join(name for name in (event.signed_name, event.second_name) if name) or t("models.automatic")


def main() -> None:
    require(*ROLES)
    page_title("models.title")
    if done := st.session_state.pop("models_done", None):
        st.success(done)
    proposal_notice()
    show_waiting()
    versions = model_list.list_versions()
    if versions:
        show_service()
        asked_dialog()
        show_detail(show_versions(versions))
        show_dialog()
    else:
        st.info(t("models.empty"), icon=":material/deployed_code:")
    if versions:
        watch_panel()
    packages_panel(versions)
    if current_user().role in ("engineer", "admin"):
        external_form()
    events = model_list.serving_history()
    if events:
        st.subheader(t("models.history"), anchor=False)
        lines = [
            (f"{e.created_at:%Y-%m-%d %H:%M}", t(f"models.action_{e.action}"), e.from_version or "–", e.to_version, signers(e), e.reason)
            for e in events
        ]
        table(("when", "action", "from", "version", "who", "reason"), list(lines))
    if asked := override.requests():
        with st.expander(t("models.requests")):
            table(("when", "version", "who", "reason", "state", "second", "reason_2"), [request_row(one) for one in asked])


with guarded():
    main()
