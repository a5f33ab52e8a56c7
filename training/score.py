"""Score the completions of a dataset by rules and teacher.

Idempotent: a completion that already has rule scores of this lexicon, a judgement of this rubric and a reward of this reward
config is left alone (unless `rescore`), so a second start does only what is missing. A judgement that exists is used again,
because a call may cost money; one that failed for a passing reason (endpoint down, rate limit) is asked for again: at the end
of this job if the teacher has come back, and by the next job. The teacher's ledger keeps every verdict the moment it arrives,
so a job that was killed asks only for what was on its way. Completions go in batches, high risk first (money may run out):
scored first, then stored in one short write transaction each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, exists, select
from sqlalchemy.orm import Session

from core.datasets import get_dataset, to_completion, to_prompt
from core.errors import NotFound
from core.jobs.configs import ScoreConfig
from core.models import get_version
from core.records import Completion, Judgement, Prompt, Risk
from core.rewards import combine
from core.rules import RULES
from core.scoring import Scored, Scorer, load_judgement, open_scorer, store_scores
from core.teacher import LASTING_REASONS, REASONS
from db import tables as t
from db.engine import read_session, write_session
from training.run import Run, main

#: Completions per transaction, and per round of calls to a remote teacher.
BATCH = 200
BATCH_REMOTE = 64
#: order of work
URGENCY = {Risk.HIGH: 0, Risk.MEDIUM: 1, Risk.LOW: 2}
#: what `labels_of` calls a completion that has a reward, and a judgement that is missing for a passing reason
REWARDED = "rewards"
PASSING = frozenset(f"teacher:{reason}" for reason in REASONS if reason not in LASTING_REASONS)
#: at the end, the longest wait for second opinions that are under way
WAIT_S = 120.0
#: Text by people has no thinking block and is not blamed for it.
BY_PEOPLE = frozenset({"imported", "human"})


@dataclass(frozen=True, slots=True)
class Item:
    """One completion to score. `known` is a judgement that is still good, `known_id` its row."""

    prompt: Prompt
    completion: Completion
    source: str
    known: Judgement | None
    known_id: int | None


def run_score(run: Run) -> None:
    """Score what has no score yet."""
    config = run.config(ScoreConfig)
    scorer = open_scorer(run.home)
    with read_session() as session:
        ids = find_completions(session, config)
        todo = ids if config.rescore else ids_without_score(session, ids, scorer, with_teacher=config.with_teacher)
    labels: dict[int, list[str]] = {}
    total, size = len(todo), BATCH if scorer.teacher.is_offline or not config.with_teacher else BATCH_REMOTE
    run.progress("score", 0, total)
    for start in range(0, total, size):
        score_batch(run, scorer, todo[start : start + size], config, labels, rescore=config.rescore)
        run.progress("score", len(labels), total)
        run.leave_if_stopped()
    pending = [i for i in todo if any(label in PASSING for label in labels[i])]
    if pending and scorer.teacher.health(probe=True).is_up:
        print(f"the teacher answers: {len(pending)} judgements that are missing are asked for once more", flush=True)
        for start in range(0, len(pending), size):
            score_batch(run, scorer, pending[start : start + size], config, labels, rescore=False)
            run.leave_if_stopped()
    scorer.teacher.wait_idle(WAIT_S)
    usage = scorer.teacher.usage()
    tally = Counter(label for found in labels.values() for label in found)
    run.result(
        num_completions=len(ids),
        num_scored=total,
        num_already_scored=len(ids) - total,
        num_rewards=tally.pop(REWARDED, 0),
        unscored=dict(sorted(tally.items())),
        teacher=scorer.teacher.name if config.with_teacher else None,
        teacher_is_offline=scorer.teacher.is_offline,
        lexicon_version=scorer.lexicons.version,
        rubric_version=scorer.teacher.rubric_version,
        reward_config=scorer.config.version,
        teacher_requests=usage.num_requests,
        teacher_cached=usage.num_cached,
        teacher_cost_usd=usage.cost_usd,
    )
    print(f"scored {total} of {len(ids)} completions; unscored: {dict(tally) or 'none'}", flush=True)


def score_batch(run: Run, scorer: Scorer, ids: Sequence[int], config: ScoreConfig, labels: dict[int, list[str]], *, rescore: bool) -> None:
    """Score and store these completions; `labels` gets what is to be counted of each."""
    with read_session() as session:
        items = load_items(session, ids, scorer, rescore=rescore)
    scored = score_items(scorer, items, with_teacher=config.with_teacher)
    with write_session() as session:
        store_scores(session, scored, job_id=run.job_id or None)
    labels |= {completion_id: labels_of(one) for completion_id, one in scored}


def find_completions(session: Session, config: ScoreConfig) -> list[int]:
    """Ids of the dataset's completions (of one model version when named), high risk first. Raises NotFound("scoring.no_completions")."""
    dataset = get_dataset(session, config.dataset)
    query = select(t.Completion.id).join(t.Sample, t.Sample.id == t.Completion.sample_id).where(t.Sample.dataset_id == dataset.id)
    if config.model:
        query = query.where(t.Completion.model_version_id == get_version(session, config.model).id)
    urgency = case({risk.value: order for risk, order in URGENCY.items()}, value=t.Sample.risk)
    ids = list(session.scalars(query.order_by(urgency, t.Completion.id)))
    if not ids:
        raise NotFound("scoring.no_completions", name=config.dataset)
    return ids


def ids_without_score(session: Session, ids: Sequence[int], scorer: Scorer, *, with_teacher: bool) -> list[int]:
    """Those of `ids` that lack a rule score, a lasting judgement or a reward of the versions in force."""
    complete: ColumnElement[bool] = and_(
        *(
            exists().where(
                t.RuleScore.completion_id == t.Completion.id,
                t.RuleScore.rule_id == rule,
                t.RuleScore.lexicon_version == scorer.lexicons.version,
            )
            for rule in RULES
        ),
        exists().where(
            t.Reward.completion_id == t.Completion.id,
            t.Reward.config_version == scorer.config.version,
            *([t.Reward.judgement_id == t.Judgement.id] if with_teacher else []),
            *(_lasting(scorer) if with_teacher else []),
        ),
    )
    done = set(session.scalars(select(t.Completion.id).where(complete)))
    return [i for i in ids if i not in done]


def _lasting(scorer: Scorer) -> list[ColumnElement[bool]]:
    """A judgement of this teacher and rubric that need not be asked for again."""
    return [
        t.Judgement.teacher == scorer.teacher.name,
        t.Judgement.rubric_version == scorer.teacher.rubric_version,
        t.Judgement.teacher_score.is_not(None) | t.Judgement.unscored_reason.in_(LASTING_REASONS - {"identifiers"}),
    ]


def load_items(session: Session, ids: Sequence[int], scorer: Scorer, *, rescore: bool) -> list[Item]:
    """The completions with their prompts and, unless `rescore`, the newest judgement that is still good."""
    query = select(t.Completion, t.Sample).join(t.Sample, t.Sample.id == t.Completion.sample_id).where(t.Completion.id.in_(ids))
    known: dict[int, t.Judgement] = {}
    if not rescore:
        rows = session.scalars(select(t.Judgement).where(t.Judgement.completion_id.in_(ids), *_lasting(scorer)).order_by(t.Judgement.id))
        known = {row.completion_id: row for row in rows}
    found = []
    for completion, sample in session.execute(query.order_by(t.Completion.id)):
        row = known.get(completion.id)
        judgement = load_judgement(row) if row else None
        found.append(Item(to_prompt(sample), to_completion(completion), completion.source, judgement, row.id if row else None))
    return found


def score_items(scorer: Scorer, items: Sequence[Item], *, with_teacher: bool) -> list[tuple[int, Scored]]:
    """Rules for all, the teacher for those without a judgement, the reward from both."""
    scored: list[tuple[int, Scored]] = []
    for is_by_people in (False, True):
        for has_judgement in (False, True):
            group = [i for i in items if (i.source in BY_PEOPLE) == is_by_people and (i.known is not None) == has_judgement]
            fresh = scorer.score(
                [i.prompt for i in group],
                [i.completion for i in group],
                with_teacher and not has_judgement,
                chain_expected=not is_by_people,
            )
            for item, one in zip(group, fresh, strict=True):
                if has_judgement and with_teacher:
                    one = Scored(one.rules, item.known, combine(one.rules, item.known, scorer.config), item.known_id)
                scored.append((item.completion.completion_id or 0, one))
    return scored


def labels_of(one: Scored) -> list[str]:
    """What is counted of a completion: its reward, and what is unscored, by part and reason."""
    found = [REWARDED] if one.reward.value is not None else []
    found += [f"{rule.rule_id}:{rule.unscored_reason}" for rule in one.rules if rule.unscored_reason]
    if one.judgement is not None and one.judgement.unscored_reason:
        found.append(f"teacher:{one.judgement.unscored_reason}")
    return found


if __name__ == "__main__":
    main(run_score)
