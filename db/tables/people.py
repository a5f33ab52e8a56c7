"""Accounts and server-side sign-in sessions. Only hashes of secrets are stored."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey
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
