"""What a teacher model must reply, read strictly: the five fields in their ranges, or nothing. Pure.

Called by `core.teacher.endpoint` for every reply. A reply that is off the menu is unscored; it is never mended or guessed.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

_FENCED = re.compile(r"^\s*```(?:json)?\s*(\{.*\})\s*```\s*$", re.DOTALL)


class Verdict(BaseModel):
    """The verdict. Unknown fields, strings for numbers, NaN and scores outside 0 to 1 are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    receipt: str
    teacher_score: float = Field(ge=0, le=1)
    safety_flag: bool
    critique: str = Field(min_length=1)
    suggested_answer: str | None


#: for endpoints that take a JSON schema; the receipt is a plain string, so that constrained decoding cannot fill it in for the judge
SCHEMA: dict[str, Any] = {
    "name": "verdict",
    "strict": True,
    "schema": {
        "type": "object",
        "properties": {
            "receipt": {"type": "string"},
            "teacher_score": {"type": "number"},
            "safety_flag": {"type": "boolean"},
            "critique": {"type": "string"},
            "suggested_answer": {"type": ["string", "null"]},
        },
        "required": ["receipt", "teacher_score", "safety_flag", "critique", "suggested_answer"],
        "additionalProperties": False,
    },
}


def read_verdict(text: str, receipt: str) -> Verdict | None:
    """The verdict that `text` is (one JSON object, a code fence around it is forgiven) and that carries `receipt`, or None."""
    fenced = _FENCED.match(text)
    try:
        verdict = Verdict.model_validate_json(fenced.group(1) if fenced else text)
    except ValidationError:
        return None
    return verdict if verdict.receipt == receipt and verdict.critique.strip() else None


def read_reply(body: Any, receipt: str) -> tuple[Verdict | None, str | None]:
    """The verdict in a chat completion's JSON, or the reason (of `REASONS`) why it holds none."""
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return None, "off_menu_verdict"
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        return None, "refused"
    content = message.get("content")
    verdict = read_verdict(content, receipt) if isinstance(content, str) else None
    if verdict is None:
        return None, "cut_off" if choice.get("finish_reason") == "length" else "off_menu_verdict"
    return verdict, None
