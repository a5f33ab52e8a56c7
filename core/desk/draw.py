"""The weekly draw: from everything that could be reviewed to the cases that will be, by a recorded and repeatable plan.

The record holds config, seed and frame (all ids that could have been drawn); `reproduce` gives the items again from nothing
else, and their hash must be the stored one. What is drawn gets seats (`core.desk.plan`). A control or repeat looks like any
other case in the queue: its priority and order are borrowed from conflicts. Called by training.draw and pages/agreement.py.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVarTuple, cast

from sqlalchemy import Select, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from core import audit
from core.datasets import get_dataset
from core.desk.cases import current_rules
from core.desk.plan import Seat, active_reviewers, give_seats
from core.errors import Conflicting, UserError
from core.jobs.configs_review import DrawConfig
from core.records import ConflictStatus
from core.rewards import normalised_rules
from core.sampling import Frame, Item, chance, draw_plan
from core.scoring import FIRST_CONFIG, ensure_reward_config, load_judgement, load_rules, reward_config
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session

Ts = TypeVarTuple("Ts")
CONTROL, REPEAT = "control", "repeat"
#: kinds of case that are about an answer's own fault, and so have a stratum
DISPUTED = ("score_gap", "safety_disagreement", "bench_safety", "imported")


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came of a draw. `num_by_purpose` may fall short of what was wanted when the frame holds fewer."""

    draw_id: int
    name: str
    seed: int
    num_by_purpose: dict[str, int]
    num_by_stratum: dict[str, int]
    frame_sizes: dict[str, int]
    overlap: int
    items_sha256: str


def week_name(now: datetime) -> str:
    """2026-W47."""
    year, week, _ = now.isocalendar()
    return f"{year}-W{week:02d}"


def make_draw(config: DrawConfig, *, by: int | None = None, job_id: int | None = None) -> Drawn:
    """Draw, store the record, make the cases and their seats, in one transaction.

    Raises Conflicting("agreement.draw_exists") for a name that was drawn before, UserError("agreement.nothing_to_draw").
    """
    reward_version = ensure_reward_config().version
    name = config.name.strip() or week_name(utc_now())
    seed = int.from_bytes(hashlib.sha256(f"{config.seed}:{name}".encode()).digest()[:4]) >> 1
    with read_session() as session:
        if session.scalar(select(t.Draw.id).where(t.Draw.name == name)):
            raise Conflicting("agreement.draw_exists", name=name)
        frame = make_frame(session, config)
        people = [user.id for user in active_reviewers(session)]
    wanted = wanted_numbers(config, len(people))
    items = draw_plan(frame, wanted, seed)
    if not items:
        raise UserError("agreement.nothing_to_draw")
    record = config.model_dump(mode="json") | {"wanted": wanted, "people": people, "reward_config": reward_version}
    with write_session() as session:
        if session.scalar(select(t.Draw.id).where(t.Draw.name == name)):
            raise Conflicting("agreement.draw_exists", name=name)
        draw = t.Draw(
            name=name,
            seed=seed,
            config=record,
            frame=cast("dict[str, Any]", frame),
            frame_sha256=digest(frame),
            items_sha256=digest([asdict(item) for item in items]),
            num_items=len(items),
            created_by=by,
            job_id=job_id,
        )
        session.add(draw)
        session.flush()
        _store_items(session, draw, items, people)
        detail = {"name": name, "seed": seed, "num_items": len(items), "frame_sha256": draw.frame_sha256, "items_sha256": draw.items_sha256}
        audit.record(session, "draw_cases", "draw", draw.id, actor_id=by, detail=detail)
    strata = Counter(item.stratum for item in items if item.purpose == "conflict")
    return Drawn(
        draw.id,
        name,
        seed,
        {purpose: sum(item.purpose == purpose for item in items) for purpose in wanted},
        dict(sorted(strata.items())),
        frame_sizes(frame),
        min(config.overlap, max(1, len(people))),
        draw.items_sha256,
    )


def wanted_numbers(config: DrawConfig, num_people: int) -> dict[str, int]:
    """How many of each purpose; where one person reads everything, nobody else can repeat."""
    other = config.num_repeats_other if num_people > 1 else 0
    same = config.num_repeats_same + (config.num_repeats_other - other)
    return {"conflict": config.num_conflicts, "control": config.num_controls, "repeat_same": same, "repeat_other": other}


def make_frame(session: Session, config: DrawConfig) -> Frame:
    """Everything that could be drawn now, ids in order."""
    dataset_id = get_dataset(session, config.dataset).id if config.dataset else None
    is_drawn = exists().where(t.DrawItem.conflict_id == t.Conflict.id)
    is_read = exists().where(t.Adjudication.conflict_id == t.Conflict.id, t.Adjudication.stage == "signed")
    conflicts = (
        select(t.Conflict.id, t.Conflict.kind, t.Sample.category, t.ModelVersion.name)
        .join(t.Sample, t.Sample.id == t.Conflict.sample_id)
        .join(t.Completion, t.Completion.id == t.Conflict.completion_id)
        .outerjoin(t.ModelVersion, t.ModelVersion.id == t.Completion.model_version_id)
        .where(t.Conflict.kind.in_(DISPUTED), t.Conflict.status.in_((ConflictStatus.OPEN, ConflictStatus.CLAIMED)), ~is_drawn, ~is_read)
    )
    strata: dict[str, list[int]] = {}
    for conflict_id, kind, topic, version in session.execute(_within(conflicts, dataset_id).order_by(t.Conflict.id)):
        strata.setdefault(f"{kind} / {topic} / {version or '-'}", []).append(conflict_id)
    completion_of = select(t.Conflict.completion_id)
    has_case = or_(
        t.Completion.id.in_(completion_of.where(t.Conflict.kind.in_((*DISPUTED, REPEAT)))),
        t.Completion.id.in_(completion_of.join(t.DrawItem, t.DrawItem.conflict_id == t.Conflict.id)),
        t.Completion.id.in_(
            completion_of.join(t.Adjudication, t.Adjudication.conflict_id == t.Conflict.id).where(t.Adjudication.stage == "signed")
        ),
    )
    has_rules = exists().where(t.RuleScore.completion_id == t.Completion.id)
    agreed = select(t.Completion.id).join(t.Sample, t.Sample.id == t.Completion.sample_id).where(has_rules, ~has_case)
    controls = list(session.scalars(_within(agreed, dataset_id).order_by(t.Completion.id)))
    return {"conflict": strata, "control": controls, "repeat": _repeatable(session, config, dataset_id)}


def frame_sizes(frame: Frame) -> dict[str, int]:
    """How many units each part of the frame has."""
    return {
        "conflict": sum(map(len, frame["conflict"].values())),
        "control": len(frame["control"]),
        "repeat": sum(map(len, frame["repeat"].values())),
    }


def reproduce(draw: t.Draw) -> list[Item]:
    """The items of a draw once more, from its record alone."""
    return draw_plan(cast("Frame", draw.frame), draw.config["wanted"], draw.seed)


def is_intact(draw: t.Draw) -> bool:
    """The record still hashes as stored and gives the stored items."""
    same = digest([asdict(item) for item in reproduce(draw)]) == draw.items_sha256
    return same and digest(draw.frame) == draw.frame_sha256


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def _within(query: Select[*Ts], dataset_id: int | None) -> Select[*Ts]:
    return query.where(t.Sample.dataset_id == dataset_id) if dataset_id is not None else query


def _repeatable(session: Session, config: DrawConfig, dataset_id: int | None) -> dict[str, list[int]]:
    """Cases decided long enough ago, by who decided them, whose answer was not repeated yet."""
    before = utc_now() - timedelta(days=config.repeat_after_days)
    again = aliased(t.Conflict)
    is_repeated = exists().where(again.completion_id == t.Conflict.completion_id, again.kind == REPEAT)
    last = (
        select(func.max(t.Adjudication.id))
        .where(t.Adjudication.conflict_id == t.Conflict.id, t.Adjudication.stage == "signed", t.Adjudication.role == "reader")
        .correlate(t.Conflict)
        .scalar_subquery()
    )
    query = (
        select(t.Conflict.id, t.Conflict.completion_id, t.Adjudication.user_id)
        .join(t.Sample, t.Sample.id == t.Conflict.sample_id)
        .join(t.Adjudication, and_(t.Adjudication.conflict_id == t.Conflict.id, t.Adjudication.id == last))
        .join(t.User, t.User.id == t.Adjudication.user_id)
        .where(t.Conflict.status == ConflictStatus.ADJUDICATED, t.Conflict.kind != REPEAT, ~is_repeated)
        .where(t.Adjudication.created_at < before, t.User.is_active)
    )
    found: dict[str, list[int]] = {}
    seen: set[int] = set()
    for conflict_id, completion_id, user_id in session.execute(_within(query, dataset_id).order_by(t.Conflict.id)):
        if completion_id not in seen:  # one answer may have been a case of two kinds
            seen.add(completion_id)
            found.setdefault(str(user_id), []).append(conflict_id)
    return found


def _store_items(session: Session, draw: t.Draw, items: Sequence[Item], people: Sequence[int]) -> None:
    conflicts = [session.get_one(t.Conflict, item.unit_id) for item in items if item.purpose == "conflict"]
    overlap = min(draw.config["overlap"], max(1, len(people)))
    turn = sorted(people, key=lambda person: chance(draw.seed, "person", person))
    for place, item in enumerate(items):
        # a control or a repeat stands in the queue where some conflict would
        model = conflicts[int(chance(draw.seed, "borrow", place) * len(conflicts))] if conflicts else None
        repeat_of = None
        if item.purpose == "conflict":
            conflict = session.get_one(t.Conflict, item.unit_id)
        elif item.purpose == "control":
            conflict = _control_case(session, draw, item.unit_id)
        else:
            repeat_of = session.get_one(t.Conflict, item.unit_id)
            conflict = _repeat_case(session, draw, repeat_of)
        if item.purpose != "conflict":
            conflict.priority = model.priority if model else 0.0
            conflict.order_gap = model.gap if model else None
        session.flush()
        session.add(
            t.DrawItem(
                draw_id=draw.id,
                conflict_id=conflict.id,
                purpose=item.purpose,
                stratum=item.stratum,
                inclusion_probability=item.inclusion_probability,
                unit_id=item.unit_id,
                place=place,
                repeat_of_id=repeat_of.id if repeat_of else None,
            )
        )
        give_seats(session, conflict, _seats(session, draw, item, conflict, turn, overlap, place), draw_id=draw.id, by=draw.created_by)
    session.flush()


def _seats(session: Session, draw: t.Draw, item: Item, conflict: t.Conflict, turn: Sequence[int], overlap: int, place: int) -> list[Seat]:
    if item.purpose == "repeat_same":
        return [Seat(user_id=int(item.stratum))]
    if item.purpose == "repeat_other":
        others = [person for person in turn if person != int(item.stratum)]
        return [Seat(user_id=others[place % len(others)])]
    if draw.config["assign"] == "named":
        return [Seat(user_id=turn[(place * overlap + n) % len(turn)]) for n in range(overlap)]
    if draw.config["assign"] == "speciality":
        topic = session.get_one(t.Sample, conflict.sample_id).category
        known = session.scalar(select(func.count(t.User.id)).where(t.User.id.in_(turn), func.lower(t.User.speciality) == topic.lower()))
        num_known = min(overlap, known or 0)
        return [Seat(speciality=topic)] * num_known + [Seat()] * (overlap - num_known)
    return [Seat() for _ in range(overlap)]


def _control_case(session: Session, draw: t.Draw, completion_id: int) -> t.Conflict:
    """The case of a control, as it lies there or new, with what rules and teacher said about it."""
    known = session.scalar(select(t.Conflict).where(t.Conflict.completion_id == completion_id, t.Conflict.kind == CONTROL))
    if known is not None:
        return known
    completion = session.get_one(t.Completion, completion_id)
    newest = select(t.Judgement).where(t.Judgement.completion_id == completion_id).order_by(t.Judgement.id.desc()).limit(1)
    judged = session.scalar(newest)
    teacher = load_judgement(judged).teacher_score if judged else None
    rules = normalised_rules(load_rules(current_rules(session, completion_id)), reward_config(session) or FIRST_CONFIG)
    conflict = t.Conflict(
        completion_id=completion_id,
        sample_id=completion.sample_id,
        kind=CONTROL,
        gap=abs(teacher - rules) if teacher is not None and rules is not None else None,
        rules_value=rules,
        teacher_value=teacher,
        judgement_id=judged.id if judged else None,
        config_version=draw.config["reward_config"],
        advice=judged.critique if judged else "",
        job_id=draw.job_id,
    )
    session.add(conflict)
    return conflict


def _repeat_case(session: Session, draw: t.Draw, original: t.Conflict) -> t.Conflict:
    """The same answer as a new case: nothing of the first decision is in it."""
    names = ("completion_id", "sample_id", "gap", "rules_value", "teacher_value", "judgement_id", "config_version", "advice")
    conflict = t.Conflict(kind=REPEAT, job_id=draw.job_id, **{name: getattr(original, name) for name in names})
    session.add(conflict)
    return conflict


@dataclass(frozen=True, slots=True)
class DrawState:
    """How far a draw is. `by_purpose` and `by_stratum` map to (drawn, decided)."""

    id: int
    name: str
    seed: int
    created_at: datetime
    num_items: int
    num_decided: int
    by_purpose: dict[str, tuple[int, int]]
    by_stratum: dict[str, tuple[int, int, float]]
    frame_sizes: dict[str, int]
    items_sha256: str


def draws(limit: int = 8) -> list[DrawState]:
    """The newest draws and how far they are."""
    with read_session() as session:
        return [_draw_state(session, row) for row in session.scalars(select(t.Draw).order_by(t.Draw.id.desc()).limit(limit))]


def _draw_state(session: Session, row: t.Draw) -> DrawState:
    purposes: dict[str, tuple[int, int]] = {}
    strata: dict[str, tuple[int, int, float]] = {}
    query = (
        select(t.DrawItem, t.Conflict.status)
        .join(t.Conflict, t.Conflict.id == t.DrawItem.conflict_id)
        .where(t.DrawItem.draw_id == row.id)
        .order_by(t.DrawItem.purpose, t.DrawItem.stratum)
    )
    for item, status in session.execute(query):
        done = status == ConflictStatus.ADJUDICATED
        drawn, decided = purposes.get(item.purpose, (0, 0))
        purposes[item.purpose] = (drawn + 1, decided + done)
        if item.purpose == "conflict":
            drawn, decided, _ = strata.get(item.stratum, (0, 0, 0.0))
            strata[item.stratum] = (drawn + 1, decided + done, item.inclusion_probability)
    decided_all = sum(decided for _, decided in purposes.values())
    return DrawState(
        row.id,
        row.name,
        row.seed,
        row.created_at,
        row.num_items,
        decided_all,
        purposes,
        strata,
        frame_sizes(cast("Frame", row.frame)),
        row.items_sha256,
    )
