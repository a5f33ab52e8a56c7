"""Telling others what happened: a signed POST for each new case, verdict, stop cord, promotion and roll-back.

The audit chain is the outbox. Every event is already an entry there, written in the very transaction that did the thing, so a webhook
only needs to remember how far it has read: nothing can be lost between the deed and the message, and after an outage of the receiver
everything follows in order. Delivery is at least once; `X-Consilium-Entry` tells repeats apart.

The signature is HMAC-SHA256 over "TIMESTAMP.BODY" (the form that Stripe made common): `X-Consilium-Signature: t=...,v1=HEX`. The body
names ids, never a question or an answer: what a patient wrote does not leave the house this way. Driven by the worker.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import audit
from core.errors import NotFound, UserError
from core.health import version
from core.models import require_role
from core.permit import permit
from core.records import Role
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

#: a name, an address, or an address of the sixth version
HOST = re.compile(r"[\w.-]{1,253}|[0-9a-fA-F:.%]{2,60}")
#: event -> the audit actions that it stands for
EVENTS: dict[str, tuple[str, ...]] = {
    "case.opened": ("open_cases", "file_safety_case"),
    "verdict.signed": ("adjudicate_signed",),
    "stop_cord": ("adjudicate_stop_cord", "file_safety_case"),
    "version.promoted": ("promote",),
    "version.rolled_back": ("roll_back",),
}
#: what of an entry's detail is told; free text stays in the house
TOLD = (
    *("conflict_id", "conflict", "completion_id", "completion", "verdict", "num_cases", "job_id"),
    *("to", "from", "event", "version", "origin"),
)
TIMEOUT_S = 5.0
BATCH = 50
MAX_PAUSE_S = 3600.0

#: (url, headers, body) -> HTTP status; raises OSError or httpx.HTTPError
Post = Callable[[str, dict[str, str], bytes], int]


@dataclass(frozen=True, slots=True)
class WebhookShown:
    """A webhook without its secret. `num_behind` is how many entries it has not read yet."""

    id: int
    url: str
    events: tuple[str, ...]
    is_active: bool
    num_behind: int
    num_failures: int
    last_error: str
    last_delivered_at: datetime | None


def create(user_id: int, url: str, events: Sequence[str]) -> tuple[int, str]:
    """Add a webhook from now on; returns its id and its secret, which is shown this once. Administrators only.

    Raises Forbidden, UserError("webhooks.bad_url" / "webhooks.no_events" / "webhooks.no_such_event").
    """
    permit("webhooks.create", user_id)
    try:
        parts = urlsplit(url.strip())
        is_address = parts.scheme in ("http", "https") and HOST.fullmatch(parts.hostname or "") and parts.port != 0
    except ValueError:  # an unclosed bracket, a port that is no number
        is_address = False
    if not is_address or parts.username or parts.password or len(url) > 2000 or not url.strip().isprintable():
        raise UserError("webhooks.bad_url", url=url[:200])
    chosen = [name for name in EVENTS if name in set(events)]
    if unknown := sorted(set(events) - set(EVENTS)):
        raise UserError("webhooks.no_such_event", name=unknown[0], known=", ".join(EVENTS))
    if not chosen:
        raise UserError("webhooks.no_events")
    secret = secrets.token_urlsafe(32)
    with write_session() as session:
        require_role(session.get(t.User, user_id), Role.ADMIN)
        row = t.Webhook(url=url.strip(), secret=secret, events=chosen, created_by=user_id)
        session.add(row)
        session.flush()
        entry = audit.record(session, "add_webhook", "webhook", row.id, actor_id=user_id, detail={"host": parts.hostname, "events": chosen})
        row.last_entry_id = entry.id
        return row.id, secret


def remove(user_id: int, webhook_id: int) -> None:
    """Take a webhook away. Raises Forbidden, NotFound("webhooks.no_such_webhook")."""
    with write_session() as session:
        require_role(session.get(t.User, user_id), Role.ADMIN)
        session.delete(_row(session, webhook_id))
        audit.record(session, "remove_webhook", "webhook", webhook_id, actor_id=user_id)


def set_active(user_id: int, webhook_id: int, is_active: bool) -> None:
    """Pause a webhook, or let it go on where it stopped. Raises Forbidden, NotFound("webhooks.no_such_webhook")."""
    with write_session() as session:
        require_role(session.get(t.User, user_id), Role.ADMIN)
        row = _row(session, webhook_id)
        row.is_active, row.num_failures, row.next_try_at = is_active, 0, None
        audit.record(session, "set_webhook", "webhook", webhook_id, actor_id=user_id, detail={"is_active": is_active})


def listing(user_id: int) -> list[WebhookShown]:
    """All webhooks, oldest first. Raises Forbidden."""
    with read_session() as session:
        require_role(session.get(t.User, user_id), Role.ADMIN)
        found = []
        for row in session.scalars(select(t.Webhook).order_by(t.Webhook.id)):
            wanted = [action for name in row.events for action in EVENTS.get(name, ())]
            behind = select(func.count(t.AuditEntry.id)).where(t.AuditEntry.id > row.last_entry_id, t.AuditEntry.action.in_(wanted))
            found.append(
                WebhookShown(
                    row.id,
                    row.url,
                    tuple(row.events),
                    row.is_active,
                    session.scalar(behind) or 0,
                    row.num_failures,
                    row.last_error,
                    row.last_delivered_at,
                )
            )
        return found


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """The value of X-Consilium-Signature. A receiver computes it again and refuses old timestamps (replay)."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def deliver_due(post: Post | None = None, now: datetime | None = None) -> int:
    """One round over all active webhooks; returns how many messages arrived. A receiver that fails is tried again later, alone."""
    now = now or utc_now()
    with read_session() as session:
        query = select(t.Webhook.id).where(t.Webhook.is_active, (t.Webhook.next_try_at.is_(None)) | (t.Webhook.next_try_at <= now))
        due = list(session.scalars(query.order_by(t.Webhook.id)))
    return sum(_deliver(webhook_id, post or _post, now) for webhook_id in due)


def _deliver(webhook_id: int, post: Post, now: datetime) -> int:
    with read_session() as session:
        row = session.get(t.Webhook, webhook_id)
        if row is None:
            return 0
        url, secret, events, start = row.url, row.secret, tuple(row.events), row.last_entry_id
        last = session.scalar(select(func.max(t.AuditEntry.id))) or 0
        actions = [action for name in events for action in EVENTS.get(name, ())]
        query = select(t.AuditEntry).where(t.AuditEntry.id > start, t.AuditEntry.id <= last, t.AuditEntry.action.in_(actions))
        entries = list(session.scalars(query.order_by(t.AuditEntry.id).limit(BATCH)))
    if not entries:
        if last > start:
            _note(webhook_id, last_entry_id=last)
        return 0
    num = 0
    for entry in entries:
        error = _send(url, secret, entry, [name for name in events if entry.action in EVENTS[name]], post)
        if error:
            _fail(webhook_id, error, now)
            return num
        num += 1
        _note(webhook_id, last_entry_id=entry.id, num_failures=0, next_try_at=None, last_error="", last_delivered_at=utc_now())
    return num


def _send(url: str, secret: str, entry: t.AuditEntry, events: Sequence[str], post: Post) -> str:
    """Post one entry; "" when it was taken, else why not."""
    import httpx

    told = {key: entry.detail[key] for key in TOLD if key in entry.detail}
    payload = {
        "id": entry.id,
        "event": events[0],
        "events": list(events),
        "at": entry.created_at.isoformat(),
        "object": {"type": entry.object_type, "id": entry.object_id},
        "detail": told,
        "entry_hash": entry.entry_hash,
    }
    body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"Consilium/{version()}",
        "X-Consilium-Event": events[0],
        "X-Consilium-Entry": str(entry.id),
        "X-Consilium-Signature": signature(secret, int(time.time()), body),
    }
    try:
        status = post(url, headers, body)
    except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "" if 200 <= status < 300 else f"HTTP {status}"


def _post(url: str, headers: dict[str, str], body: bytes) -> int:
    import httpx

    return httpx.post(url, headers=headers, content=body, timeout=TIMEOUT_S, follow_redirects=False).status_code


def _fail(webhook_id: int, error: str, now: datetime) -> None:
    with write_session() as session:
        row = session.get(t.Webhook, webhook_id)
        if row is not None:
            row.num_failures += 1
            row.last_error = error
            row.next_try_at = now + timedelta(seconds=min(MAX_PAUSE_S, 5.0 * 2 ** min(row.num_failures, 12)))


def _note(webhook_id: int, **values: Any) -> None:
    with write_session() as session:
        row = session.get(t.Webhook, webhook_id)
        for name, value in values.items() if row is not None else ():
            setattr(row, name, value)


def _row(session: Session, webhook_id: int) -> t.Webhook:
    row = session.get(t.Webhook, webhook_id)
    if row is None:
        raise NotFound("webhooks.no_such_webhook", id=webhook_id)
    return row
