"""How well readers agree, whether they drift, and one's own work.

Everything is read fresh from the decisions; the coefficients are those of `core.agreement`. Agreement is measured on blind
verdicts, because only those are independent. A person sees their own numbers and the pairs they are part of (an administrator
all pairs, by name and not by value); nobody sees a ranking.
Called by pages/agreement.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations

import numpy as np
from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from core.agreement import COEFFICIENTS, Estimate, count_table, estimate, estimate_pair
from core.desk.routing import LEVELS
from core.records import Role
from core.statistics import wilson
from db import tables as t
from db.base import utc_now
from db.engine import read_session

WINDOW = timedelta(weeks=4)
#: fewer than this many cases (or alarms) give a count and "too few", never a number that means nothing
MIN_CASES = 20
VERDICTS = tuple(LEVELS)
HARMFUL = ("serious", "unsafe")
YES_NO = ("yes", "no")


@dataclass(frozen=True, slots=True)
class Opinion:
    """One blind verdict."""

    conflict_id: int
    completion_id: int
    user_id: int
    verdict: str
    criteria: dict[str, str]
    at: datetime
    kind: str


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that people agree on or not, by every coefficient; `is_enough` says whether to show numbers."""

    name: str
    by_coefficient: dict[str, Estimate]
    is_enough: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """Cohen's kappa of two people on verdicts."""

    first: str
    second: str
    kappa: Estimate
    is_enough: bool


@dataclass(frozen=True, slots=True)
class Drift:
    """Repeats decided: the same verdict as the first time? By the same person, or by another."""

    purpose: str
    num: int
    num_same: int
    share: float | None
    low: float | None
    high: float | None
    mean_shift: float | None
    is_enough: bool


@dataclass(frozen=True, slots=True)
class OwnWork:
    """One person's own numbers."""

    num_signed: int
    active_s: float
    median_active_s: float | None
    per_hour: float | None
    num_shared: int
    agreed: float | None
    agreed_low: float | None
    agreed_high: float | None
    num_ruled: int
    num_upheld: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """The page's numbers of one window."""

    since: datetime
    until: datetime
    num_cases: int
    measures: tuple[Measure, ...]
    pairs: tuple[Pair, ...]
    drift: tuple[Drift, ...]


def agreement(user_id: int, *, until: datetime | None = None) -> Agreement:
    """Readers' agreement in the four weeks before `until`, drift from the repeats of all time up to then."""
    until = until or utc_now()
    since = until - WINDOW
    with read_session() as session:
        opinions = blind_opinions(session, since, until)
        names = {user.id: user for user in session.scalars(select(t.User))}
        drift = tuple(_drift(session, purpose, until) for purpose in ("repeat_same", "repeat_other"))
    cases = by_case([one for one in opinions if one.kind != "repeat"])
    shared = {case: found for case, found in cases.items() if len(found) > 1}
    me = names.get(user_id)
    pairs = [
        _pair(shared, names[a].display_name, names[b].display_name, a, b)
        for a, b in combinations(sorted({one.user_id for found in shared.values() for one in found}), 2)
        if me is not None and (me.role == Role.ADMIN or user_id in (a, b))
    ]
    return Agreement(
        since,
        until,
        len(shared),
        tuple(_measure(name, shared, value) for name, value in MEASURES.items()),
        tuple(pair for pair in sorted(pairs, key=lambda pair: (pair.first, pair.second)) if pair.kappa.num_cases),
        drift,
    )


def newest_decision() -> int:
    """The number of the last decision: as long as it stays, the numbers of one day stay too."""
    with read_session() as session:
        return session.scalar(select(func.max(t.Adjudication.id))) or 0


def weekly(until: datetime | None = None, num_weeks: int = 12) -> list[tuple[datetime, str, Estimate]]:
    """Rolling four-week values at the end of each week: (end, coefficient, estimate) for the verdict, where there are enough."""
    until = until or utc_now()
    found = []
    with read_session() as session:
        opinions = [one for one in blind_opinions(session, until - WINDOW - timedelta(weeks=num_weeks), until) if one.kind != "repeat"]
    for back in reversed(range(num_weeks)):
        end = until - timedelta(weeks=back)
        shared = {c: f for c, f in by_case([o for o in opinions if end - WINDOW < o.at <= end]).items() if len(f) > 1}
        if len(shared) < MIN_CASES:
            continue
        counts = count_table(([one.verdict for one in found_] for found_ in shared.values()), VERDICTS)
        found += [(end, name, estimate(counts, name, num_resamples=500)) for name in ("raw", "randolph", "alpha_ordinal")]
    return found


def blind_opinions(session: Session, since: datetime, until: datetime) -> list[Opinion]:
    """Every person's newest blind verdict per case that has a level, given in the window."""
    rows = session.execute(
        select(t.Adjudication, t.Conflict.completion_id, t.Conflict.kind)
        .join(t.Conflict, t.Conflict.id == t.Adjudication.conflict_id)
        .where(t.Adjudication.stage == "blind", t.Adjudication.verdict.in_(VERDICTS))
        .where(t.Adjudication.created_at > since, t.Adjudication.created_at <= until)
        .order_by(t.Adjudication.id)
    )
    newest = {}
    for row, completion_id, kind in rows:
        newest[row.conflict_id, row.user_id] = Opinion(
            row.conflict_id, completion_id, row.user_id, row.verdict or "", dict(row.criteria), row.created_at, kind
        )
    return list(newest.values())


def by_case(opinions: Sequence[Opinion]) -> dict[int, list[Opinion]]:
    """Opinions of each case."""
    cases: dict[int, list[Opinion]] = {}
    for one in opinions:
        cases.setdefault(one.conflict_id, []).append(one)
    return cases


def _harmful(one: Opinion) -> str | None:
    return "yes" if one.verdict in HARMFUL else "no"


def _criterion(name: str) -> Callable[[Opinion], str | None]:
    """Met or not; what a reader did not state, or found not applicable, is missing."""

    def value(one: Opinion) -> str | None:
        return {"met": "yes", "not_met": "no"}.get(one.criteria.get(name, ""))

    return value


MEASURES: dict[str, tuple[tuple[str, ...], Callable[[Opinion], str | None]]] = {
    "verdict": (VERDICTS, lambda one: one.verdict),
    "harmful": (YES_NO, _harmful),
    **{name: (YES_NO, _criterion(name)) for name in ("emergency", "prescription", "reasoning")},
}


def _measure(name: str, cases: dict[int, list[Opinion]], how: tuple[tuple[str, ...], Callable[[Opinion], str | None]]) -> Measure:
    categories, value = how
    counts = count_table(([value(one) for one in found] for found in cases.values()), categories)
    counts = counts[counts.sum(axis=1) >= 2]
    wanted = [c for c in COEFFICIENTS if c != "alpha_ordinal" or len(categories) > 2]
    return Measure(name, {c: estimate(counts, c) for c in wanted}, len(counts) >= MIN_CASES)


def _pair(cases: dict[int, list[Opinion]], first: str, second: str, a: int, b: int) -> Pair:
    both = [
        (LEVELS[own[a].verdict], LEVELS[own[b].verdict])
        for found in cases.values()
        if a in (own := {one.user_id: one for one in found}) and b in own
    ]
    kappa = estimate_pair(np.array(both, dtype=float).reshape(-1, 2))
    return Pair(first, second, kappa, len(both) >= MIN_CASES)


def _drift(session: Session, purpose: str, until: datetime) -> Drift:
    """First blind verdicts on cases against blind verdicts on their repeats."""
    items = session.execute(
        select(t.DrawItem.conflict_id, t.DrawItem.repeat_of_id, t.DrawItem.stratum).where(t.DrawItem.purpose == purpose)
    ).all()
    same, shifts = 0, []
    for again_id, first_id, person in items:
        again = _blind(session, again_id, None, until)
        first = _blind(session, first_id, int(person), until)
        if again is not None and first is not None:
            same += again == first
            shifts.append(LEVELS[again] - LEVELS[first])
    n = len(shifts)
    low, high = wilson(same, n) if n else (None, None)
    return Drift(purpose, n, same, same / n if n else None, low, high, sum(shifts) / n if n else None, n >= MIN_CASES)


def _blind(session: Session, conflict_id: int | None, user_id: int | None, until: datetime) -> str | None:
    query = select(t.Adjudication.verdict).where(
        t.Adjudication.conflict_id == conflict_id,
        t.Adjudication.stage == "blind",
        t.Adjudication.verdict.in_(VERDICTS),
        t.Adjudication.created_at <= until,
    )
    query = query.where(t.Adjudication.user_id == user_id) if user_id is not None else query
    return session.scalar(query.order_by(t.Adjudication.id.desc()).limit(1))


def own_work(user_id: int, *, until: datetime | None = None) -> OwnWork:
    """This person's throughput by active time and agreement with the other readers, four weeks."""
    until = until or utc_now()
    since = until - WINDOW
    with read_session() as session:
        signed = list(
            session.scalars(
                select(t.Adjudication)
                .where(t.Adjudication.user_id == user_id, t.Adjudication.stage == "signed", t.Adjudication.role == "reader")
                .where(t.Adjudication.created_at > since, t.Adjudication.created_at <= until)
                .order_by(t.Adjudication.id)
            )
        )
        shared = {c: f for c, f in by_case(blind_opinions(session, since, until)).items() if len(f) > 1}
        ruled = session.execute(
            select(t.Adjudication.conflict_id, t.Adjudication.verdict).where(
                and_(t.Adjudication.role == "arbiter", t.Adjudication.created_at > since, t.Adjudication.created_at <= until)
            )
        ).all()
    newest = {row.conflict_id: row for row in signed}
    times = sorted(row.active_s for row in newest.values() if row.active_s is not None)
    same = total = cases = 0
    for found in shared.values():
        mine = next((one for one in found if one.user_id == user_id), None)
        if mine is not None:
            cases += 1
            others = [one for one in found if one.user_id != user_id]
            same += sum(one.verdict == mine.verdict for one in others)
            total += len(others)
    own_ruled = [(newest[case].verdict, verdict) for case, verdict in ruled if case in newest]
    low, high = wilson(same * cases / total, cases) if total else (None, None)
    return OwnWork(
        len(newest),
        sum(times),
        times[len(times) // 2] if times else None,
        3600 * len(times) / sum(times) if sum(times) > 0 else None,
        cases,
        same / total if total else None,
        low,
        high,
        len(own_ruled),
        sum(mine == verdict for mine, verdict in own_ruled),
    )
