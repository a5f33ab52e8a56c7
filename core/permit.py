"""May this account do that? The first line of a use case, answered from `core.access.USE_CASES` and the account as stored now.

A role taken away or an account disabled counts at once, whatever the page or the caller believes. Called by use cases.
"""

from __future__ import annotations

from core.access import USE_CASES
from core.accounts import Person
from core.errors import Forbidden
from db import tables as t
from db.engine import read_session


def permit(use_case: str, actor: int | Person | None) -> None:
    """Return, or raise Forbidden("forbidden"). None is the command line, whose user owns the data folder."""
    if actor is None:
        return
    with read_session() as session:
        user = session.get(t.User, actor.id if isinstance(actor, Person) else actor)
    if user is None or not user.is_active or user.role not in USE_CASES[use_case]:
        raise Forbidden("forbidden", role=user.role if user else "")
