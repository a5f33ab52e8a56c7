"""POST /api/v1/chat/completions: the Ask path for programs that speak OpenAI's protocol, with citations.

The last user message is the question; `model` is "consilium-ask" (the version in service answers) or "consilium-ask:VERSION".
An answer is checked for citations before anybody sees it, so a stream starts at once but brings its text when it is whole.
Citations come twice: as [1] in the text and as `citations` and `contexts` beside it. Called with an API token or a sign-in.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import language_of
from app.api.ask import Asker
from app.ask_answer import ContextOut
from app.errors import describe
from core.ask import CITATION, MAX_TOP_K, AskResult, ask, note_text
from core.errors import NotFound, UserError

router = APIRouter(prefix="/v1", tags=["chat"])
MODEL = "consilium-ask"


class Part(BaseModel):
    """A piece of a message; only text is read."""

    model_config = ConfigDict(extra="ignore")
    type: str
    text: str = ""


class Said(BaseModel):
    """One message of the conversation."""

    model_config = ConfigDict(extra="ignore")
    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class ChatRequest(BaseModel):
    """OpenAI's request; what has no meaning here (temperature ...) is ignored. `index` and `top_k` are our own additions."""

    model_config = ConfigDict(extra="ignore")
    model: str = MODEL
    messages: list[Said] = Field(min_length=1)
    stream: bool = False
    index: str = "guidelines"
    top_k: int = Field(default=5, ge=1, le=MAX_TOP_K)


@router.get("/models")
def get_models(_person: Asker) -> dict[str, Any]:
    """The one model there is."""
    return {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "consilium"}]}


STREAM = {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Whole, or event by event with `stream`"}


@router.post("/chat/completions", response_model=None, responses={200: STREAM})
def post_chat(asked: ChatRequest, person: Asker, request: Request) -> dict[str, Any] | StreamingResponse:
    """Answer the last user message from the guidelines."""
    name, _, version = asked.model.partition(":")
    if name != MODEL:
        raise NotFound("ask.no_chat_model", name=asked.model, known=MODEL)
    question = next((said.text for said in reversed(asked.messages) if said.role == "user"), "")
    language = language_of(request)

    def answer() -> AskResult:
        return ask(question, user_id=person.id, model=version or None, index=asked.index, top_k=asked.top_k, channel="chat")

    about = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model}
    if asked.stream:
        return StreamingResponse(_events(about, answer, language), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
    result = answer()
    message = {"role": "assistant", "content": result.answer, "annotations": _annotations(result)}
    return {
        **about,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        **_extras(result, language),
    }


def _events(about: dict[str, Any], answer: Any, language: str) -> Iterator[str]:
    """Server-sent events: the role at once, the answer line by line, the citations with the last one."""

    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return f"data: {json.dumps({**about, 'object': 'chat.completion.chunk', 'choices': [choice], **more}, ensure_ascii=False)}\n\n"

    yield event({"role": "assistant", "content": ""})
    try:
        result = answer()
    except UserError as error:  # the response has begun: the sentence must travel inside it
        told = describe(error, language)
        yield f"data: {json.dumps({'error': {'code': told.code, 'message': told.text}}, ensure_ascii=False)}\n\n"
        return
    for line in result.answer.splitlines(keepends=True):
        yield event({"content": line})
    yield event({"annotations": _annotations(result)}, "stop", **_extras(result, language))
    yield "data: [DONE]\n\n"


def _annotations(result: AskResult) -> list[dict[str, Any]]:
    """Where each [n] of the answer stands in the text and which passage it names."""
    places = {context.rank: context for context in result.contexts}
    found = []
    for match in CITATION.finditer(result.answer):
        context = places.get(int(match[1]))
        if context is not None:
            file = {"start_index": match.start(), "end_index": match.end(), "filename": context.file, "title": context.title}
            found.append({"type": "file_citation", "file_citation": file | {"section": context.section, "page": context.page}})
    return found


def _extras(result: AskResult, language: str) -> dict[str, Any]:
    return {
        "citations": [f"{c.title} ({c.file}{f', p. {c.page}' if c.page else ''})" for c in result.contexts],
        "contexts": [ContextOut.of(c, explain=False).model_dump() for c in result.contexts],
        "answer_kind": result.answer_kind,
        "support": result.support,
        "notes": [note_text(note, language) for note in result.notes],
    }
