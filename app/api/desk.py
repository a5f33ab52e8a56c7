"""The case desk over HTTP: the same conversation as the page's, for other front ends and for the fault tests.

POST /api/desk takes {messages, view} and answers with one receipt or refusal per message and what to show next; see
`core.desk.mailbox`. A decision is safe to resend: it is stored once per client id and answered with its first receipt.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from app.api.access import allowed
from core.accounts import Person
from core.desk.mailbox import MAX_MESSAGES, deliver

router = APIRouter(tags=["desk"])
Reviewer = Annotated[Person, Depends(allowed("clinician"))]


class Post(BaseModel):
    """`messages`: {id, type: claim|commit|sign|skip|stop_cord|heartbeat|release|draft|look, case, lease_token, version, form}."""

    messages: list[dict[str, Any]] = Field(default_factory=list, max_length=MAX_MESSAGES)
    view: dict[str, Any] = Field(default_factory=dict)


@router.post("/desk")
def post_desk(post: Post, person: Reviewer) -> dict[str, Any]:
    """Handle the messages in order, each in a transaction of its own, and return `acks`, `queue`, `cases` and `reveals`."""
    return deliver(person.id, person.language, post.model_dump(), session_id=person.session_id)
