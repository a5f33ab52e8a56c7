"""Who has seen a screen's guided tour: remembered with the account, so that it comes once and not once per browser.

Called by `core.desk.mailbox`.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import tables as t
from db.engine import write_session

DESK = "desk"


def has_seen(session: Session, user_id: int, screen: str = DESK) -> bool:
    """Whether this person was shown the tour or skipped it."""
    query = select(t.TourSeen.id).where(t.TourSeen.user_id == user_id, t.TourSeen.screen == screen)
    return session.scalar(query) is not None


def mark_seen(user_id: int, screen: str = DESK) -> None:
    """Remember it; a second time changes nothing."""
    with write_session() as session:
        if not has_seen(session, user_id, screen):
            session.add(t.TourSeen(user_id=user_id, screen=screen))
