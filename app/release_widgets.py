"""What the release adds to the Models page and to Home: the roll-back that waits for a person, packages, and the watch's looks.

Who may do what is decided again in core.watch, core.release and core.promotion; here it is only not offered.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.i18n import t
from app.session import current_user, require
from app.signing_widgets import ask_proof
from app.widgets import guarded, link_to, link_to_job
from core import release, watch
from core.home import current_home
from core.jobs import views
from core.model_list import VersionShown
from core.models import NAME
from core.promotion import PROMOTERS
from core.signing import Proof, needs_password
from core.watch import ProposalShown

ENGINEERS = ("engineer", "admin")
#: what was done, to be said on the next run of the page
DONE = "release_done"


def proposal_notice() -> None:
    """The open proposal, if there is one: on every page that asks "what needs me". One press accepts it."""
    if done := st.session_state.pop(DONE, None):
        st.success(done)
    proposal = watch.open_proposal()
    if proposal is None:
        return
    names = {"serving": proposal.serving, "target": proposal.target}
    finding = t(f"release.finding_{proposal.finding}", **names, **proposal.detail)
    with st.container(border=True, key="release_proposal"):
        st.error(f"**{t('release.proposal_title', **names)}**\n\n{finding}", icon=":material/crisis_alert:")
        with st.container(horizontal=True, vertical_alignment="center"):
            if current_user().role in PROMOTERS:
                _offer(proposal, t("release.accept_reason", id=proposal.id, finding=finding))
                _keep(proposal)
            else:
                st.caption(t("release.needs_promoter"))
            if proposal.job_id is not None:
                link_to_job(proposal.job_id, t("release.to_evidence"))


def _offer(proposal: ProposalShown, reason: str) -> None:
    """One press, or the password and one press where none was typed lately."""
    label, icon = t("release.accept", target=proposal.target), ":material/undo:"
    person = current_user()
    if not needs_password(person):
        st.button(label, key="release_accept", on_click=_accept, args=(proposal, reason), type="primary", icon=icon)
        return
    with st.popover(label, type="primary", icon=icon), guarded():
        proof = ask_proof(person, "release_password")
        if st.button(t("release.accept_sign"), key="release_accept", type="primary"):
            _accept(proposal, reason, proof)
            st.rerun()


def _accept(proposal: ProposalShown, reason: str, proof: Proof | None = None) -> None:
    with guarded():
        person = require(*PROMOTERS)
        watch.accept(person.id, proposal.id, reason=reason, proof=proof or Proof(person.session_id))
        st.session_state[DONE] = t("release.accepted", target=proposal.target)


def _keep(proposal: ProposalShown) -> None:
    label = t("release.dismiss", serving=proposal.serving)
    with st.popover(label, icon=":material/front_hand:"), st.form("release_keep", border=False), guarded():
        reason = st.text_area(t("release.dismiss_reason"), key="release_keep_reason", max_chars=1000)
        if st.form_submit_button(label):
            watch.dismiss(require(*PROMOTERS).id, proposal.id, reason=reason)
            st.session_state[DONE] = t("release.dismissed", serving=proposal.serving)
            st.rerun()


def watch_panel() -> None:
    """How the serving version compares with the one before it, look by look."""
    with st.expander(t("release.watch"), icon=":material/visibility:"), guarded():
        switch, looks = watch.looks()
        if switch is None:
            st.caption(t("release.nothing_to_watch"))
            return
        st.caption(t("release.watching", serving=switch.serving, previous=switch.previous))
        if looks:
            heads = tuple(t(f"release.col_{c}") for c in ("look", "pairs", "worse", "better", "evidence", "cases", "when"))
            rows = [
                (
                    x.number,
                    x.num_pairs,
                    x.num_worse,
                    x.num_better,
                    f"{x.evidence:.2f}",
                    _cases(x.incoming),
                    f"{x.created_at:%Y-%m-%d %H:%M}",
                )
                for x in looks
            ]
            st.dataframe([dict(zip(heads, row, strict=True)) for row in rows], hide_index=True, width="stretch")
        else:
            st.caption(t("release.no_looks"))
        if current_user().role in ENGINEERS:
            st.button(t("release.look_now"), key="release_look", icon=":material/play_arrow:", on_click=_look)
            link_to("jobs", t("release.schedule_hint"), icon=":material/event_repeat:")


def _cases(incoming: dict[str, list[int]]) -> str:
    cases, answers = incoming.get("cases") or [0, 0], incoming.get("answers") or [0, 0]
    return f"{cases[0]}/{answers[0]} · {cases[1]}/{answers[1]}"


def _look() -> None:
    with guarded():
        job_id = views.start("watch", {}, require("engineer").id, dedup_key="watch")
        st.session_state[DONE] = t("jobs.started", id=job_id)


def packages_panel(versions: list[VersionShown]) -> None:
    """Packages known here, verifying one, making one, loading one from a folder of this machine."""
    with st.expander(t("release.packages"), icon=":material/inventory_2:"), guarded():
        found = release.listing()
        if found:
            heads = tuple(t(f"release.col_{c}") for c in ("name", "version", "origin", "path", "manifest", "when"))
            rows = [
                (r.name, r.version, t(f"release.origin_{r.origin}"), r.path, r.manifest_hash[:12], f"{r.created_at:%Y-%m-%d %H:%M}")
                for r in found
            ]
            st.dataframe([dict(zip(heads, row, strict=True)) for row in rows], hide_index=True, width="stretch")
            with st.container(horizontal=True, vertical_alignment="bottom"):
                name = st.selectbox(t("release.col_name"), [r.name for r in found], key="release_chosen", width=240)
                if st.button(t("release.verify"), key="release_verify", icon=":material/verified:"):
                    manifest = release.verify_registered(current_home(), name)
                    st.success(t("release.verified", name=name, num=len(manifest["files"])))
        else:
            st.caption(t("release.no_packages"))
        if current_user().role in ENGINEERS:
            _make_form([v.name for v in versions if v.kind in ("rl", "sft")])
        if current_user().role == "admin":
            _load_form()


def _make_form(names: list[str]) -> None:
    if not names:
        return
    with st.form("release_make", border=False):
        left, middle, right = st.columns([2, 2, 1], vertical_alignment="bottom")
        version = left.selectbox(t("release.version_to_release"), names, key="release_version")
        name = middle.text_input(t("release.release_name"), key="release_name", placeholder="v1.0-rl", max_chars=100)
        with_base = right.checkbox(t("release.with_base"), key="release_with_base")
        if st.form_submit_button(t("release.make"), icon=":material/package_2:"):
            by = require("engineer").id
            if not NAME.fullmatch(name.strip()):
                st.error(t("models.bad_name", name=name))
                return
            job_id = views.start("package", {"model": version, "name": name.strip(), "with_base": with_base}, by)
            st.session_state[DONE] = t("jobs.started", id=job_id)
            st.rerun()


def _load_form() -> None:
    with st.form("release_load", border=False):
        left, right = st.columns([4, 1], vertical_alignment="bottom")
        path = left.text_input(t("release.folder"), key="release_folder", placeholder="/media/usb/v1.0-rl")
        if right.form_submit_button(t("release.load"), icon=":material/download:"):
            name = release.load(current_home(), Path(path.strip()), by=require("admin").id)
            st.session_state[DONE] = t("release.loaded", name=name)
            st.rerun()
