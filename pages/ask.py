"""Ask: a question to the guidelines -> an answer with citations -> the passages it rests on, each with why it is here."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.ask_expansion_widgets import expander_box, expander_changes
from app.ask_widgets import NUM_OPEN, STYLE, marked, passage_body, passage_head, question_terms, rate_text, steps, understood, why
from app.i18n import t
from app.session import current_user, require
from app.widgets import ai_notice, guarded, page_title, toy_notice
from core.ask import MAX_QUESTION, AskResult, Context, ask, choices
from core.ask_feedback import give_feedback
from core.searching import active_indexes

ROLES = ("clinician", "product", "engineer")
EXAMPLES = ("example_1", "example_2", "example_3")
#: stages that an engineer can switch off for one question, with the field of the plan and the value that is "off"
SWITCHES: dict[str, Any] = {"lexical": 0, "dense": 0, "glossary": 0, "spelling": False, "summary": 0, "with_syn": False, "reranker": ""}


def run(question: str) -> None:
    """Ask and keep the result for this tab; what was asked is in the database."""
    person = require(*ROLES)
    st.session_state.pop("ask_result", None)
    model = st.session_state.get("ask_model") or None
    with guarded(), st.spinner(t("ask.searching")):
        st.session_state["ask_judged"] = {}
        st.session_state["ask_result"] = ask(
            question,
            user_id=person.id,
            model=model,
            index=str(st.session_state.get("ask_index") or "guidelines"),
            top_k=int(st.session_state.get("ask_top_k", 5)),
            with_rewrite=bool(model) and bool(st.session_state.get("ask_rewrite", True)),
            with_answer=bool(model),
            plan=expander_changes() | {n: off for n, off in SWITCHES.items() if st.session_state.get(f"ask_on_{n}") is False},
            channel="page",
        )


def take_example(name: str) -> None:
    """Put an example into the box and mark it for asking."""
    st.session_state["ask_question"] = t(f"ask.{name}")
    st.session_state["ask_now"] = True


def judge(event_id: int, kind: str, rank: int | None = None) -> None:
    """Remember one act on the answer that is shown."""
    person = require(*ROLES)
    with guarded():
        give_feedback(event_id, kind, rank=rank, user_id=person.id)
        st.session_state.setdefault("ask_judged", {})[rank if kind != "opened" else -(rank or 0)] = kind


def show_form(is_engineer: bool) -> bool:
    """Question, examples, and who answers. True when it shall be asked."""
    with st.form("ask_form", border=False):
        label = t("ask.question")
        st.text_area(
            label, key="ask_question", max_chars=MAX_QUESTION, height=90, placeholder=t("ask.placeholder"), label_visibility="collapsed"
        )
        st.html(f"{STYLE}<small>{t('ask.box_hint', limit=MAX_QUESTION)}</small>")
        is_asked = st.form_submit_button(t("ask.ask"), type="primary", icon=":material/search:")
    with st.container(horizontal=True):
        for name in EXAMPLES:
            st.button(t(f"ask.{name}"), key=f"ask_{name}", on_click=take_example, args=(name,), type="tertiary")
    names, serving = choices()
    with st.expander(t("ask.options"), icon=":material/tune:"):
        if len(indexes) > 1:
            st.selectbox(t("ask.index"), [shown.name for shown in indexes], key="ask_index")
        options = ["", *names]
        start = options.index(serving) if serving in options else 0
        st.selectbox(t("ask.model"), options, index=start, format_func=lambda name: name or t("ask.no_model"), key="ask_model")
        st.slider(t("ask.num_passages"), 3, 10, 5, key="ask_top_k")
        st.checkbox(t("ask.rewrite"), value=True, key="ask_rewrite")
        if is_engineer:
            expander_box(str(st.session_state.get("ask_index") or "guidelines"))
            st.caption(t("ask.switches"))
            with st.container(horizontal=True):
                for name in SWITCHES:
                    st.checkbox(t(f"ask.switch_{name}"), value=True, key=f"ask_on_{name}")
    return bool(is_asked or st.session_state.pop("ask_now", False))


def show_judging(event_id: int, rank: int | None) -> None:
    """Two buttons, and what was chosen."""
    yes, no = ("up", "down") if rank is None else ("helped", "not_helped")
    chosen = st.session_state.get("ask_judged", {}).get(rank)
    for kind, icon in ((yes, "thumb_up"), (no, "thumb_down")):
        is_chosen = chosen == kind
        label = t(f"ask.judge_{kind}_done" if is_chosen else f"ask.judge_{kind}")
        st.button(
            label, key=f"ask_{kind}_{rank}", icon=f":material/{icon}:", type="tertiary", disabled=is_chosen,
            on_click=judge, args=(event_id, kind, rank),
        )  # fmt: skip


def show_passage(result: AskResult, context: Context, *, is_engineer: bool) -> None:
    """One passage; those further down are folded until somebody opens them."""
    event_id = int(result.event_id or 0)
    with st.container(border=True):
        passage_head(context)
        if context.rank <= NUM_OPEN or -context.rank in st.session_state.get("ask_judged", {}):
            passage_body(context, question_terms(result))
            with st.container(horizontal=True):
                why(context, with_scores=is_engineer)
                show_judging(event_id, context.rank)
        else:
            label = t("ask.open")
            st.button(label, key=f"ask_open_{context.rank}", type="tertiary", on_click=judge, args=(event_id, "opened", context.rank))


def show_result(result: AskResult, *, is_engineer: bool) -> None:
    """The answer first, then what it rests on."""
    is_unknown = result.answer_kind == "unknown"
    st.subheader(t("ask.answer"), anchor=False)
    understood(result)
    if is_unknown:
        st.warning(f"{t('ask.kind_unknown')} {t('ask.unknown_hint')} {rate_text(result.rates)}", icon=":material/help:")
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
    with st.container(horizontal=True):
        show_judging(int(result.event_id or 0), None)
    steps(result, with_stages=is_engineer)
    if result.contexts:
        st.subheader(t("ask.weak_passages" if is_unknown else "ask.passages"), anchor=False)
    for context in result.contexts:
        show_passage(result, context, is_engineer=is_engineer)


is_engineer = require(*ROLES).role in ("engineer", "admin")
page_title("common.page_ask")
indexes = active_indexes()
if not indexes:
    st.info(t("ask.no_index"), icon=":material/manage_search:")
    st.stop()
if show_form(is_engineer):
    run(st.session_state["ask_question"])
shown_result = st.session_state.get("ask_result")
if shown_result is not None:
    with guarded():
        current_user()
        show_result(shown_result, is_engineer=is_engineer)
