"""Accounts and server-side sign-in sessions. Only hashes of secrets are stored."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base, pk, short, utc_now


class User(Base):
    __tablename__ = "users"
    __table_args__ = (CheckConstraint("role IN ('clinician','product','engineer','admin')", name="role"),)

    id: Mapped[pk] = mapped_column(init=False)
    username: Mapped[short] = mapped_column(unique=True)
    display_name: Mapped[short]
    role: Mapped[short]
    password_hash: Mapped[str | None] = mapped_column(default=None)
    speciality: Mapped[short | None] = mapped_column(default=None)
    language: Mapped[short | None] = mapped_column(default=None)
    #: light, dark; None follows the device
    theme: Mapped[short | None] = mapped_column(default=None)
    is_active: Mapped[bool] = mapped_column(default=True)
    must_change_password: Mapped[bool] = mapped_column(default=False)
    #: lower case; only for finding the account of somebody whom the outside provider has signed in
    email: Mapped[short | None] = mapped_column(default=None, unique=True, index=True)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class LoginSession(Base):
    """One signed-in browser. The cookie's random token is stored as its SHA-256 only."""

    __tablename__ = "login_sessions"

    id: Mapped[pk] = mapped_column(init=False)
    token_hash: Mapped[short] = mapped_column(unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    last_seen_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)
    user_agent: Mapped[str] = mapped_column(default="")
    #: when the person last typed the password in this sign-in, to sign; None: only when signing in
    confirmed_at: Mapped[datetime | None] = mapped_column(default=None)
    #: password or oidc
    method: Mapped[short] = mapped_column(default="password", server_default="password")


class OneTimeLogin(Base):
    """A link that signs one person in once (first start, forgotten password)."""

    __tablename__ = "one_time_logins"

    id: Mapped[pk] = mapped_column(init=False)
    token_hash: Mapped[short] = mapped_column(unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class LoginFailure(Base):
    """Failed sign-ins, for throttling by account and by address."""

    __tablename__ = "login_failures"

    id: Mapped[pk] = mapped_column(init=False)
    username: Mapped[short] = mapped_column(index=True)
    address: Mapped[short] = mapped_column(index=True)
    at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class ApiToken(Base):
    """A key of a program that acts for a person, within `scopes` ("jobs:read" ...). Stored as its SHA-256 only."""

    __tablename__ = "api_tokens"

    id: Mapped[pk] = mapped_column(init=False)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    name: Mapped[short]
    token_hash: Mapped[short] = mapped_column(unique=True)
    #: its first characters, by which people tell tokens apart
    hint: Mapped[short]
    scopes: Mapped[list[Any]]
    expires_at: Mapped[datetime]
    created_by: Mapped[int | None] = mapped_column(ForeignKey("users.id"), default=None)
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)
    last_used_at: Mapped[datetime | None] = mapped_column(default=None)
    revoked_at: Mapped[datetime | None] = mapped_column(default=None)


class Identity(Base):
    """Who an outside sign-in provider says somebody is: its name for them, tied to one account."""

    __tablename__ = "identities"
    __table_args__ = (UniqueConstraint("issuer", "subject", name="uq_identities_subject"),)

    id: Mapped[pk] = mapped_column(init=False)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    issuer: Mapped[short]
    subject: Mapped[short]
    created_at: Mapped[datetime] = mapped_column(default_factory=utc_now)


class SpentToken(Base):
    """A token that counts once and has been used; kept until it would have run out anyway."""

    __tablename__ = "spent_tokens"

    id: Mapped[pk] = mapped_column(init=False)
    token_hash: Mapped[short] = mapped_column(unique=True)
    expires_at: Mapped[datetime]
