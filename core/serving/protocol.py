"""OpenAI's chat-completions JSON: what we accept, refuse and send back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.errors import UserError
from core.records import Message

if TYPE_CHECKING:
    from core.model_server import Answer
    from core.serving.scheduler import Done

#: Parameters that would change the answer and that we do not have: refused, because ignoring them would be a lie.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "stop": (None, [], ""),
    "top_p": (None, 1, 1.0),
    "tools": (None, []),
    "logprobs": (None, False),
    "presence_penalty": (None, 0, 0.0),
    "frequency_penalty": (None, 0, 0.0),
    "logit_bias": (None, {}),
    "response_format": (None, {"type": "text"}),
}


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """Unknown fields are allowed (clients add their own); those named in NEUTRAL only with a value that changes nothing."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1)
    messages: list[ChatMessage] = Field(min_length=1, max_length=200)
    temperature: float = Field(default=1.0, ge=0, le=2)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    max_tokens: int | None = Field(default=None, ge=1, le=32768)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=32768)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def to_messages(self) -> list[Message]:
        return [Message("system" if m.role == "developer" else m.role, m.content) for m in self.messages]

    def check_supported(self) -> None:
        """Raises UserError("serving.unsupported") for a parameter that we would have to ignore."""
        for name, value in (self.model_extra or {}).items():
            if name in NEUTRAL and value not in NEUTRAL[name]:
                raise UserError("serving.unsupported", name=name)


def completion(answer: Answer, text: str, done: Done) -> dict[str, Any]:
    """The body of a non-streamed answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": done.finish_reason, "logprobs": None}
    return {**_head(answer, "chat.completion"), "choices": [choice], "usage": usage_of(done), "consilium": answer.about}


def piece(
    answer: Answer,
    delta: dict[str, Any] | None,
    finish_reason: str | None = None,
    *,
    usage: Done | None = None,
    consilium: dict[str, object] | None = None,
) -> dict[str, Any]:
    """The body of one streamed event; without a delta it carries the usage only, as OpenAI's last one does."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}]
    body = {**_head(answer, "chat.completion.chunk"), "choices": choices}
    if usage is not None:
        body["usage"] = usage_of(usage)
    if consilium is not None:
        body["consilium"] = consilium
    return body


def usage_of(done: Done) -> dict[str, int]:
    return {
        "prompt_tokens": done.num_prompt_tokens,
        "completion_tokens": done.num_tokens,
        "total_tokens": done.num_prompt_tokens + done.num_tokens,
    }


def _head(answer: Answer, kind: str) -> dict[str, Any]:
    return {"id": answer.id, "object": kind, "created": answer.created, "model": answer.served.name}
