"""Local accounts and server-side sign-in sessions.

Only hashes of secrets are stored: passwords as argon2 (`core.passwords`), tokens as SHA-256 of 256 random bits. A sign-in ends
when idle, when old, when revoked, or when its account is disabled, and that is decided here, at every request.
Called by the guard and the sign-in pages (web), the settings page and the command line. Password hashing takes about 0.2 s
of CPU: asynchronous callers run these functions in a thread.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from core import audit, passwords
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.home import current_home
from core.records import Role
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

USERNAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,39}")
LINK_HOURS = 24
#: order matters: Edge also says Chrome, Chrome also says Safari
BROWSERS = (("Edg/", "Edge"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
SYSTEMS = (("Android", "Android"), ("iPhone", "iOS"), ("iPad", "iOS"), ("Windows", "Windows"), ("Mac OS", "macOS"), ("Linux", "Linux"))
#: "last seen" is written at most this often
TOUCH_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Person:
    """A signed-in person, or a program that acts for one. `session_id` is the sign-in, not the secret token; 0 for a program.

    `scopes` None is a person; otherwise what the program's token (`token_id`) may do.
    """

    id: int
    username: str
    display_name: str
    role: str
    language: str
    session_id: int
    theme: str | None = None
    speciality: str | None = None
    must_change_password: bool = False
    token_id: int | None = None
    scopes: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the users table shows it."""

    id: int
    username: str
    display_name: str
    role: str
    speciality: str | None
    is_active: bool
    has_password: bool
    last_seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class SignIn:
    """One open sign-in of a person."""

    id: int
    user_agent: str
    created_at: datetime
    last_seen_at: datetime

    @property
    def browser(self) -> str:
        """What people would call it: `Chrome · Windows`. The first words of the user agent when it is something else."""
        name = next((word for mark, word in BROWSERS if mark in self.user_agent), None)
        system = next((word for mark, word in SYSTEMS if mark in self.user_agent), None)
        return " · ".join(filter(None, (name, system))) or self.user_agent[:40]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# --- signing in ---------------------------------------------------------------------------------------------------------


def open_session(user_id: int, user_agent: str, language: str | None = None, method: str = "password") -> str:
    """Sign the account in and return the cookie's token. `language` is what was chosen on the sign-in page, if anything;
    `method` how the person showed who they are: password or oidc.
    """
    token = secrets.token_urlsafe(32)
    now = utc_now()
    with write_session() as session:
        user = _user(session, user_id)
        if not user.is_active:
            raise UserError("accounts.wrong_password")
        if language and user.language is None:
            user.language = language
        row = t.LoginSession(
            token_hash=_digest(token),
            user_id=user_id,
            expires_at=now + timedelta(days=current_home().settings.session_days),
            user_agent=user_agent[:300],
            method=method,
        )
        session.add(row)
        session.flush()
        audit.record(session, "sign_in", "session", row.id, actor_id=user_id, detail={"method": method})
    return token


def person_for_token(token: str) -> Person | None:
    """The person whose cookie this is, or None when there is no such open sign-in."""
    return _person(t.LoginSession.token_hash == _digest(token))


def person_for_session(session_id: int) -> Person | None:
    """The person of a sign-in by its id (as the guard passed it on), or None when it has ended."""
    return _person(t.LoginSession.id == session_id)


def _person(condition: object) -> Person | None:
    settings = current_home().settings
    now = utc_now()
    query = (
        select(t.LoginSession, t.User)
        .join(t.User, t.User.id == t.LoginSession.user_id)
        .where(
            condition,  # type: ignore[arg-type]
            t.LoginSession.revoked_at.is_(None),
            t.LoginSession.expires_at > now,
            t.LoginSession.last_seen_at > now - timedelta(minutes=settings.session_idle_minutes),
            t.User.is_active,
        )
    )
    with read_session() as session:
        found = session.execute(query).first()
    if found is None:
        return None
    sign_in, user = found
    return Person(
        id=user.id,
        username=user.username,
        display_name=user.display_name,
        role=user.role,
        language=user.language or settings.language,
        session_id=sign_in.id,
        theme=user.theme,
        speciality=user.speciality,
        must_change_password=user.must_change_password,
    )


def is_open(row: t.LoginSession) -> bool:
    """Neither revoked, nor too old, nor idle for too long."""
    now = utc_now()
    is_used = row.last_seen_at > now - timedelta(minutes=current_home().settings.session_idle_minutes)
    return row.revoked_at is None and row.expires_at > now and is_used


def touch(session_id: int) -> None:
    """Note that the person is here; written at most once a minute."""
    now = utc_now()
    with read_session() as session:
        row = session.get(t.LoginSession, session_id)
    if row is not None and now - row.last_seen_at >= timedelta(seconds=TOUCH_SECONDS):
        with write_session() as session:
            session.execute(update(t.LoginSession).where(t.LoginSession.id == session_id).values(last_seen_at=now))


def sign_ins(user_id: int) -> list[SignIn]:
    """The open sign-ins of a person, newest first."""
    now = utc_now()
    idle_since = now - timedelta(minutes=current_home().settings.session_idle_minutes)
    query = (
        select(t.LoginSession)
        .where(
            t.LoginSession.user_id == user_id,
            t.LoginSession.revoked_at.is_(None),
            t.LoginSession.expires_at > now,
            t.LoginSession.last_seen_at > idle_since,
        )
        .order_by(t.LoginSession.id.desc())
    )
    with read_session() as session:
        return [SignIn(r.id, r.user_agent, r.created_at, r.last_seen_at) for r in session.scalars(query)]


def sign_out(session_id: int, by: Person) -> None:
    """End one sign-in: one's own, or anybody's for an admin. Raises Forbidden and NotFound."""
    with write_session() as session:
        row = session.get(t.LoginSession, session_id)
        if row is None:
            raise NotFound("accounts.no_such_session")
        if row.user_id != by.id and by.role != Role.ADMIN:
            raise Forbidden("forbidden", role=by.role)
        if row.revoked_at is None:
            row.revoked_at = utc_now()
            audit.record(session, "sign_out", "session", session_id, actor_id=by.id)


# --- one-time links -------------------------------------------------------------------------------------------------------


def make_link(user_id: int, *, by: int | None) -> str:
    """A token that lets one person set a password once, within a day. Earlier links of that person stop working."""
    _administrator(by)
    token = secrets.token_urlsafe(32)
    now = utc_now()
    with write_session() as session:
        user = _user(session, user_id)
        session.execute(
            update(t.OneTimeLogin).where(t.OneTimeLogin.user_id == user.id, t.OneTimeLogin.used_at.is_(None)).values(used_at=now)
        )
        session.add(t.OneTimeLogin(token_hash=_digest(token), user_id=user.id, expires_at=now + timedelta(hours=LINK_HOURS)))
        audit.record(session, "make_login_link", "user", user.id, actor_id=by)
    return token


def link_owner(token: str) -> str:
    """The username a link is for. Raises NotFound("accounts.link_used") when it is spent, old or unknown."""
    with read_session() as session:
        return _link(session, token)[1].username


def use_link(token: str, password: str) -> int:
    """Set the password and spend the link, in one transaction; ends all earlier sign-ins. Returns the account's id."""
    passwords.check(password)
    hashed = passwords.hashed(password)
    with write_session() as session:
        link, user = _link(session, token)
        link.used_at = utc_now()
        _set_password(session, user, hashed)
        audit.record(session, "set_password", "user", user.id, actor_id=user.id, detail={"by": "link"})
        return user.id


def _link(session: Session, token: str) -> tuple[t.OneTimeLogin, t.User]:
    query = (
        select(t.OneTimeLogin, t.User)
        .join(t.User, t.User.id == t.OneTimeLogin.user_id)
        .where(
            t.OneTimeLogin.token_hash == _digest(token),
            t.OneTimeLogin.used_at.is_(None),
            t.OneTimeLogin.expires_at > utc_now(),
            t.User.is_active,
        )
    )
    found = session.execute(query).first()
    if found is None:
        raise NotFound("accounts.link_used")
    return found[0], found[1]


def first_admin_link() -> str | None:
    """A sign-in link for the administrator while no administrator has a password yet; None afterwards."""
    with write_session() as session:
        admins = list(session.scalars(select(t.User).where(t.User.role == Role.ADMIN, t.User.is_active).order_by(t.User.id)))
        if any(a.password_hash for a in admins):
            return None
        if not admins:
            admins = [t.User(username="admin", display_name="Admin", role=Role.ADMIN)]
            session.add(admins[0])
            session.flush()
            audit.record(session, "add_user", "user", admins[0].id, actor_id=None, detail={"username": "admin", "role": "admin"})
        user_id = admins[0].id
    return make_link(user_id, by=None)


# --- accounts -------------------------------------------------------------------------------------------------------------


def _administrator(by: int | None) -> None:
    """Accounts are an administrator's business; None is the command line, whose user owns the data folder. Raises Forbidden."""
    if by is not None:
        with read_session() as session:
            actor = session.get(t.User, by)
        if actor is None or not actor.is_active or actor.role != Role.ADMIN:
            raise Forbidden("forbidden", role=actor.role if actor else "")


def _user(session: Session, user_id: int) -> t.User:
    user = session.get(t.User, user_id)
    if user is None:
        raise NotFound("accounts.no_such_user", name=user_id)
    return user


def _set_password(session: Session, user: t.User, hashed: str, keep_session: int | None = None) -> None:
    user.password_hash = hashed
    user.must_change_password = False
    query = update(t.LoginSession).where(t.LoginSession.user_id == user.id, t.LoginSession.revoked_at.is_(None))
    if keep_session is not None:
        query = query.where(t.LoginSession.id != keep_session)
    session.execute(query.values(revoked_at=utc_now()))


def find_user(username: str) -> int:
    """The id of an account by name. Raises NotFound("accounts.no_such_user")."""
    with read_session() as session:
        user_id = session.scalar(select(t.User.id).where(t.User.username == username.strip().lower()))
    if user_id is None:
        raise NotFound("accounts.no_such_user", name=username)
    return user_id


def list_accounts() -> list[Account]:
    """All accounts by name, with the time they were last here."""
    seen = select(t.LoginSession.user_id, func.max(t.LoginSession.last_seen_at).label("at")).group_by(t.LoginSession.user_id).subquery()
    query = select(t.User, seen.c.at).join(seen, seen.c.user_id == t.User.id, isouter=True).order_by(t.User.username)
    with read_session() as session:
        return [
            Account(u.id, u.username, u.display_name, u.role, u.speciality, u.is_active, u.password_hash is not None, at)
            for u, at in session.execute(query)
        ]


def create_user(
    username: str, display_name: str, role: str, *, by: int | None, speciality: str | None = None, password: str | None = None
) -> int:
    """Add an account; without a password it is entered by a link from `make_link`. A password given here must be changed.

    Raises UserError("accounts.bad_username" / "accounts.bad_role" / password codes), Conflicting("accounts.username_taken").
    """
    _administrator(by)
    name = username.strip().lower()
    if not USERNAME.fullmatch(name):
        raise UserError("accounts.bad_username")
    if role not in set(Role):
        raise UserError("accounts.bad_role", role=role, known=", ".join(Role))
    hashed = None
    if password is not None:
        passwords.check(password)
        hashed = passwords.hashed(password)
    with write_session() as session:
        if session.scalar(select(t.User.id).where(t.User.username == name)) is not None:
            raise Conflicting("accounts.username_taken", name=name)
        user = t.User(
            username=name,
            display_name=display_name.strip() or name,
            role=role,
            speciality=(speciality or "").strip() or None,
            password_hash=hashed,
            must_change_password=hashed is not None,
        )
        session.add(user)
        session.flush()
        audit.record(session, "add_user", "user", user.id, actor_id=by, detail={"username": name, "role": role})
        return user.id


def set_active(user_id: int, is_active: bool, *, by: int | None) -> None:
    """Enable or disable an account; disabling ends its sign-ins. The last administrator cannot be disabled."""
    _administrator(by)
    with write_session() as session:
        user = _user(session, user_id)
        if not is_active:
            _keep_an_admin(session, user)
            session.execute(
                update(t.LoginSession)
                .where(t.LoginSession.user_id == user_id, t.LoginSession.revoked_at.is_(None))
                .values(revoked_at=utc_now())
            )
        user.is_active = is_active
        audit.record(session, "enable_user" if is_active else "disable_user", "user", user_id, actor_id=by)


def set_role(user_id: int, role: str, *, by: int | None) -> None:
    """Change what an account may do. The last administrator stays one."""
    _administrator(by)
    if role not in set(Role):
        raise UserError("accounts.bad_role", role=role, known=", ".join(Role))
    with write_session() as session:
        user = _user(session, user_id)
        if role != Role.ADMIN:
            _keep_an_admin(session, user)
        detail = {"from": user.role, "to": role}
        user.role = role
        audit.record(session, "set_role", "user", user_id, actor_id=by, detail=detail)


def _keep_an_admin(session: Session, user: t.User) -> None:
    if user.role != Role.ADMIN:
        return
    others = select(func.count()).where(t.User.role == Role.ADMIN, t.User.is_active, t.User.id != user.id)
    if not session.scalar(others):
        raise Conflicting("accounts.last_admin")


def change_password(person: Person, old: str, new: str, address: str = "settings") -> None:
    """Change one's own password; ends one's other sign-ins. Raises like `passwords.authenticate` when `old` is wrong."""
    passwords.check(new)
    passwords.authenticate(person.username, old, address)
    hashed = passwords.hashed(new)
    with write_session() as session:
        _set_password(session, _user(session, person.id), hashed, keep_session=person.session_id)
        audit.record(session, "set_password", "user", person.id, actor_id=person.id, detail={"by": "owner"})


def set_preferences(person: Person, *, language: str | None = None, theme: str | None = None) -> None:
    """Remember the language (en, zh) or the theme (light, dark; "" follows the device)."""
    with write_session() as session:
        user = _user(session, person.id)
        if language in ("en", "zh"):
            user.language = language
        if theme in ("light", "dark", ""):
            user.theme = theme or None
