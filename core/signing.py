"""Signing: proof that the person at the screen is the signer, and what a signature says (21 CFR 11.50, 11.200).

Every use case that stores a signature takes a `Proof` (the sign-in it comes through, and the password where one is asked for) and
checks it here, before anything is written: pages, REST and the desk's socket go the same way, and a program's token, behind which
nobody sits, can sign nothing. A promotion, a roll-back, an override, a reward and a retraction ask for the password each time,
unless the setting signing_password_minutes lets a recent one count. The desk signs dozens of cases in one sitting: there the
password of the sign-in counts for desk_signing_minutes. Who signs in through an outside provider only has no password here and
signs in there once more instead; that counts once, for a few minutes.

Called by core.promotion, core.override, core.reward_configs, core.lineage, core.adjudication, core.desk.arbitration, and the dialogs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from core import passwords
from core.accounts import Person, is_open
from core.errors import Forbidden, UserError
from core.home import current_home
from core.i18n import translate
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

#: a repeated sign-in at the outside provider counts this long
PROVIDER_MINUTES = 5


@dataclass(frozen=True, slots=True)
class Proof:
    """Through which sign-in somebody signs (0: a program), and the password as typed; "" where a recent one counts."""

    session_id: int
    password: str = ""


def needs_password(person: Person) -> bool:
    """Has it been too long since this person typed the password in this sign-in?"""
    with read_session() as session:
        row = session.get(t.LoginSession, person.session_id)
        return row is None or not _is_recent(session, row, current_home().settings.signing_password_minutes)


def signs_at_provider(person: Person) -> bool:
    """Whether this person has no password here, so that signing means signing in at the outside provider once more."""
    with read_session() as session:
        user = session.get(t.User, person.id)
        return user is not None and user.password_hash is None


def prove(user_id: int, proof: Proof | None) -> None:
    """Let the account sign, or not. Wrong passwords count towards the limit of failed sign-ins and are in the audit chain.

    Raises Forbidden("trust.proof_missing"), UserError("trust.password_needed" / "trust.provider_needed" /
    "trust.wrong_signing_password" / "accounts.too_many_attempts").
    """
    with write_session() as session:
        row, user = _sign_in(session, user_id, proof)
        if _is_recent(session, row, current_home().settings.signing_password_minutes):
            if user.password_hash is None:
                row.confirmed_at = None  # it has been used
            return
        if user.password_hash is None:
            raise UserError("trust.provider_needed")
        name = user.username
    if proof is None or not proof.password:
        raise UserError("trust.password_needed")
    try:
        signer = passwords.authenticate(name, proof.password, f"signing, session {proof.session_id}")
    except UserError as error:
        if error.code == "accounts.wrong_password":
            raise UserError("trust.wrong_signing_password") from error
        raise
    if signer != user_id:
        raise Forbidden("trust.proof_missing")
    confirm_sign_in(proof.session_id)


def prove_at_desk(session: Session, user_id: int, proof: Proof | None) -> None:
    """As `prove`, for decisions signed by the dozen. Raises Forbidden("trust.proof_missing"), UserError("desk.sign_in_again")."""
    row, _ = _sign_in(session, user_id, proof)
    minutes = current_home().settings.desk_signing_minutes
    if utc_now() - (row.confirmed_at or row.created_at) >= timedelta(minutes=minutes):
        raise UserError("desk.sign_in_again", hours=round(minutes / 60, 1))


def confirm_sign_in(session_id: int) -> None:
    """Note that the person has just shown again who they are."""
    with write_session() as session:
        session.get_one(t.LoginSession, session_id).confirmed_at = utc_now()


def signature(user: t.User, meaning: str) -> dict[str, Any]:
    """Name, time and meaning, as stored in the audit entry; `meaning` names its sentence (`trust.meaning_<meaning>`)."""
    said = translate(f"trust.meaning_{meaning}", user.language or "en", name=user.display_name)
    return {"name": user.display_name, "at": utc_now().isoformat(), "meaning": said}


def _sign_in(session: Session, user_id: int, proof: Proof | None) -> tuple[t.LoginSession, t.User]:
    """The open sign-in that the proof names, if it is this account's."""
    row = session.get(t.LoginSession, proof.session_id) if proof else None
    user = session.get(t.User, user_id)
    if row is None or user is None or row.user_id != user_id or not user.is_active or not is_open(row):
        raise Forbidden("trust.proof_missing")
    return row, user


def _is_recent(session: Session, row: t.LoginSession, minutes: int) -> bool:
    user = session.get(t.User, row.user_id)
    if user is not None and user.password_hash is None and row.method == "oidc":
        return row.confirmed_at is not None and utc_now() - row.confirmed_at < timedelta(minutes=max(minutes, PROVIDER_MINUTES))
    return utc_now() - (row.confirmed_at or row.created_at) < timedelta(minutes=minutes)
