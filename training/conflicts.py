"""Put on the desk what the teacher and the rules disagree about, with random controls among it.

Idempotent: a completion has at most one conflict of scores or safety, and controls are topped up to the number asked for per
job. Controls are drawn with the config's seed from the scored completions without a conflict; their share of that pool is
their inclusion probability (in result.json). A control gets the priority and the gap in the order of random conflicts, so
that no order of the queue gives it away. Rows are written in batches, in short transactions.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import audit
from core.conflicts import SAFETY_DISAGREEMENT, SCORE_GAP, ConflictFound, detect
from core.datasets import get_dataset, to_prompt
from core.errors import NotFound
from core.jobs.configs import ConflictsConfig
from core.records import RewardConfig
from core.rewards import normalised_rules
from core.scoring import ensure_reward_config, load_judgement, load_rules
from db import tables as t
from db.engine import read_session, write_session
from training.run import Run, main

BATCH = 200
CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Examined:
    """One scored completion and the conflict found on it (None: rules and teacher agree)."""

    completion_id: int
    sample_id: int
    judgement_id: int | None
    rules_value: float | None
    teacher_value: float | None
    advice: str
    found: ConflictFound | None


def run_conflicts(run: Run) -> None:
    """Detect, store, draw controls."""
    config = run.config(ConflictsConfig)
    shipped = ensure_reward_config()
    reward_config = shipped if config.threshold is None else replace(shipped, conflict_threshold=config.threshold)
    with read_session() as session:
        ids = scored_completions(session, config.dataset)
    tally: Counter[str] = Counter()
    agreed: list[Examined] = []
    priorities: list[float] = []
    for start in range(0, len(ids), BATCH):
        with read_session() as session:
            examined = list(examine(session, ids[start : start + BATCH], reward_config))
        agreed += [one for one in examined if one.found is None]
        conflicting = [one for one in examined if one.found is not None]
        priorities += [one.found.priority for one in conflicting if one.found]
        with write_session() as session:
            for kind, number in store(session, conflicting, shipped.version, run.job_id or None).items():
                tally[kind] += number
        run.progress("conflicts", min(start + BATCH, len(ids)), len(ids))
        run.leave_if_stopped()
    num_controls, probability = draw_controls(agreed, priorities, config, shipped.version, run.job_id or None)
    num_opened = sum(tally.values()) + num_controls
    if num_opened:
        with write_session() as session:  # one entry for the job: whoever subscribed to new cases is told by it
            detail = {"num_cases": num_opened, "job_id": run.job_id or None, "by_kind": dict(sorted(tally.items()))}
            audit.record(session, "open_cases", "job", run.job_id, actor_id=None, detail=detail)
    run.result(
        num_completions=len(ids),
        num_new=sum(tally.values()),
        by_kind=dict(sorted(tally.items())),
        num_conflicting=len(priorities),
        conflict_share=len(priorities) / len(ids),
        num_controls=num_controls,
        control_seed=config.seed,
        control_inclusion_probability=probability,
        threshold=reward_config.conflict_threshold,
        reward_config=shipped.version,
    )
    print(f"{len(priorities)} conflicts in {len(ids)} completions ({sum(tally.values())} new), {num_controls} controls", flush=True)


def scored_completions(session: Session, dataset: str) -> list[int]:
    """Ids of the dataset's completions that have rule scores. Raises NotFound("scoring.nothing_scored")."""
    query = (
        select(t.Completion.id)
        .join(t.Sample, t.Sample.id == t.Completion.sample_id)
        .where(t.Sample.dataset_id == get_dataset(session, dataset).id)
        .where(select(t.RuleScore.id).where(t.RuleScore.completion_id == t.Completion.id).exists())
    )
    ids = list(session.scalars(query.order_by(t.Completion.id)))
    if not ids:
        raise NotFound("scoring.nothing_scored", name=dataset)
    return ids


def examine(session: Session, ids: Sequence[int], config: RewardConfig) -> Iterator[Examined]:
    """Hold the newest rule scores of each completion against its newest judgement."""
    rules: dict[int, dict[str, t.RuleScore]] = {}
    for score in session.scalars(select(t.RuleScore).where(t.RuleScore.completion_id.in_(ids)).order_by(t.RuleScore.id)):
        rules.setdefault(score.completion_id, {})[score.rule_id] = score
    judged = session.scalars(select(t.Judgement).where(t.Judgement.completion_id.in_(ids)).order_by(t.Judgement.id))
    judgements = {row.completion_id: row for row in judged}
    query = select(t.Completion.id, t.Sample).join(t.Sample, t.Sample.id == t.Completion.sample_id).where(t.Completion.id.in_(ids))
    for completion_id, sample in session.execute(query.order_by(t.Completion.id)):
        row = judgements.get(completion_id)
        judgement = load_judgement(row) if row else None
        records = load_rules(list(rules[completion_id].values()))
        yield Examined(
            completion_id,
            sample.id,
            row.id if row else None,
            normalised_rules(records, config),
            judgement.teacher_score if judgement else None,
            judgement.critique if judgement else "",
            detect(to_prompt(sample), records, judgement, config),
        )


def store(session: Session, conflicting: Sequence[Examined], config_version: str, job_id: int | None) -> Counter[str]:
    """Store new conflicts; a completion that already has one of either kind is left alone. Returns how many by kind."""
    ids = [one.completion_id for one in conflicting]
    query = select(t.Conflict.completion_id).where(t.Conflict.completion_id.in_(ids), t.Conflict.kind.in_((SCORE_GAP, SAFETY_DISAGREEMENT)))
    known = set(session.scalars(query))
    tally: Counter[str] = Counter()
    for one in conflicting:
        if one.found is None or one.completion_id in known:
            continue
        session.add(_row(one, one.found.kind, one.found.priority, config_version, job_id))
        tally[one.found.kind] += 1
    return tally


def draw_controls(
    agreed: Sequence[Examined], priorities: Sequence[float], config: ConflictsConfig, config_version: str, job_id: int | None
) -> tuple[int, float]:
    """Add random controls up to `num_controls` of this job. Returns how many were added and the inclusion probability."""
    rng = random.Random(config.seed)
    with write_session() as session:
        conflicting = select(t.Conflict.gap).where(t.Conflict.kind.in_((SCORE_GAP, SAFETY_DISAGREEMENT)), t.Conflict.gap.is_not(None))
        gaps = list(session.scalars(conflicting.order_by(t.Conflict.id)))
        taken = {row.completion_id: row.job_id for row in session.execute(select(t.Conflict.completion_id, t.Conflict.job_id))}
        have = sum(taken.get(one.completion_id, -1) == job_id for one in agreed)
        pool = [one for one in agreed if one.completion_id not in taken]
        wanted = min(max(0, config.num_controls - have), len(pool))
        for one in rng.sample(pool, wanted):
            row = _row(one, CONTROL, rng.choice(priorities) if priorities else 0.0, config_version, job_id)
            row.order_gap = rng.choice(gaps) if gaps else None
            session.add(row)
    return wanted, wanted / len(pool) if pool else 0.0


def _row(one: Examined, kind: str, priority: float, config_version: str, job_id: int | None) -> t.Conflict:
    gap = None
    if one.rules_value is not None and one.teacher_value is not None:
        gap = abs(one.teacher_value - one.rules_value)
    return t.Conflict(
        completion_id=one.completion_id,
        sample_id=one.sample_id,
        kind=kind,
        gap=gap,
        rules_value=one.rules_value,
        teacher_value=one.teacher_value,
        judgement_id=one.judgement_id,
        config_version=config_version,
        advice=one.advice,
        priority=priority,
        job_id=job_id,
    )


if __name__ == "__main__":
    main(run_conflicts)
