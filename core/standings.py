"""How two versions stand after the blind votes: counts, win rate with its interval, position check, votes still missing.

Only blind pairs count, each once. A tie and "both bad" are half a win for either (the arena convention); unsafe flags are
counted beside, never in the rate. Nothing of one pair's secret is told here: only totals over votes that are stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from core.models import get_version
from core.preference import voter
from core.records import Vote
from core.statistics import votes_needed, wilson
from db import tables as t
from db.engine import read_session


@dataclass(frozen=True, slots=True)
class Standings:
    """Votes between `first` and `second`; `rate`, `low` and `high` are the win rate of `first`, None without votes."""

    first: str
    second: str
    wins_first: int
    wins_second: int
    ties: int
    both_bad: int
    unsafe_first: int
    unsafe_second: int
    num_votes: int
    num_own_votes: int
    num_decisive: int
    rate: float | None
    low: float
    high: float
    #: share of decisive votes that went left, whoever stood there; far from one half means that place decides
    left_share: float | None
    left_low: float
    left_high: float
    num_more_needed: int


def standings(user_id: int, first: str, second: str) -> Standings:
    """All blind votes between two versions so far. Raises Forbidden and NotFound("models.no_such_version")."""
    with read_session() as session:
        voter(session, user_id)
        one, two = get_version(session, first), get_version(session, second)
        query = (
            select(t.BenchVote, t.BenchPair.left_version_id)
            .join(t.BenchPair, t.BenchPair.id == t.BenchVote.pair_id)
            .where(
                t.BenchPair.mode == "blind",
                t.BenchPair.status == "ready",
                t.BenchPair.left_version_id.in_((one.id, two.id)),
                t.BenchPair.right_version_id.in_((one.id, two.id)),
            )
            .order_by(t.BenchVote.id)
        )
        rows = [(vote, left_id == one.id) for vote, left_id in session.execute(query)]
    votes = [(vote, is_left) for vote, is_left in rows if vote.vote is not None]
    num_left = sum(vote.vote == Vote.LEFT for vote, _ in votes)
    num_right = sum(vote.vote == Vote.RIGHT for vote, _ in votes)
    wins_first = sum(vote.vote == (Vote.LEFT if is_left else Vote.RIGHT) for vote, is_left in votes)
    ties, both_bad = (sum(vote.vote == kind for vote, _ in votes) for kind in (Vote.TIE, Vote.BOTH_BAD))
    decisive = num_left + num_right
    score = wins_first + (ties + both_bad) / 2
    low, high = wilson(score, len(votes))
    left_low, left_high = wilson(num_left, decisive)
    return Standings(
        first=first,
        second=second,
        wins_first=wins_first,
        wins_second=decisive - wins_first,
        ties=ties,
        both_bad=both_bad,
        unsafe_first=len({v.pair_id for v, is_left in rows if (v.unsafe_left if is_left else v.unsafe_right)}),
        unsafe_second=len({v.pair_id for v, is_left in rows if (v.unsafe_right if is_left else v.unsafe_left)}),
        num_votes=len(votes),
        num_own_votes=sum(vote.user_id == user_id for vote, _ in votes),
        num_decisive=decisive,
        rate=score / len(votes) if votes else None,
        low=low,
        high=high,
        left_share=num_left / decisive if decisive else None,
        left_low=left_low,
        left_high=left_high,
        num_more_needed=max(0, votes_needed() - decisive),
    )
