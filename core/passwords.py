"""Passwords: hashing, and checking one against guessing.

Hashing takes about 0.2 s of CPU by design; asynchronous callers run these functions in a thread. A failed attempt is counted
before the password is looked at, and an unknown name costs as much time as a known one. Called by `core.accounts`, the sign-in
pages and the API.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import delete, select, update

from core import audit
from core.errors import UserError
from db import tables as t
from db.base import utc_now
from db.engine import write_session

MIN_PASSWORD = 10
MAX_PASSWORD = 200
#: failed sign-ins within the window after which further ones are refused unread
FAILURE_WINDOW_MINUTES = 15
FAILURES_PER_ACCOUNT_AND_ADDRESS = 5
FAILURES_PER_ACCOUNT = 30
FAILURES_PER_ADDRESS = 50


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher()


@cache
def _decoy() -> str:
    """Checked for unknown users, so that an answer takes as long as for known ones."""
    return _hasher().hash(secrets.token_hex(16))


def hashed(password: str) -> str:
    """The argon2 hash to store."""
    return _hasher().hash(password)


def _matches(stored: str | None, password: str) -> bool:
    try:
        return _hasher().verify(stored or _decoy(), password) and stored is not None
    except VerificationError:
        return False


def check(password: str) -> None:
    """Raises UserError("accounts.password_too_short" / "accounts.password_too_long")."""
    if len(password) < MIN_PASSWORD:
        raise UserError("accounts.password_too_short", minimum=MIN_PASSWORD)
    if len(password) > MAX_PASSWORD:
        raise UserError("accounts.password_too_long", maximum=MAX_PASSWORD)


def authenticate(username: str, password: str, address: str) -> int:
    """The id of the account whose password this is.

    The attempt is counted before the password is looked at, so that parallel guesses cannot pass the limit together.
    Raises UserError("accounts.too_many_attempts") or UserError("accounts.wrong_password"); the latter says the same for
    an unknown name, a disabled account and a wrong password.
    """
    name = username.strip().lower()[:200]
    now = utc_now()
    since = now - timedelta(minutes=FAILURE_WINDOW_MINUTES)
    with write_session() as session:
        session.execute(delete(t.LoginFailure).where(t.LoginFailure.at < now - timedelta(days=1)))
        user = session.scalar(select(t.User).where(t.User.username == name))
        user_id = user.id if user else None
        stored = user.password_hash if user and user.is_active else None
        failures = list(
            session.execute(
                select(t.LoginFailure.username, t.LoginFailure.address).where(
                    t.LoginFailure.at >= since, (t.LoginFailure.username == name) | (t.LoginFailure.address == address)
                )
            )
        )
        num_here = sum(1 for n, a in failures if n == name and a == address)
        if (
            num_here >= FAILURES_PER_ACCOUNT_AND_ADDRESS
            or sum(1 for n, _ in failures if n == name) >= FAILURES_PER_ACCOUNT
            or sum(1 for _, a in failures if a == address) >= FAILURES_PER_ADDRESS
        ):
            raise UserError("accounts.too_many_attempts", minutes=FAILURE_WINDOW_MINUTES)
        attempt = t.LoginFailure(username=name, address=address)
        session.add(attempt)
        session.flush()
    if not _matches(stored, password[: MAX_PASSWORD + 1]):
        # the first and the last failure before the limit are worth an entry; the ones between would only flood the chain
        if num_here in (0, FAILURES_PER_ACCOUNT_AND_ADDRESS - 1):
            with write_session() as session:
                # an unknown name is not kept: it may be a password typed into the wrong field
                detail = {"address": address, "failures": num_here + 1, "is_known": user_id is not None}
                audit.record(session, "sign_in_failed", "user", user_id or "-", actor_id=None, detail=detail)
        raise UserError("accounts.wrong_password")
    if user_id is None:
        raise AssertionError("a matching password without an account")
    with write_session() as session:
        session.execute(delete(t.LoginFailure).where(t.LoginFailure.username == name, t.LoginFailure.address == address))
        if _hasher().check_needs_rehash(str(stored)):
            session.execute(update(t.User).where(t.User.id == user_id).values(password_hash=hashed(password)))
    return user_id
