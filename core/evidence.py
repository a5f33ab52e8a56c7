"""Evidence for a text: the guideline passages that speak of it, each with everything needed to find the place again.

The same search as the Ask page, without a model and without being remembered: looking at a case must not count as a question.
Called by the desk's evidence panel and by the bench's answers with evidence; imports no torch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from core.ask import MAX_QUESTION, MAX_TOP_K, check_question
from core.records import Language
from core.searching import open_searcher


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage with its place. `content_hash` is the SHA-256 of its text: what is stored with a decision proves what was seen.

    `doors` names what found it, as on the Ask page; `score` is comparable within one call only.
    """

    title: str
    section: str
    page: int | None
    source: str
    date: str
    file: str
    text: str
    score: float
    doors: tuple[str, ...]
    index_id: int
    index_name: str
    index_version: int
    content_hash: str


def passages(text: str, *, language: Language | str | None = None, top_k: int = 5, index: str = "guidelines") -> list[Passage]:
    """The passages nearest to `text`, best first, at most `top_k`; empty when nothing shares a word with it.

    `language` is the language of the text where the caller knows it; the search finds it from the text. A text longer than a
    question may be is cut. Raises UserError("ask.empty_question" / "ask.index_other_format"), NotFound("ask.no_index"),
    Unavailable("ask.index_missing" / "ask.index_damaged").
    """
    question = check_question(text.strip()[:MAX_QUESTION])
    searcher = open_searcher(index)
    shown = searcher.shown
    return [
        Passage(
            title=hit.chunk.title,
            section=hit.chunk.section,
            page=hit.chunk.page,
            source=hit.chunk.source,
            date=hit.chunk.date,
            file=hit.chunk.file,
            text=hit.chunk.text,
            score=round(hit.score, 5),
            doors=hit.via,
            index_id=shown.id,
            index_name=shown.name,
            index_version=shown.version,
            content_hash=hashlib.sha256(hit.chunk.text.encode()).hexdigest(),
        )
        for hit in searcher.find(question, max(1, min(top_k, MAX_TOP_K))).hits
    ]
