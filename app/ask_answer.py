"""An answer as programs see it: one shape for POST /api/ask, the chat endpoint, the MCP tools and the command line."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from core.ask import AskResult, Context, note_text


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
    #: what the plan's expander did (model, status, lines, ms, budget_ms); empty without one
    expansion: dict[str, Any]
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
            "expansion",
            "event_id",
        )
        return cls(
            **{name: getattr(result, name) for name in plain},
            contexts=[ContextOut.of(c, explain=explain) for c in result.contexts],
            notes=[note_text(note, language) for note in result.notes],
            explained=Explained.model_validate(result, from_attributes=True) if explain else None,
        )
