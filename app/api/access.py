"""Who calls the API: dependencies for the routers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Path, Request
from pydantic import AfterValidator

from app.guard import PERSON
from core.accounts import Person
from core.errors import Forbidden
from core.home import current_home


def signed_in(request: Request) -> Person:
    """The calling person, as the guard found them. Raises Forbidden("signed_out")."""
    person: Person | None = request.scope.get(PERSON)
    if person is None:
        raise Forbidden("signed_out")
    return person


#: what a database can look for: a larger number is an error of the caller, not ours
MAX_ID = 2**63 - 1
#: the number of a stored row in an address
RowId = Annotated[int, Path(ge=0, le=MAX_ID)]


def _as_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("this time is outside the calendar in UTC") from error


#: a moment that exists in UTC; without a zone it is this machine's
Moment = Annotated[datetime, AfterValidator(_as_utc)]

Caller = Annotated[Person, Depends(signed_in)]


def allowed(*roles: str) -> Callable[[Person], Person]:
    """A dependency that lets only these roles pass (an admin always). Raises Forbidden("forbidden")."""

    def check(person: Caller) -> Person:
        if person.role != "admin" and person.role not in roles:
            raise Forbidden("forbidden", role=person.role)
        return person

    return check


def language_of(request: Request) -> str:
    """The caller's language; the settings' when nobody is signed in."""
    person: Person | None = request.scope.get(PERSON)
    return person.language if person else current_home().settings.language
