"""Pieces of the Ask page: text with highlighted terms, one passage, the steps behind an answer.

Everything that comes from a document, a person or a model passes through `marked` or `st.text`: escaped, never as markup.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

import streamlit as st

from app.i18n import t
from app.session import language
from core.ask import AskResult, Context, note_text
from core.retrieval.tokens import highlights, query_tokens

STYLE = """<style>
.ask-text { line-height: 1.65; max-width: 46rem; overflow-wrap: anywhere; white-space: pre-wrap; }
.ask-text mark { background: color-mix(in srgb, #1b6b7f 22%, transparent); color: inherit; border-radius: .2rem; padding: 0 .1em; }
.ask-text.answer { font-size: 1.05rem; border-left: 3px solid #1b6b7f; padding-left: .9rem; }
</style>"""


def marked(text: str, terms: Iterable[str], kind: str = "passage") -> None:
    """Plain text with the question's words marked."""
    parts, last = [], 0
    for start, end in highlights(text, terms):
        parts += [html.escape(text[last:start]), "<mark>", html.escape(text[start:end]), "</mark>"]
        last = end
    parts.append(html.escape(text[last:]))
    st.html(f'{STYLE}<div class="ask-text {html.escape(kind)}">{"".join(parts)}</div>')


def passage(context: Context, terms: Iterable[str]) -> None:
    """One passage: where it stands, what it says, what found it."""
    with st.container(border=True):
        st.html(f"<strong>[{context.rank}] {html.escape(context.title)}</strong>")
        if context.section and context.page:
            place = t("ask.place", section=context.section, page=context.page)
        else:
            place = t("ask.page_only", page=context.page) if context.page else context.section
        date = t("ask.reviewed", date=context.date) if context.date else ""
        st.html(f"<small>{html.escape(' · '.join(filter(None, [place, date, context.file])))}</small>")
        marked(context.text, terms)
        source = t("ask.source", source=context.source) if context.source else t("ask.no_source")
        doors = ", ".join(t(f"ask.door_{door}") for door in context.doors)
        found = t("ask.found_by", doors=doors, rank=context.rank, score=f"{context.score:.4f}")
        st.html(f"<small>{html.escape(source)}<br>{html.escape(found)}</small>")


def steps(result: AskResult) -> None:
    """Folded: notes, the rewriting, the index version and the time of each step."""
    with st.expander(t("ask.details"), icon=":material/timer:"):
        for note in result.notes:
            st.text(note_text(note, language()))
        if result.pseudo_doc:
            st.caption(t("ask.pseudo_doc"))
            st.text(result.pseudo_doc)
        rows = [{t("ask.timing"): t(f"ask.step_{step}"), t("ask.milliseconds"): ms} for step, ms in result.timings_ms.items()]
        st.dataframe(rows, hide_index=True, width="content")
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


def question_terms(question: str) -> list[str]:
    """The search tokens of a question, for marking."""
    return query_tokens(question)
