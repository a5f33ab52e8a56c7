"""The Models page's gates and forms: signing a promotion, an override, its second signature or a roll-back; external endpoints.

What is pressed here is checked again by core.promotion, core.override and core.models; the forms only show what they would say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from app.i18n import t
from app.session import current_user, require
from app.signing_widgets import ask_proof
from app.widgets import guarded, link_to
from core import hack_reports, model_list, override, promotion
from core.harm_gate import Gates
from core.model_list import VersionShown
from core.models import add_external
from core.override import RequestShown
from core.signing import Proof

PROMOTERS = ("product", "admin")
#: (action, version, serving version as shown, request) of the open dialog
DIALOG = "models_dialog"


def open_dialog(action: str, name: str, expected: str | None, request: int = 0) -> None:
    """Remember which signature is being asked for; `show_dialog` draws it, on this run and until it is signed or closed."""
    st.session_state[DIALOG] = (action, name, expected, request)


def close_dialog() -> None:
    """The person closed the dialog without signing."""
    st.session_state.pop(DIALOG, None)


def show_dialog() -> None:
    """Draw the open dialog, if there is one."""
    if DIALOG in st.session_state:
        action, name, expected, request = st.session_state[DIALOG]
        st.dialog(t(f"models.{action}_title"), width="medium", on_dismiss=close_dialog)(sign)(action, name, expected, request)


def show_service() -> None:
    """Who serves, since when, by whom; one press back to who served before."""
    now = model_list.service()
    if now is None:
        st.info(t("models.none_serving"), icon=":material/podium:")
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        with st.container():
            st.markdown(f"**{t('models.serving_now', name=now.name)}** `#{now.content_hash[:8]}`")
            if (e := now.since) is not None:
                st.caption(f"{t('models.since', date=f'{e.created_at:%Y-%m-%d %H:%M}', who=e.signed_name)} · {e.reason}")
        if current_user().role in PROMOTERS and now.previous:
            target = st.selectbox(t("models.previous"), now.previous, key="models_previous", width=220)
            if st.button(t("models.roll_back"), key="models_roll_back", icon=":material/undo:"):
                open_dialog("roll_back", target, now.name)


def asked_dialog() -> None:
    """A link may ask for the roll-back dialog (?dialog=roll_back); whoever may not sign, or has nothing to go back to, is told."""
    if st.query_params.get("dialog") != "roll_back":
        return
    del st.query_params["dialog"]
    now = model_list.service()
    if current_user().role not in PROMOTERS:
        st.info(t("models.roll_back_who"), icon=":material/undo:")
    elif now is None or not now.previous:
        st.info(t("models.roll_back_nothing"), icon=":material/undo:")
    else:
        open_dialog("roll_back", now.previous[0], now.name)


def gate_lines(gates: Sequence[dict[str, Any]]) -> None:
    """Gates with their findings in words; closed ones first, because they are why somebody reads this."""
    for gate in sorted(gates, key=lambda g: (g["is_passed"], not g.get("is_warning"))):
        passed = ":orange[:material/warning:]" if gate.get("is_warning") else ":green[:material/check_circle:]"
        icon = passed if gate["is_passed"] else ":red[:material/block:]"
        st.markdown(f"{icon} **{t('models.gate_' + gate['name'])}** — {t('models.' + gate['finding'], **gate['params'])}")


def sign(action: str, name: str, expected: str | None, request: int) -> None:
    """The dialog: from -> to, the gates, a reason and a signature. What is pressed here is decided again by the core."""
    with guarded():
        person = require(*PROMOTERS, "clinician")
        st.markdown(f"**{expected or '–'} → {name}**")
        can_sign = True
        if action in ("promote", "override", "countersign"):
            gates = promotion.gates_for(person.id, name)
            can_sign = gates.are_open if action == "promote" else gates.are_open or gates.can_be_overridden
            gate_lines(gates.as_record()["gates"])
        if action != "promote":
            st.caption(t(f"models.{action}_help", name=name))
        reason = st.text_area(t("models.reason"), key="models_reason", max_chars=1000)
        signature = "" if action == "decline" else st.text_input(t("models.signature", name=person.display_name), key="models_signature")
        proof = None
        if action != "decline":
            st.caption(t("models.meaning"))
            proof = ask_proof(person, "models_password")
        if st.button(t(f"models.sign_{action}"), key="models_sign", type="primary", disabled=not can_sign):
            press(action, person.id, name, expected, request, reason, signature, proof)
            close_dialog()
            st.session_state["models_done"] = t(f"models.done_{action}", name=name)
            st.rerun()


def press(
    action: str, user_id: int, name: str, expected: str | None, request: int, reason: str, signature: str, proof: Proof | None
) -> None:
    """Do what was signed. Raises what the core raises."""
    if action == "decline":
        override.decline(user_id, request, reason=reason)
    elif action == "countersign":
        override.countersign(user_id, request, reason=reason, signed_name=signature, proof=proof)
    else:
        switch = {"promote": promotion.promote, "roll_back": promotion.roll_back, "override": override.request_override}[action]
        switch(user_id, name, reason=reason, signed_name=signature, expected_serving=expected, proof=proof)


def show_gates(version: VersionShown) -> None:
    """The gates of a version that does not serve, and what may be pressed: promote, or ask for an override."""
    person = current_user()
    with st.container(border=True), guarded():
        gates = promotion.gates_for(person.id, version.name, is_thorough=False)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{t('models.gates')}**")
            word = t("models.gates_open") if gates.are_open else t("models.gates_num_closed", num=len(gates.closed))
            st.badge(word, color="green" if gates.are_open else "red")
            if gates.evaluation_id is not None:
                label = t("models.to_regressions") if "regressions" in gates.closed else t("models.to_evaluation")
                link_to("evaluations", label, icon=":material/monitoring:", evaluation=str(gates.evaluation_id))
        gate_lines(gates.as_record()["gates"])
        show_flags(version.name)
        buttons(version, gates)


def buttons(version: VersionShown, gates: Gates) -> None:
    """One button at most: promote when all gates are open, else ask for an override unless one waits already."""
    person = current_user()
    now = model_list.service()
    serving = now.name if now else None
    waiting = next((r for r in override.requests(version.name) if r.status == "open"), None)
    if waiting is not None:
        st.info(t("models.waits_for_other", who=waiting.requested_name, until=f"{waiting.expires_at:%m-%d %H:%M}"), icon=":material/draw:")
        if waiting.requested_by == person.id and st.button(t("models.withdraw"), key="models_withdraw"):
            open_dialog("decline", version.name, serving, waiting.id)
    elif person.role in PROMOTERS and (gates.are_open or not gates.can_be_overridden):
        label = t("models.promote", name=version.name)
        if st.button(label, key="models_promote", type="primary", icon=":material/rocket_launch:"):
            open_dialog("promote", version.name, serving)
    elif person.role in PROMOTERS and st.button(t("models.override", name=version.name), key="models_override", icon=":material/draw:"):
        open_dialog("override", version.name, serving)


def show_flags(name: str) -> None:
    """Every flag of the reward watch with what people answered."""
    flags = next((w.flags for w in hack_reports.newest(limit=100) if w.version == name), ())
    if flags:
        with st.expander(t("models.watch_flags")):
            for f in flags:
                state = t(f"models.flag_{f.answer}", who=f.answered_by, reason=f.reason) if f.answer else t("models.flag_open")
                numbers = {"value": f"{f.value:.3f}", "threshold": f"{f.threshold:g}"}
                st.markdown(t("models.flag_line", code=f.code, feature=f.feature, state=state, **numbers))


def show_waiting() -> None:
    """Override requests that wait for this person's signature, above everything else."""
    for one in override.waiting(current_user().id):
        closed = [g for g in one.gates["gates"] if not g["is_passed"]]
        with st.container(border=True):
            st.warning(t("models.waits_for_you", who=one.requested_name, name=one.version, num=len(closed)), icon=":material/draw:")
            st.markdown(f"> {one.reason}")
            gate_lines(closed)
            with st.container(horizontal=True):
                if one.gates["evaluation_id"] is not None:
                    evaluation = str(one.gates["evaluation_id"])
                    link_to("evaluations", t("models.to_regressions"), icon=":material/monitoring:", evaluation=evaluation)
                if st.button(t("models.countersign"), key=f"models_countersign_{one.id}", type="primary"):
                    open_dialog("countersign", one.version, one.serving, one.id)
                if st.button(t("models.decline"), key=f"models_decline_{one.id}"):
                    open_dialog("decline", one.version, one.serving, one.id)


def request_row(one: RequestShown) -> tuple[object, ...]:
    """One line of the list of requests."""
    state = t(f"models.request_state_{one.status}")
    return f"{one.created_at:%Y-%m-%d %H:%M}", one.version, one.requested_name, one.reason, state, one.second_name or "–", one.second_reason


def external_form() -> None:
    """Register an OpenAI-compatible endpoint as a version. Only the name of the key's variable is asked for."""
    with st.expander(t("models.external"), icon=":material/cloud:"), st.form("models_external", border=False), guarded():
        st.caption(t("models.external_help"))
        left, right = st.columns(2)
        name = left.text_input(t("models.ext_name"), key="models_ext_name")
        url = right.text_input(t("models.ext_url"), key="models_ext_url", placeholder="https://host/v1")
        model = left.text_input(t("models.ext_model"), key="models_ext_model")
        variable = right.text_input(t("models.ext_key"), key="models_ext_key", placeholder="OPENAI_API_KEY")
        note = st.text_input(t("models.ext_note"), key="models_ext_note")
        if st.form_submit_button(t("models.ext_save")):
            add_external(require("engineer").id, name=name, url=url, model=model, key_variable=variable.strip(), note=note)
            st.session_state["models_done"] = t("models.ext_done", name=name.strip())
            st.rerun()
