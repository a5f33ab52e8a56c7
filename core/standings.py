"""How versions stand after the blind votes: counts, win rate, position check, slices, votes still missing, and the ranking of all.

Only blind pairs count, each once. A tie and "both bad" are half a win for either (the arena convention); unsafe flags are
counted beside, never in the rate. A contestant is a version with or without evidence. Nothing of one pair's secret is told here:
only totals over votes that are stored. Called by the bench.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session, aliased

from core.bench_sides import Contestant
from core.bench_slices import MIN_SLICE, Group, groups_of, members
from core.datasets import to_prompt
from core.lexicons import load_lexicons
from core.models import get_version
from core.preference import voter
from core.ranking import Battle, Ranking, rank, win_rate
from core.records import Vote
from core.statistics import votes_needed, wilson
from db import tables as t
from db.engine import read_session

#: what a ranking with style held constant holds constant, in the order of its effects
STYLE = ("left", "length", "formatting")
MARKUP = re.compile(r"(?m)^\s*(?:#{1,6} |[-*•] |\d{1,2}[.)、] )|\*\*[^*\n]+\*\*")
NUM_WON = {Vote.LEFT.value: 1.0, Vote.RIGHT.value: 0.0}


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
    first_with_evidence: bool = False
    second_with_evidence: bool = False


@dataclass(frozen=True, slots=True)
class SliceRate:
    """The win rate of the first in one group of questions; no numbers when there are fewer than `MIN_SLICE` votes."""

    by: str
    value: str
    num_votes: int
    rate: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """All contestants. `raw` counts votes as they are; `held` has side, length and formatting held constant (`STYLE`).

    `names` tells a ranking's names apart: name -> (version, with evidence). `left_share` is over all decisive blind votes.
    """

    raw: Ranking
    held: Ranking
    names: dict[str, tuple[str, bool]]
    num_votes: int
    num_voters: int
    num_questions: int
    left_share: float | None
    left_low: float
    left_high: float


@dataclass(frozen=True, slots=True)
class Meeting:
    """Two contestants that met in blind votes."""

    first: str
    first_with_evidence: bool
    second: str
    second_with_evidence: bool
    num_votes: int


def standings(user_id: int, first: str, second: str, *, first_with_evidence: bool = False, second_with_evidence: bool = False) -> Standings:
    """All blind votes between two contestants so far. Raises Forbidden and NotFound("models.no_such_version")."""
    with read_session() as session:
        voter(session, user_id)
        one = Contestant(get_version(session, first).id, first_with_evidence)
        two = Contestant(get_version(session, second).id, second_with_evidence)
        rows = [(vote, _left(pair) == one) for vote, pair in _votes_between(session, one, two)]
    votes = [(vote, is_left) for vote, is_left in rows if vote.vote is not None]
    num_left = sum(vote.vote == Vote.LEFT for vote, _ in votes)
    num_right = sum(vote.vote == Vote.RIGHT for vote, _ in votes)
    wins_first = sum(vote.vote == (Vote.LEFT if is_left else Vote.RIGHT) for vote, is_left in votes)
    ties, both_bad = (sum(vote.vote == kind for vote, _ in votes) for kind in (Vote.TIE, Vote.BOTH_BAD))
    decisive = num_left + num_right
    rate, low, high = win_rate(wins_first, ties + both_bad, len(votes))
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
        rate=rate if votes else None,
        low=low,
        high=high,
        left_share=num_left / decisive if decisive else None,
        left_low=left_low,
        left_high=left_high,
        num_more_needed=max(0, votes_needed() - decisive),
        first_with_evidence=first_with_evidence,
        second_with_evidence=second_with_evidence,
    )


def slices(user_id: int, meeting: Meeting) -> list[SliceRate]:
    """The win rate of the meeting's first in every group of questions. Raises as `standings`."""
    lexicons = load_lexicons()
    with read_session() as session:
        voter(session, user_id)
        one = Contestant(get_version(session, meeting.first).id, meeting.first_with_evidence)
        two = Contestant(get_version(session, meeting.second).id, meeting.second_with_evidence)
        found: list[tuple[float, tuple[Group, ...]]] = []
        known: dict[int, tuple[Group, ...]] = {}
        for vote, pair in _votes_between(session, one, two):
            if vote.vote is None:
                continue
            if pair.sample_id not in known:
                sample = session.get_one(t.Sample, pair.sample_id)
                known[sample.id] = groups_of(to_prompt(sample), sample.meta, lexicons)
            won = NUM_WON.get(vote.vote, 0.5)
            found.append((won if _left(pair) == one else 1 - won, known[pair.sample_id]))
    rates = []
    for (by, value), rows in members([groups for _, groups in found]).items():
        scores = [found[i][0] for i in rows]
        if len(scores) < MIN_SLICE:
            rates.append(SliceRate(by, value, len(scores), None, 0.0, 1.0))
        else:
            rates.append(SliceRate(by, value, len(scores), *win_rate(scores.count(1.0), scores.count(0.5), len(scores))))
    return rates


def meetings(user_id: int) -> list[Meeting]:
    """Who met whom in blind votes, most votes first; the newer version comes first in each. Raises Forbidden."""
    with read_session() as session:
        voter(session, user_id)
        counts: dict[tuple[Contestant, Contestant], int] = {}
        for _, pair in _preferences(session):
            newer, older = sorted((_left(pair), _right(pair)), reverse=True)
            counts[newer, older] = counts.get((newer, older), 0) + 1
        names = dict(session.execute(select(t.ModelVersion.id, t.ModelVersion.name)).all())
    met = sorted(counts.items(), key=lambda item: -item[1])
    return [Meeting(names[a.version_id], a.with_evidence, names[b.version_id], b.with_evidence, n) for (a, b), n in met]


def leaderboard(user_id: int, *, resamples: int = 300) -> Leaderboard:
    """Bradley-Terry over all blind votes, raw and with style held constant. Raises Forbidden."""
    with read_session() as session:
        voter(session, user_id)
        left, right = aliased(t.Completion), aliased(t.Completion)
        query = (
            _preferences_query()
            .add_columns(left.answer, right.answer)
            .join(left, left.id == t.BenchPair.left_completion_id)
            .join(right, right.id == t.BenchPair.right_completion_id)
        )
        rows = session.execute(query).all()
        versions = dict(session.execute(select(t.ModelVersion.id, t.ModelVersion.name)).all())
    sides = sorted({side for _, pair, _, _ in rows for side in (_left(pair), _right(pair))})
    names = {side: versions[side.version_id] + (" +" if side.with_evidence else "") for side in sides}
    battles = _battles(rows, names)
    decisive = [vote.vote for vote, *_ in rows if vote.vote in NUM_WON]
    low, high = wilson(decisive.count("left"), len(decisive))
    return Leaderboard(
        raw=rank(battles, with_style=False, resamples=resamples),
        held=rank(battles, with_style=True, resamples=resamples),
        names={names[side]: (versions[side.version_id], side.with_evidence) for side in sides},
        num_votes=len(rows),
        num_voters=len({vote.user_id for vote, *_ in rows}),
        num_questions=len({pair.sample_id for _, pair, *_ in rows}),
        left_share=decisive.count("left") / len(decisive) if decisive else None,
        left_low=low,
        left_high=high,
    )


def num_blind_votes() -> tuple[int, int]:
    """(how many, the newest's id): what the ranking depends on."""
    with read_session() as session:
        number, newest = session.execute(select(func.count(t.BenchVote.id), func.max(t.BenchVote.id))).one()
    return number, newest or 0


def _battles(rows: Sequence[Row[t.BenchVote, t.BenchPair, str, str]], names: dict[Contestant, str]) -> list[Battle]:
    """Votes as the ranking takes them. Length and formatting are differences relative to the sum, in units of their own spread
    (as Chatbot Arena's style control), so that they mean the same for short and long answers, in Chinese and in English."""
    lengths = [_relative(len(a), len(b)) for *_, a, b in rows]
    marks = [_relative(len(MARKUP.findall(a)), len(MARKUP.findall(b))) for *_, a, b in rows]
    units = [_spread(lengths), _spread(marks)]
    return [
        Battle(
            names[_left(pair)],
            names[_right(pair)],
            NUM_WON.get(vote.vote or "", 0.5),
            pair.sample_id,
            vote.user_id,
            (1.0, length / units[0], mark / units[1]),
        )
        for (vote, pair, _, _), length, mark in zip(rows, lengths, marks, strict=True)
    ]


def _relative(one: int, two: int) -> float:
    return (one - two) / (one + two) if one + two else 0.0


def _spread(values: Sequence[float]) -> float:
    square = sum(v * v for v in values) / len(values) if values else 0.0
    return square**0.5 or 1.0


def _left(pair: t.BenchPair) -> Contestant:
    return Contestant(pair.left_version_id, pair.left_with_evidence)


def _right(pair: t.BenchPair) -> Contestant:
    return Contestant(pair.right_version_id, pair.right_with_evidence)


def _votes_between(session: Session, one: Contestant, two: Contestant) -> list[tuple[t.BenchVote, t.BenchPair]]:
    """Every ballot on a blind pair of these two, in order; those without a preference hold unsafe flags only."""
    ids = (one.version_id, two.version_id)
    query = (
        select(t.BenchVote, t.BenchPair)
        .join(t.BenchPair, t.BenchPair.id == t.BenchVote.pair_id)
        .where(
            t.BenchPair.mode == "blind",
            t.BenchPair.status == "ready",
            t.BenchPair.left_version_id.in_(ids),
            t.BenchPair.right_version_id.in_(ids),
        )
        .order_by(t.BenchVote.id)
    )
    return [(vote, pair) for vote, pair in session.execute(query).all() if {_left(pair), _right(pair)} == {one, two}]


def _preferences_query() -> Select[t.BenchVote, t.BenchPair]:
    return (
        select(t.BenchVote, t.BenchPair)
        .join(t.BenchPair, t.BenchPair.id == t.BenchVote.pair_id)
        .where(t.BenchPair.mode == "blind", t.BenchPair.status == "ready", t.BenchVote.vote.is_not(None))
        .order_by(t.BenchVote.id)
    )


def _preferences(session: Session) -> list[tuple[t.BenchVote, t.BenchPair]]:
    return [(vote, pair) for vote, pair in session.execute(_preferences_query())]
