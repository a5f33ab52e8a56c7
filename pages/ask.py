"""Ask: a question to the guidelines -> an answer with citations -> the passages it rests on, with source, date and page."""

from __future__ import annotations

import streamlit as st

from app.ask_widgets import marked, passage, question_terms, steps
from app.i18n import t
from app.session import current_user, require
from app.widgets import ai_notice, guarded, page_title, toy_notice
from core.ask import MAX_QUESTION, AskResult, active_index, ask, choices
from core.errors import NotFound

ROLES = ("clinician", "product", "engineer")
EXAMPLES = ("example_1", "example_2", "example_3")


def run(question: str) -> None:
    """Ask and keep the result for this tab; what was asked is in the database."""
    person = require(*ROLES)
    st.session_state.pop("ask_result", None)
    model = st.session_state.get("ask_model") or None
    with guarded(), st.spinner(t("ask.searching")):
        st.session_state["ask_result"] = ask(
            question,
            user_id=person.id,
            model=model,
            top_k=int(st.session_state.get("ask_top_k", 5)),
            with_rewrite=bool(model) and bool(st.session_state.get("ask_rewrite", True)),
            with_answer=bool(model),
        )


def take_example(name: str) -> None:
    """Put an example into the box and mark it for asking."""
    st.session_state["ask_question"] = t(f"ask.{name}")
    st.session_state["ask_now"] = True


def show_form() -> bool:
    """Question, examples, and who answers. True when it shall be asked."""
    with st.form("ask_form", border=False):
        st.text_area(
            t("ask.question"),
            key="ask_question",
            max_chars=MAX_QUESTION,
            height=90,
            placeholder=t("ask.placeholder"),
            label_visibility="collapsed",
        )
        is_asked = st.form_submit_button(t("ask.ask"), type="primary", icon=":material/search:")
    with st.container(horizontal=True):
        for name in EXAMPLES:
            st.button(t(f"ask.{name}"), key=f"ask_{name}", on_click=take_example, args=(name,), type="tertiary")
    names, serving = choices()
    with st.expander(t("ask.options"), icon=":material/tune:"):
        options = ["", *names]
        st.selectbox(
            t("ask.model"),
            options,
            index=options.index(serving) if serving in options else 0,
            format_func=lambda name: name or t("ask.no_model"),
            key="ask_model",
        )
        st.slider(t("ask.num_passages"), 3, 10, 5, key="ask_top_k")
        st.checkbox(t("ask.rewrite"), value=True, key="ask_rewrite")
    return bool(is_asked or st.session_state.pop("ask_now", False))


def show_result(result: AskResult) -> None:
    """The answer first, then what it rests on."""
    terms = question_terms(result.query)
    is_unknown = result.answer_kind == "unknown"
    st.subheader(t("ask.answer"), anchor=False)
    if is_unknown:
        st.warning(f"{t('ask.kind_unknown')} {t('ask.unknown_hint')}", icon=":material/help:")
    else:
        st.caption(t(f"ask.kind_{result.answer_kind}", model=result.model or ""))
        for line in result.answer.split("\n"):
            marked(line, (), "answer")
    if result.answer_kind == "model":
        ai_notice()
    else:
        st.caption(f":material/info: {t('ask.quoted_notice')}")
    if result.is_toy:
        toy_notice()
    steps(result)
    if result.contexts:
        st.subheader(t("ask.weak_passages" if is_unknown else "ask.passages"), anchor=False)
    for context in result.contexts:
        passage(context, terms)


require(*ROLES)
page_title("common.page_ask")
try:
    active_index()
except NotFound:
    st.info(t("ask.no_index"), icon=":material/manage_search:")
    st.stop()
if show_form():
    run(st.session_state["ask_question"])
shown = st.session_state.get("ask_result")
if shown is not None:
    with guarded():
        current_user()
        show_result(shown)
