"""Pieces of the arbitration page: the case with its sentences, earlier rulings, and names of verdicts and values."""

from __future__ import annotations

from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.i18n import t
from core.desk import arbitration
from core.desk.arbitration import Dispute, Side

#: colours stand for readers instead of names
PALETTE: dict[str, Literal["blue", "violet", "green"]] = {"A": "blue", "B": "violet", "C": "green"}


def verdict_name(verdict: object) -> str:
    """A verdict in the person's language."""
    return t(f"arbitration.verdict_{verdict}")


def value_name(value: object) -> str:
    """A criterion's value in the person's language; nothing stated says so."""
    return t(f"arbitration.{value}") if value else t("arbitration.unset")


def sentences_box(user_id: int, dispute: Dispute) -> None:
    """Question, answer, thinking, scores on request, and earlier rulings. Texts are shown as text, never as markup."""
    st.markdown(f"**{t('arbitration.question')}** · #{dispute.conflict_id}")
    for turn in dispute.case["turns"]:
        st.text(turn["text"])
    st.markdown(f"**{t('arbitration.answer')}**")
    st.text("\n".join(f"a{n}  {text}" for n, text in enumerate(dispute.case["answer"], start=1)) or "–")
    if dispute.case["thinking"]:
        with st.expander(t("arbitration.thinking")):
            st.text("\n".join(f"t{n}  {text}" for n, text in enumerate(dispute.case["thinking"], start=1)))
    with st.expander(t("arbitration.scores")):
        show_scores(user_id, dispute.conflict_id)
    st.markdown(f"**{t('arbitration.similar')}**")
    if not dispute.similar:
        st.caption(t("arbitration.no_similar"))
    for one in dispute.similar:
        with st.container(border=True):
            st.caption(f"#{one.conflict_id} · {verdict_name(one.verdict)} · {t('arbitration.alike', percent=round(100 * one.similarity))}")
            st.text(one.question)
            st.text(one.reason)


def show_scores(user_id: int, conflict_id: int) -> None:
    """The teacher's score and critique, and the rules' scores."""
    found = arbitration.scores(user_id, conflict_id)
    teacher = found["teacher"]
    if teacher is not None:
        score = t("arbitration.unscored") if teacher["score"] is None else f"{teacher['score']:.2f}"
        st.text(t("arbitration.teacher_said", score=score, critique=teacher["critique"]))
    rules = found["rules_value"]
    st.text(t("arbitration.rules_said", score=t("arbitration.unscored") if rules is None else f"{rules:.2f}"))
    for rule in found["rules"]:
        st.text(f"{t('scoring.' + rule['id'])}: {t('arbitration.unscored') if rule['score'] is None else format(rule['score'], '.2f')}")


def show_side(column: DeltaGenerator, side: Side) -> None:
    """What a reader wrote beside the rows."""
    column.caption(t("arbitration.note_of", letter=side.letter))
    column.text(side.note or t("arbitration.no_note"))
    if side.revision_reason:
        column.caption(t("arbitration.changed_because", reason=side.revision_reason))
    if side.marks:
        marks = ", ".join(f"{sentence} {mark}" for sentence, mark in side.marks.items())
        column.caption(t("arbitration.marks_of", letter=side.letter, marks=marks))
    for cited in side.evidence:
        with column.expander(t("arbitration.evidence_of", letter=side.letter, title=cited["title"]), icon=":material/menu_book:"):
            st.text(cited["text"])
            place = [cited["section"], cited["source"], cited["date"], f"{cited['index_name']} v{cited['index_version']}"]
            st.caption(" · ".join(part for part in place if part))
    if side.rewritten_answer:
        with column.expander(t("arbitration.rewrite_of", letter=side.letter)):
            st.text(side.rewritten_answer)


def show_ruled(dispute: Dispute) -> None:
    """A ruling and what the readers had said; nothing can be changed any more."""
    ruling = dispute.ruling or {}
    st.success(t("arbitration.ruling", at=f"{ruling['at']:%Y-%m-%d %H:%M}") + f": {verdict_name(ruling['verdict'])}")
    st.text(ruling["reason"])
    st.caption(ruling["signed_meaning"])
    for column, side in zip(st.columns(len(dispute.sides)), dispute.sides, strict=True):
        column.markdown(f":{PALETTE[side.letter]}[**{t('arbitration.reader', letter=side.letter)}**] {verdict_name(side.verdict)}")
        column.caption(t("arbitration.blind_was", verdict=verdict_name(side.blind)))
        show_side(column, side)
