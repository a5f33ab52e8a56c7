"""POST /api/ask: a question -> passages with their sources -> an answer that cites them. Every signed-in role may ask."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from app.api.access import allowed, language_of
from core.accounts import Person
from core.ask import MAX_QUESTION, MAX_TOP_K, ask, note_text

router = APIRouter(tags=["ask"])
Asker = Annotated[Person, Depends(allowed("clinician", "product", "engineer"))]


class Question(BaseModel):
    """`model` is a version's name; left out, the serving version answers. An empty question is refused with a sentence."""

    query: str = Field(max_length=MAX_QUESTION)
    model: str | None = None
    index: str = "guidelines"
    top_k: int = Field(default=5, ge=1, le=MAX_TOP_K)
    with_rewrite: bool = True
    with_answer: bool = True


class ContextOut(BaseModel):
    """A passage. `doors` says what found it: the question, the model's rewriting (pseudo_doc), or its document."""

    rank: int
    title: str
    section: str
    page: int | None
    source: str
    date: str
    file: str
    text: str
    score: float
    doors: tuple[str, ...]


class AnswerOut(BaseModel):
    """`answer_kind`: written by a model, quoted word for word (extractive), or unknown. `notes` are sentences."""

    query: str
    pseudo_doc: str
    contexts: list[ContextOut]
    answer: str
    answer_kind: Literal["model", "extractive", "unknown"]
    model: str | None
    is_toy: bool
    support: float
    index: dict[str, Any]
    notes: list[str]
    timings_ms: dict[str, float]
    event_id: int | None


@router.post("/ask")
def post_ask(asked: Question, person: Asker, request: Request) -> AnswerOut:
    """Search the guidelines and answer from what was found."""
    result = ask(
        asked.query,
        user_id=person.id,
        model=asked.model,
        index=asked.index,
        top_k=asked.top_k,
        with_rewrite=asked.with_rewrite,
        with_answer=asked.with_answer,
    )
    language = language_of(request)
    return AnswerOut(
        query=result.query,
        pseudo_doc=result.pseudo_doc,
        contexts=[ContextOut.model_validate(c, from_attributes=True) for c in result.contexts],
        answer=result.answer,
        answer_kind=result.answer_kind,
        model=result.model,
        is_toy=result.is_toy,
        support=result.support,
        index=result.index,
        notes=[note_text(note, language) for note in result.notes],
        timings_ms=result.timings_ms,
        event_id=result.event_id,
    )
