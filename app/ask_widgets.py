"""Pieces of the Ask page: text with highlighted terms, one passage with why it is here, the steps behind an answer.

Everything that comes from a document, a person or a model passes through `marked` or `st.text`: escaped, never as markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

from app.i18n import t
from app.session import language
from core.ask import AskResult, Context, note_text
from core.retrieval.rewrite import EXPANSION
from core.retrieval.search import Door
from core.retrieval.tokens import highlights, query_tokens

#: Streamlit writes its hint under a text box in English only: it is hidden, and the page says it in the reader's language
STYLE = """<style>
.ask-text { line-height: 1.65; max-width: 46rem; overflow-wrap: anywhere; white-space: pre-wrap; }
.ask-text mark { background: color-mix(in srgb, #1b6b7f 22%, transparent); color: inherit; border-radius: .2rem; padding: 0 .1em; }
.ask-text.answer { font-size: 1.05rem; border-left: 3px solid #1b6b7f; padding-left: .9rem; }
[data-testid="InputInstructions"] { display: none; }
</style>"""
#: so many passages stand open; the others show their title, and opening one is remembered
NUM_OPEN = 3
#: wordings whose door has a name of its own
NAMED_DOORS = ("question", "glossary", "summary", "pseudo_doc", "same_document")


def marked(text: str, terms: Iterable[str], kind: str = "passage") -> None:
    """Plain text with the question's words marked."""
    parts, last = [], 0
    for start, end in highlights(text, terms):
        parts += [html.escape(text[last:start]), "<mark>", html.escape(text[start:end]), "</mark>"]
        last = end
    parts.append(html.escape(text[last:]))
    st.html(f'{STYLE}<div class="ask-text {html.escape(kind)}">{"".join(parts)}</div>')


def passage_head(context: Context) -> None:
    """Number and title, and where in the document it stands."""
    st.html(f"<strong>[{context.rank}] {html.escape(context.title)}</strong>")
    if context.section and context.page:
        place = t("ask.place", section=context.section, page=context.page)
    else:
        place = t("ask.page_only", page=context.page) if context.page else context.section
    date = t("ask.reviewed", date=context.date) if context.date else ""
    st.html(f"<small>{html.escape(' · '.join(filter(None, [place, date, context.file])))}</small>")


def passage_body(context: Context, terms: Iterable[str]) -> None:
    """What it says, and its source."""
    marked(context.text, terms)
    source = t("ask.source", source=context.source) if context.source else t("ask.no_source")
    st.html(f"<small>{html.escape(source)}</small>")


def why(context: Context, *, with_scores: bool) -> None:
    """Why this passage is here: its doors in words; for engineers also the rank and score of every stage."""
    with st.popover(t("ask.why"), icon=":material/help:", type="tertiary", key=f"ask_why_{context.rank}"):
        for door in context.why:
            st.text(door_text(door))
        if with_scores:
            rows = [
                {t("ask.stage"): stage, t("ask.rank"): rank, t("ask.score"): round(score, 4)}
                for stage, (rank, score) in context.stages.items()
            ]
            st.dataframe(rows, hide_index=True, width="content")


def door_text(door: Door) -> str:
    """A door as a sentence: "the question with the glossary's names, by words: rank 1 (the passage itself)"."""
    wording = wording_text(door.via)
    if not door.leg:
        return wording
    entry = t(f"ask.entry_{door.kind}", text=door.entry)
    return t("ask.door", wording=wording, leg=t(f"ask.leg_{door.leg}"), rank=door.rank, entry=entry)


def wording_text(name: str) -> str:
    """A wording's name for people; an expansion line is its own name."""
    match = EXPANSION.match(name)
    if name not in NAMED_DOORS and match:
        return t(f"ask.door_{match[1].lower()}", text=match[2])
    return t(f"ask.door_{name}")


def understood(result: AskResult) -> None:
    """What was corrected, and which terms of the glossary were recognised."""
    if result.corrections:
        pairs = t("ask.list_comma").join(f"{written} → {meant}" for written, meant in result.corrections)
        st.html(f"<small>{html.escape(t('ask.corrected', pairs=pairs))}</small>")
    if result.terms:
        pairs = t("ask.list_comma").join(f"{written} = {name}" for written, name in result.terms)
        st.html(f"<small>{html.escape(t('ask.terms', pairs=pairs))}</small>")


def rate_text(rates: Mapping[str, Any]) -> str:
    """How often that threshold was wrong on judged questions, or that nobody has measured it."""
    if not rates:
        return t("ask.not_calibrated")
    shares = {name: f"{rates[name]:.0%}" for name in ("false_answer", "false_unknown")}
    return t("ask.calibrated", num=rates["num"], **shares)


def steps(result: AskResult, *, with_stages: bool) -> None:
    """Folded: notes, the rewriting, the index version and the time of each step; for engineers each stage's lists."""
    with st.expander(t("ask.details"), icon=":material/timer:"):
        for note in result.notes:
            st.text(note_text(note, language()))
        if result.pseudo_doc:
            st.caption(t("ask.pseudo_doc"))
            st.text(result.pseudo_doc)
        expansion_lines(result)
        st.caption(f"{t('ask.support', support=f'{result.support:.2f}', threshold=f'{result.threshold:.2f}')} {rate_text(result.rates)}")
        timings(result.timings_ms)
        about = result.index
        st.caption(
            t(
                "ask.index_version",
                name=about["name"],
                version=about["version"],
                documents=about["num_documents"],
                chunks=about["num_chunks"],
            )
        )
        if with_stages:
            timings(result.search_ms)
            stages(result)


def expansion_lines(result: AskResult) -> None:
    """The lines that were searched beside the question; what went wrong stands among the notes."""
    about = result.expansion
    if about.get("lines"):
        st.caption(t(f"expansion_export.lines_{about['status']}", model=about["model"], ms=round(about["ms"])))
        for line in about["lines"]:
            st.text(wording_text(line))


def timings(laps: dict[str, float]) -> None:
    """Milliseconds per step."""
    rows = [{t("ask.timing"): t(f"ask.step_{step}"), t("ask.milliseconds"): ms} for step, ms in laps.items()]
    st.dataframe(rows, hide_index=True, width="content")


def stages(result: AskResult) -> None:
    """What was searched for and how many passages each list holds; a leg that finds nothing is seen at once."""
    shown = {context.parent: context.rank for context in result.contexts}
    wordings = [
        {t("ask.wording"): w["name"], t("ask.weight"): w["weight"], t("ask.searched"): w["lexical"] or w["dense"]} for w in result.wordings
    ]
    st.dataframe(wordings, hide_index=True)
    rows = []
    for name, ranking in result.stages.items():
        first = ", ".join(f"[{shown[number]}]" if number in shown else f"#{number}" for number, _ in ranking[:10])
        rows.append({t("ask.stage"): name, t("ask.num_found"): len(ranking), t("ask.first_ten"): first})
    st.dataframe(rows, hide_index=True)


def question_terms(result: AskResult) -> Sequence[str]:
    """The search tokens of what was asked and recognised, for marking."""
    return query_tokens(" ".join([result.query, *(name for _, name in result.terms), *(meant for _, meant in result.corrections)]))
