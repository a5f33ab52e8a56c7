"""What people did with an answer: thumbs, "this passage helped", passages opened. Written beside the question, never over it.

Only the person who asked may judge an answer, so that clicks can be read with the rank at which each passage was shown to that
person (position bias). Called by pages/ask.py and app/api/ask.py; read by the learning from clicks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, get_args

from core.errors import Forbidden, NotFound, UserError
from core.permit import permit
from db import tables as t
from db.base import utc_now
from db.engine import write_session

FeedbackKind = Literal["up", "down", "helped", "not_helped", "opened"]
KINDS: tuple[str, ...] = get_args(FeedbackKind)
THUMBS = ("up", "down")
#: a longer time between answer and act says that the page lay open, not that somebody read
MAX_AFTER = timedelta(hours=1)


def give_feedback(event_id: int, kind: str, *, rank: int | None = None, user_id: int | None) -> int:
    """Record one act; `rank` names the passage (not for thumbs). Returns the id of the row.

    Raises NotFound("ask.no_event"), Forbidden("ask.not_your_question"), UserError("ask.bad_feedback" / "ask.no_such_passage").
    """
    permit("ask_feedback.give_feedback", user_id)
    if kind not in KINDS or (rank is None) is (kind not in THUMBS):
        raise UserError("ask.bad_feedback", kind=kind)
    with write_session() as session:
        event = session.get(t.AskEvent, event_id)
        if event is None:
            raise NotFound("ask.no_event", id=event_id)
        if event.user_id != user_id:
            raise Forbidden("ask.not_your_question")
        shown = next((c for c in event.contexts if c["rank"] == rank), None)
        if rank is not None and shown is None:
            raise UserError("ask.no_such_passage", rank=rank)
        since = utc_now() - event.created_at
        row = t.AskFeedback(
            event_id=event_id,
            kind=kind,
            rank=rank,
            parent=shown.get("parent") if shown else None,
            after_ms=round(since.total_seconds() * 1000) if since <= MAX_AFTER else None,
            user_id=user_id,
        )
        session.add(row)
        session.flush()
        return row.id
