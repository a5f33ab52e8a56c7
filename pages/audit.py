"""Record: the audit chain and its anchors; inspection packs; what is behind an answer, and what was made of a decision."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import streamlit as st

from app.audit_widgets import show_anchors, show_behind, show_entries, show_made, show_overtaken, show_verification
from app.i18n import t
from app.session import current_user, language, require
from app.signing_widgets import ask_proof
from app.widgets import ai_notice, guarded, page_title
from core import inspection, lineage
from core.home import current_home


def show_chain() -> None:
    show_verification()
    st.subheader(t("trust.newest"), anchor=False)
    show_entries()
    st.subheader(t("trust.anchors"), anchor=False)
    show_anchors()


def show_pack() -> None:
    st.caption(t("trust.case_about"))
    ai_notice()
    with st.form("pack_form", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        case = st.number_input(t("trust.case_number"), min_value=1, step=1, width=200)
        is_asked = st.form_submit_button(t("trust.make_pack"), icon=":material/folder_zip:")
    if is_asked:
        st.session_state.pop("audit_pack", None)
        with guarded(), TemporaryDirectory() as folder:
            path = Path(folder) / f"case-{case}.zip"
            inspection.make(current_home(), int(case), path, by=current_user().id, language=language())
            st.session_state["audit_pack"] = (path.name, path.read_bytes())
    if "audit_pack" in st.session_state:
        name, content = st.session_state["audit_pack"]
        st.download_button(
            t("trust.download_pack", name=name), content, name, "application/zip", icon=":material/download:", type="primary"
        )


def ask_retraction(number: int) -> None:
    """Reason and password; what had been made of the decision is told afterwards, with the runs."""
    st.caption(t("trust.retract_about"))
    reason = st.text_input(t("trust.reason"), key="retract_reason")
    proof = ask_proof(current_user(), "retract_password")
    if st.button(t("trust.retract"), key="retract_now"):
        with guarded():
            made = lineage.retract(require("admin").id, number, reason=reason, proof=proof)
            st.success(t("trust.retracted", made=", ".join(one.name for one in made) or t("trust.none")))


def show_lineage() -> None:
    down, up = st.columns(2)
    with down:
        st.subheader(t("trust.look_down"), anchor=False)
        case = st.number_input(t("trust.case_number"), min_value=1, step=1, key="down_case", value=None, width=200)
        if case:
            with guarded():
                show_behind(lineage.behind_case(int(case)))
    with up:
        st.subheader(t("trust.look_up"), anchor=False)
        number = st.number_input(t("trust.decision_number"), min_value=1, step=1, key="up_decision", value=None, width=200)
        if number:
            with guarded():
                show_made(lineage.made_of_decision(int(number)))
                if current_user().role == "admin":
                    with st.expander(t("trust.retract")):
                        ask_retraction(int(number))
    st.subheader(t("trust.overtaken_title"), anchor=False)
    show_overtaken(lineage.all_overtaken())


require("product")
page_title("trust.title")
st.caption(t("trust.about"))
chain, case_pack, ways = st.tabs([t("trust.tab_chain"), t("trust.tab_case"), t("trust.tab_lineage")])
with chain, guarded():
    show_chain()
with case_pack, guarded():
    show_pack()
with ways, guarded():
    show_lineage()
