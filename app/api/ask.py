"""POST /api/ask: a question -> passages with their sources -> an answer that cites them. Every signed-in role may ask."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from app.api.access import RowId, allowed, language_of
from app.ask_answer import AnswerOut
from core.accounts import Person
from core.ask import MAX_QUESTION, MAX_TOP_K, ask
from core.ask_feedback import FeedbackKind, give_feedback

router = APIRouter(tags=["ask"])
Asker = Annotated[Person, Depends(allowed("clinician", "product", "engineer"))]


class Question(BaseModel):
    """`model` is a version's name; left out, the serving version answers. An empty question is refused with a sentence.

    `plan` changes fields of the index's search plan for this question alone (a weight of 0 switches a leg off); `explain` adds
    what every stage ranked.
    """

    query: str = Field(max_length=MAX_QUESTION)
    model: str | None = None
    index: str = "guidelines"
    top_k: int = Field(default=5, ge=1, le=MAX_TOP_K)
    with_rewrite: bool = True
    with_answer: bool = True
    explain: bool = False
    plan: dict[str, Any] = Field(default_factory=dict)


class Feedback(BaseModel):
    """`up` and `down` are about the answer, the others about the passage shown at `rank`."""

    kind: FeedbackKind
    rank: int | None = Field(default=None, ge=1, le=MAX_TOP_K)


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
        plan=asked.plan,
        channel="api",
    )
    return AnswerOut.of(result, language_of(request), explain=asked.explain)


@router.post("/ask/{event_id}/feedback")
def post_feedback(event_id: RowId, given: Feedback, person: Asker) -> dict[str, int]:
    """Say whether an answer or a passage of it helped. Only for one's own questions."""
    return {"id": give_feedback(event_id, given.kind, rank=given.rank, user_id=person.id)}
