"""People whom an outside provider (OpenID Connect) has signed in: which account is theirs, and what role.

Nobody gets an account by signing in elsewhere: an administrator makes it here. The first time an account is found by its e-mail
address, if the provider has verified it and its domain is on the list; from then on by issuer and subject, which never change. Roles
come from a claim only where the settings name the claim and the map. Called by app.oidc and the settings page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from core import accounts, audit
from core.errors import Conflicting, NotFound, UserError
from core.home import current_home
from core.models import check_role
from core.records import Role
from db import tables as t
from db.engine import read_session, write_session

EMAIL = re.compile(r"[^@\s]+@([^@\s]+\.[^@\s]+)")


def account_for(issuer: str, claims: Mapping[str, Any]) -> int:
    """The active account of who was signed in. Raises UserError("accounts.oidc_unknown")."""
    subject = str(claims["sub"])
    with write_session() as session:
        query = select(t.User).join(t.Identity, t.Identity.user_id == t.User.id)
        user = session.scalar(query.where(t.Identity.issuer == issuer, t.Identity.subject == subject))
        if user is None and (email := _allowed_email(claims)):
            user = session.scalar(select(t.User).where(t.User.email == email, t.User.is_active))
            if user is not None:
                row = t.Identity(user_id=user.id, issuer=issuer, subject=subject)
                session.add(row)
                session.flush()
                audit.record(session, "link_identity", "identity", row.id, actor_id=user.id, detail={"issuer": issuer})
        if user is None or not user.is_active:
            detail = {"method": "oidc", "is_known": user is not None}
            audit.record(session, "sign_in_failed", "user", user.id if user else "-", actor_id=None, detail=detail)
            user_id = None
        else:
            user_id = user.id
    if user_id is None:
        raise UserError("accounts.oidc_unknown")
    return user_id


def take_role(user_id: int, claims: Mapping[str, Any]) -> None:
    """Give the role that the configured claim maps to; without such settings, or without a fitting group, nothing changes."""
    settings = current_home().settings
    if not settings.oidc_role_claim:
        return
    given = claims.get(settings.oidc_role_claim)
    groups = {str(one) for one in given} if isinstance(given, list) else {str(given)}
    pairs = (line.rpartition("=") for line in settings.oidc_role_map)
    role = next((role.strip() for group, _, role in pairs if group.strip() in groups), None)
    with read_session() as session:
        now = session.get_one(t.User, user_id).role
    if role in set(Role) and role != now:
        accounts.set_role(user_id, str(role), by=None)


def set_email(user_id: int, email: str, *, by: int | None) -> None:
    """Note (or, empty, forget) an account's e-mail address; its ties to an outside identity end. Administrators only.

    Raises Forbidden, UserError("accounts.bad_email"), Conflicting("accounts.email_taken"), NotFound("accounts.no_such_user").
    """
    check_role(by, Role.ADMIN)
    wanted = email.strip().lower() or None
    if wanted is not None and not EMAIL.fullmatch(wanted):
        raise UserError("accounts.bad_email")
    with write_session() as session:
        user = session.get(t.User, user_id)
        if user is None:
            raise NotFound("accounts.no_such_user", name=user_id)
        if wanted and session.scalar(select(t.User.id).where(t.User.email == wanted, t.User.id != user_id)) is not None:
            raise Conflicting("accounts.email_taken")
        user.email = wanted
        for row in session.scalars(select(t.Identity).where(t.Identity.user_id == user_id)):
            session.delete(row)
        audit.record(session, "set_email", "user", user_id, actor_id=by, detail={"has_email": wanted is not None})


def email_of(user_id: int) -> str:
    """The address noted for an account, or an empty string."""
    with read_session() as session:
        user = session.get(t.User, user_id)
        return (user.email or "") if user else ""


def _allowed_email(claims: Mapping[str, Any]) -> str | None:
    email = str(claims.get("email") or "").lower()
    found = EMAIL.fullmatch(email)
    domains = {domain.lower().lstrip("@") for domain in current_home().settings.oidc_email_domains}
    return email if found and claims.get("email_verified") is True and found[1] in domains else None
