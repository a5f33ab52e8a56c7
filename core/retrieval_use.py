"""What the team's own use says about retrieval: lists as shown with what people did, judged questions, satisfaction.

Judged questions come from verdicts, never from clicks alone: passages that a clinician attached to a signed decision on the desk, and
passages that somebody marked as helpful or not on Ask. Places are named "file#section", so that judgements outlive a rebuilt
index. Called by training.evaluate_retrieval, training.learn_retrieval and core.retrieval_reports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.retrieval.clicks import Impression
from core.retrieval.judged import JudgedSet, Question
from db import tables as t
from db.base import utc_now
from db.engine import read_session
from db.tables.asking import AskFeedback

#: questions of one person within this time belong to one sitting
SITTING = timedelta(minutes=30)
#: grade of a passage attached to the question of a case, and of one attached to a sentence of its answer or marked as helpful
CITED, HELPED = 2.0, 1.0
#: fewer judged answers say nothing about satisfaction
MIN_THUMBS = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """One logged question: the event, where its answer came from, and the list with what people did."""

    event_id: int
    created_at: datetime
    impression: Impression
    #: newest thumb about the whole answer, +1 or -1; 0 without one
    thumb: int
    #: chunk numbers in the event's index version, place by place
    parents: tuple[int, ...]
    index_id: int


@dataclass(frozen=True, slots=True)
class Satisfaction:
    """Thumbs as people gave them. `score` is on 1 to 5 (all up is 5); both values are None below MIN_THUMBS."""

    num: int
    score: float | None
    issue_rate: float | None


def place_of(context: dict[str, Any]) -> str:
    """What judgements call a passage as it was shown."""
    section = context.get("section") or ""
    return f"{context['file']}#{section}" if section else str(context["file"])


def asked(index_name: str, *, days: int = 0, name_of: Callable[[dict[str, Any]], str] = place_of) -> list[Asked]:
    """Every question of the index of that name with its passages (or none, where nothing was found), oldest first.

    `days` > 0 looks back so far; `name_of` gives a passage, as the event holds it, its name in the impressions.
    """
    with read_session() as session:
        query = select(t.AskEvent).join(t.SearchIndex, t.AskEvent.index_id == t.SearchIndex.id).where(t.SearchIndex.name == index_name)
        if days:
            query = query.where(t.AskEvent.created_at >= utc_now() - timedelta(days=days))
        events = list(session.scalars(query.order_by(t.AskEvent.id)))
        acts = _acts(session, [event.id for event in events])
    sittings = _sittings(events)
    return [_asked(event, acts.get(event.id, []), sittings[event.id], name_of) for event in events]


def judged_questions(index_name: str) -> JudgedSet:
    """The team's own judged questions; those without any relevant passage are left out. May be empty."""
    grades: dict[str, dict[str, float]] = {}
    with read_session() as session:
        rows = session.execute(
            select(t.Adjudication, t.Sample.text)
            .join(t.Conflict, t.Adjudication.conflict_id == t.Conflict.id)
            .join(t.Sample, t.Conflict.sample_id == t.Sample.id)
            .where(t.Adjudication.stage == "signed")
            .order_by(t.Adjudication.id)
        )
        for row, text in rows:
            for one in row.evidence or []:
                if one.get("index_name") == index_name:
                    grade = CITED if one.get("about") == "question" else HELPED
                    mine = grades.setdefault(text.strip(), {})
                    mine[place_of(one)] = max(grade, mine.get(place_of(one), 0.0))
    for event in asked(index_name):
        for place, thumb in event.impression.thumbs.items():
            grades.setdefault(event.impression.query.strip(), {})[place] = HELPED if thumb > 0 else 0.0
    questions = [Question(_id(text), text, qrels) for text, qrels in sorted(grades.items()) if any(g > 0 for g in qrels.values())]
    return JudgedSet(f"team:{index_name}", tuple(questions), "section")


def satisfaction(events: Sequence[Asked]) -> Satisfaction:
    """From thumbs about answers; an answer nobody judged counts for nothing."""
    thumbs = [event.thumb for event in events if event.thumb]
    if len(thumbs) < MIN_THUMBS:
        return Satisfaction(len(thumbs), None, None)
    share = sum(thumb > 0 for thumb in thumbs) / len(thumbs)
    return Satisfaction(len(thumbs), 1 + 4 * share, 1 - share)


def _acts(session: Session, events: list[int]) -> dict[int, list[AskFeedback]]:
    wanted, found = set(events), dict[int, list[AskFeedback]]()
    for act in session.scalars(select(AskFeedback).order_by(AskFeedback.id)):
        if act.event_id in wanted:
            found.setdefault(act.event_id, []).append(act)
    return found


def _sittings(events: Sequence[t.AskEvent]) -> dict[int, str]:
    """Event id -> sitting: questions of one account with no long pause between them; without an account each stands alone."""
    last: dict[int, tuple[datetime, str]] = {}
    found = {}
    for event in events:
        before = last.get(event.user_id) if event.user_id is not None else None
        found[event.id] = before[1] if before and event.created_at - before[0] <= SITTING else f"e{event.id}"
        if event.user_id is not None:
            last[event.user_id] = (event.created_at, found[event.id])
    return found


def _asked(event: t.AskEvent, acts: Sequence[AskFeedback], sitting: str, name_of: Callable[[dict[str, Any]], str]) -> Asked:
    shown = tuple(name_of(context) for context in event.contexts)
    clicked: dict[int, int | None] = {}
    thumbs: dict[str, int] = {}
    thumb = 0
    for act in acts:
        place = (act.rank or 0) - 1
        if act.kind in ("up", "down"):
            thumb = 1 if act.kind == "up" else -1
        elif not 0 <= place < len(shown):
            continue
        elif act.kind == "opened":
            clicked.setdefault(place, act.after_ms)
        else:
            thumbs[shown[place]] = 1 if act.kind == "helped" else -1
    impression = Impression(
        event.query, shown, frozenset(clicked), _dwell(clicked), thumbs, tuple(_door(c) for c in event.contexts), sitting
    )  # fmt: skip
    parents = tuple(int(c.get("parent", -1)) for c in event.contexts)
    return Asked(event.id, event.created_at, impression, thumb, parents, event.index_id or 0)


def _dwell(clicked: dict[int, int | None]) -> dict[int, float]:
    """Seconds until the next passage was opened; not known for the last one, nor where the browser did not say when."""
    timed = sorted((after, place) for place, after in clicked.items() if after is not None)
    return {place: (later - after) / 1000 for (after, place), (later, _) in pairwise(timed)}


def _door(context: dict[str, Any]) -> str:
    """The pseudo-question that let the passage in, "" when it was the passage itself."""
    doors = sorted(context.get("why") or [], key=lambda door: door.get("rank") or 0)
    return str(doors[0].get("entry") or "") if doors and doors[0].get("kind") == "syn" else ""


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
