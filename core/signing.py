"""Signing: the password once more, and what a signature says (21 CFR 11.50: printed name, time, meaning; 11.200: typed at signing).

A promotion, a roll-back, an override and a reward are signed rarely and change what people are told: each asks for the signer's
password, unless the setting signing_password_minutes lets a recent one count. The desk signs dozens of cases in one sitting, within a
sign-in that ends when idle; there the signature is the name, the time and the meaning stored with the decision.
Called by the signing dialogs, core.promotion, core.override and core.reward_configs.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from core import passwords
from core.accounts import Person
from core.errors import UserError
from core.home import current_home
from core.i18n import translate
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session


def needs_password(person: Person) -> bool:
    """Has it been too long since this person typed the password in this sign-in?"""
    minutes = current_home().settings.signing_password_minutes
    with read_session() as session:
        row = session.get(t.LoginSession, person.session_id)
    return row is None or utc_now() - (row.confirmed_at or row.created_at) >= timedelta(minutes=minutes)


def confirm(person: Person, password: str) -> None:
    """Let the person sign, or not. Wrong passwords count towards the limit of failed sign-ins and are in the audit chain.

    Raises UserError("trust.wrong_signing_password" / "accounts.too_many_attempts").
    """
    if not needs_password(person):
        return
    try:
        passwords.authenticate(person.username, password, f"signing, session {person.session_id}")
    except UserError as error:
        if error.code == "accounts.wrong_password":
            raise UserError("trust.wrong_signing_password") from error
        raise
    with write_session() as session:
        session.get_one(t.LoginSession, person.session_id).confirmed_at = utc_now()


def signature(user: t.User, meaning: str) -> dict[str, Any]:
    """Name, time and meaning, as stored in the audit entry; `meaning` names its sentence (`trust.meaning_<meaning>`)."""
    said = translate(f"trust.meaning_{meaning}", user.language or "en", name=user.display_name)
    return {"name": user.display_name, "at": utc_now().isoformat(), "meaning": said}
