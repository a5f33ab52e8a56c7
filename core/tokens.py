"""Keys for programs: a token acts for its owner, never beyond the owner's role and only in the areas its scopes name.

Shown once, stored as SHA-256, with an end; revoked by its owner or an administrator; useless while the account is disabled. A
token cannot sign, make tokens or change accounts: those doors ask for a person (`core.access`). Called by the guard, the settings
page and the command line.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core import audit
from core.access import DOORS, SCOPES
from core.accounts import Person
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.home import current_home
from core.models import require_role
from core.records import Role
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

#: marks our tokens for people and for scanners of leaked secrets
PREFIX = "cst_"
MAX_DAYS = 365
MAX_OPEN = 50
#: "last used" is written at most this often
TOUCH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class TokenShown:
    """A token as listed. `hint` is how it begins; the rest nobody knows but its holder."""

    id: int
    user_id: int
    username: str
    name: str
    hint: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    is_open: bool


def scopes_for(role: str) -> tuple[str, ...]:
    """The scopes that open any door to a role."""
    useful = {door.scope for door in DOORS.values() if door.roles and role in door.roles}
    return tuple(scope for scope in SCOPES if scope in useful)


def create(user_id: int, name: str, scopes: Iterable[str], days: int, *, by: int | None) -> tuple[int, str]:
    """A new token for an account; returns its id and the token itself, which is not kept. `by` None is the command line.

    The owner may, and an administrator. Raises Forbidden, UserError("tokens.name_missing" / "tokens.bad_days" /
    "tokens.bad_scope"), NotFound("accounts.no_such_user"), Conflicting("tokens.too_many").
    """
    token = PREFIX + secrets.token_urlsafe(32)
    now = utc_now()
    with write_session() as session:
        if by is not None:
            actor = require_role(session.get(t.User, by), *Role)
            if actor.id != user_id and actor.role != Role.ADMIN:
                raise Forbidden("tokens.not_yours")
        owner = session.get(t.User, user_id)
        if owner is None or not owner.is_active:
            raise NotFound("accounts.no_such_user", name=user_id)
        if not name.strip():
            raise UserError("tokens.name_missing")
        if not 1 <= days <= MAX_DAYS:
            raise UserError("tokens.bad_days", maximum=MAX_DAYS)
        chosen, known = sorted(set(scopes)), scopes_for(owner.role)
        if not chosen or not set(chosen) <= set(known):
            raise UserError("tokens.bad_scope", known=", ".join(known))
        is_open = (t.ApiToken.revoked_at.is_(None), t.ApiToken.expires_at > now)
        if (session.scalar(select(func.count()).where(t.ApiToken.user_id == user_id, *is_open)) or 0) >= MAX_OPEN:
            raise Conflicting("tokens.too_many", limit=MAX_OPEN)
        row = t.ApiToken(
            user_id=user_id,
            name=name.strip()[:100],
            token_hash=_digest(token),
            hint=token[:8],
            scopes=chosen,
            expires_at=now + timedelta(days=days),
            created_by=by,
        )
        session.add(row)
        session.flush()
        detail = {"owner": user_id, "name": row.name, "scopes": chosen, "expires_at": row.expires_at.isoformat()}
        audit.record(session, "make_token", "api_token", row.id, actor_id=by, detail=detail)
        return row.id, token


def revoke(token_id: int, *, by: int | None) -> None:
    """End a token at once. The owner may, and an administrator. Raises Forbidden, NotFound("tokens.no_such_token")."""
    with write_session() as session:
        actor = require_role(session.get(t.User, by), *Role) if by is not None else None
        row = session.get(t.ApiToken, token_id)
        if row is None or (actor is not None and row.user_id != actor.id and actor.role != Role.ADMIN):
            raise NotFound("tokens.no_such_token")
        if row.revoked_at is None:
            row.revoked_at = utc_now()
            audit.record(session, "revoke_token", "api_token", row.id, actor_id=by, detail={"owner": row.user_id, "name": row.name})


def listing(by: int) -> list[TokenShown]:
    """One's own tokens; everybody's for an administrator. Newest first."""
    with read_session() as session:
        is_admin = require_role(session.get(t.User, by), *Role).role == Role.ADMIN
        return _shown(session, None if is_admin else by)


def _shown(session: Session, owner: int | None) -> list[TokenShown]:
    now = utc_now()
    query = select(t.ApiToken, t.User.username).join(t.User, t.User.id == t.ApiToken.user_id).order_by(t.ApiToken.id.desc())
    if owner is not None:
        query = query.where(t.ApiToken.user_id == owner)
    return [
        TokenShown(
            r.id, r.user_id, name, r.name, r.hint, tuple(r.scopes), r.created_at, r.expires_at, r.last_used_at,
            r.revoked_at is None and r.expires_at > now,
        )
        for r, name in session.execute(query)
    ]  # fmt: skip


def everybodys() -> list[TokenShown]:
    """All tokens, for the command line. Newest first."""
    with read_session() as session:
        return _shown(session, None)


def person_for(token: str) -> Person | None:
    """Whom this token acts for, or None when it is unknown, ended, or its account is disabled."""
    now = utc_now()
    query = (
        select(t.ApiToken, t.User)
        .join(t.User, t.User.id == t.ApiToken.user_id)
        .where(t.ApiToken.token_hash == _digest(token), t.ApiToken.revoked_at.is_(None), t.ApiToken.expires_at > now, t.User.is_active)
    )
    with read_session() as session:
        found = session.execute(query).first()
    if found is None:
        return None
    row, user = found
    return Person(
        id=user.id,
        username=user.username,
        display_name=user.display_name,
        role=user.role,
        language=user.language or current_home().settings.language,
        session_id=0,
        must_change_password=user.must_change_password,
        token_id=row.id,
        scopes=frozenset(row.scopes),
    )


def touch(token_id: int) -> None:
    """Note that the token was used; written at most once a minute."""
    now = utc_now()
    with read_session() as session:
        row = session.get(t.ApiToken, token_id)
    if row is not None and (row.last_used_at is None or now - row.last_used_at >= timedelta(seconds=TOUCH_SECONDS)):
        with write_session() as session:
            session.execute(update(t.ApiToken).where(t.ApiToken.id == token_id).values(last_used_at=now))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
