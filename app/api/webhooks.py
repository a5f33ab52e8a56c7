"""/api/webhooks: who is told about cases, verdicts, stop cords and promotions. Administrators only."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import RowId, allowed
from core import webhooks
from core.accounts import Person

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
Admin = Annotated[Person, Depends(allowed())]


class WebhookIn(BaseModel):
    """Where to post, and which events: case.opened, verdict.signed, stop_cord, version.promoted, version.rolled_back."""

    url: str
    events: list[str] = Field(max_length=20)


class WebhookMade(BaseModel):
    """The secret is shown this once; it is the key of the signature."""

    id: int
    secret: str


class WebhookOut(BaseModel):
    """A webhook and how it is doing."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    url: str
    events: tuple[str, ...]
    is_active: bool
    num_behind: int
    num_failures: int
    last_error: str
    last_delivered_at: datetime | None


class ActiveIn(BaseModel):
    """Pause (false) or go on (true)."""

    is_active: bool


@router.get("")
def list_webhooks(person: Admin) -> list[WebhookOut]:
    """All webhooks, without their secrets."""
    return [WebhookOut.model_validate(row) for row in webhooks.listing(person.id)]


@router.post("", status_code=201)
def add_webhook(asked: WebhookIn, person: Admin) -> WebhookMade:
    """Add one; it is told about everything from now on."""
    webhook_id, secret = webhooks.create(person.id, asked.url, asked.events)
    return WebhookMade(id=webhook_id, secret=secret)


@router.patch("/{webhook_id}")
def set_webhook(webhook_id: RowId, asked: ActiveIn, person: Admin) -> None:
    """Pause it or let it go on where it stopped."""
    webhooks.set_active(person.id, webhook_id, asked.is_active)


@router.delete("/{webhook_id}", status_code=204)
def remove_webhook(webhook_id: RowId, person: Admin) -> None:
    """Take it away."""
    webhooks.remove(person.id, webhook_id)
