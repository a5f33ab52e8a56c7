"""Whether somebody has seen the bench's guided tour; kept with the desk's. Called by the bench page."""

from __future__ import annotations

from core.desk import tour
from core.permit import permit
from db.engine import read_session

SCREEN = "bench"


def has_seen(user_id: int) -> bool:
    """Shown, or skipped."""
    with read_session() as session:
        return tour.has_seen(session, user_id, SCREEN)


def mark_seen(user_id: int) -> None:
    """Remember it; a second time changes nothing."""
    permit("bench_tour.mark_seen", user_id)
    tour.mark_seen(user_id, SCREEN)
