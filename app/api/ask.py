"""POST /api/ask: a question -> passages with their sources -> an answer that cites them. Every signed-in role may ask."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from app.api.access import allowed, language_of
from core.accounts import Person
from core.ask import MAX_QUESTION, MAX_TOP_K, AskResult, Context, ask, note_text
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


class DoorOut(BaseModel):
    """One way a passage was found: the wording, the leg, and whether the passage itself or a pseudo-question of it (`entry`)."""

    via: str
    leg: str
    kind: Literal["original", "syn"]
    entry: str
    rank: int
    score: float


class ContextOut(BaseModel):
    """A passage. `doors` says what found it: question, glossary, summary, the model's rewriting (pseudo_doc), an expansion line,
    or its document (same_document). `stages`, when explained: its (rank, score) in every list."""

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
    why: list[DoorOut]
    stages: dict[str, tuple[int, float]] = Field(default_factory=dict)
    content_hash: str

    @classmethod
    def of(cls, context: Context, *, explain: bool) -> ContextOut:
        made = cls.model_validate(context, from_attributes=True)
        return made if explain else made.model_copy(update={"stages": {}})


class Explained(BaseModel):
    """What was searched for and what each stage ranked: lists of (chunk number, score), best first."""

    wordings: list[dict[str, Any]]
    corrections: list[tuple[str, str]]
    terms: list[tuple[str, str]]
    stages: dict[str, list[tuple[int, float]]]
    search_ms: dict[str, float]
    plan: dict[str, Any]


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
    threshold: float
    index: dict[str, Any]
    notes: list[str]
    timings_ms: dict[str, float]
    event_id: int | None
    explained: Explained | None = None

    @classmethod
    def of(cls, result: AskResult, language: str, *, explain: bool) -> AnswerOut:
        plain = (
            "query",
            "pseudo_doc",
            "answer",
            "answer_kind",
            "model",
            "is_toy",
            "support",
            "threshold",
            "index",
            "timings_ms",
            "event_id",
        )
        return cls(
            **{name: getattr(result, name) for name in plain},
            contexts=[ContextOut.of(c, explain=explain) for c in result.contexts],
            notes=[note_text(note, language) for note in result.notes],
            explained=Explained.model_validate(result, from_attributes=True) if explain else None,
        )


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
def post_feedback(event_id: int, given: Feedback, person: Asker) -> dict[str, int]:
    """Say whether an answer or a passage of it helped. Only for one's own questions."""
    return {"id": give_feedback(event_id, given.kind, rank=given.rank, user_id=person.id)}
