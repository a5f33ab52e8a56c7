"""Tokens that count once and for a while: the hidden field of a sign-in form, the state of a sign-in at an outside provider.

A token is `expiry.random.signature`, the signature an HMAC with the home's secret over purpose, expiry and random, so that nothing is
stored until it is used. Using it stores its hash until it would have run out anyway; a second use finds the hash. Called by app.auth and
app.oidc.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from core.errors import UserError
from core.home import current_home
from core.serving.token import kept_secret
from db import tables as t
from db.base import utc_now
from db.engine import write_session


def issue(purpose: str, minutes: float) -> str:
    """A token for `purpose`, good for one use within `minutes`."""
    body = f"{int((utc_now() + timedelta(minutes=minutes)).timestamp())}.{secrets.token_urlsafe(18)}"
    return f"{body}.{_signature(purpose, body)}"


def spend(purpose: str, token: str) -> None:
    """Use the token up. Raises UserError("accounts.stale_form") when it is not ours, too old, or was used before."""
    body, _, signature = token.rpartition(".")
    ends, _, _ = body.partition(".")
    is_ours = hmac.compare_digest(signature.encode(), _signature(purpose, body).encode())
    if not is_ours or int(ends) < utc_now().timestamp():
        raise UserError("accounts.stale_form")
    spent = t.SpentToken(token_hash=hashlib.sha256(token.encode()).hexdigest(), expires_at=datetime.fromtimestamp(int(ends), UTC))
    try:
        with write_session() as session:
            session.execute(delete(t.SpentToken).where(t.SpentToken.expires_at < utc_now()))
            session.add(spent)
    except IntegrityError as error:
        raise UserError("accounts.stale_form") from error


def _signature(purpose: str, body: str) -> str:
    key = kept_secret(current_home(), "nonce_key").encode()
    return hmac.new(key, f"{purpose}\n{body}".encode(), hashlib.sha256).hexdigest()
