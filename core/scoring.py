"""Scoring in one place: rules, teacher and reward for a batch of completions, and storing what came out.

`Scorer` is THE reward for PPO, evaluation, preview and the score job: pure text in, no torch, no database. `open_scorer`
builds it from the approved reward config and the teacher in the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from core.home import Home, current_home
from core.lexicons import Lexicons, load_lexicons
from core.records import Completion, Judgement, Prompt, Reward, RewardConfig, RuleScore, Span
from core.rewards import EMPTY_ANSWER, combine
from core.rules import score_rules
from core.teacher import Teacher, open_teacher
from core.teacher.store import open_ledger
from db import tables as t
from db.engine import read_session, write_session

#: Shipped with the product and stored as approved at first use.
FIRST_CONFIG = RewardConfig(version="v1")


@dataclass(frozen=True, slots=True)
class Scored:
    """Everything known about one completion. `judgement` is None when the teacher was not asked."""

    rules: tuple[RuleScore, ...]
    judgement: Judgement | None
    reward: Reward
    #: set when the judgement was read from the database: it is linked, not stored again
    judgement_id: int | None = None


class Scorer:
    """Rules, teacher and reward config, bound together. Safe to share between threads."""

    def __init__(self, lexicons: Lexicons, teacher: Teacher, reward_config: RewardConfig) -> None:
        self.lexicons = lexicons
        self.teacher = teacher
        self.config = reward_config

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], with_teacher: bool = True, *, chain_expected: bool = True
    ) -> list[Scored]:
        """Score `completions[i]` as an answer to `prompts[i]`; the result has the same order.

        `chain_expected=False` leaves the chain of a completion without thinking unscored: for text written by people.
        Never raises for a teacher that is down: its judgement is unscored with a reason.
        """
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts but {len(completions)} completions")
        rules = [score_rules(p, c, self.lexicons, chain_expected=chain_expected) for p, c in zip(prompts, completions, strict=True)]
        judgements: Sequence[Judgement | None] = self.judge(prompts, completions) if with_teacher else [None] * len(rules)
        return [Scored(r, j, combine(r, j, self.config)) for r, j in zip(rules, judgements, strict=True)]

    def judge(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Judgement]:
        """The teacher's judgements. An empty answer is not sent to it: there is nothing to judge and a call costs money."""
        asked = [i for i, completion in enumerate(completions) if completion.answer.strip()]
        judged = self.teacher.judge([prompts[i] for i in asked], [completions[i] for i in asked])
        silent = Judgement(
            self.teacher.name, self.teacher.rubric_version, None, unscored_reason=EMPTY_ANSWER, is_offline=self.teacher.is_offline
        )
        found = [silent] * len(completions)
        for i, judgement in zip(asked, judged, strict=True):
            found[i] = judgement
        return found


def open_scorer(source: Session | Home) -> Scorer:
    """The scorer in force. With a Home the teacher keeps its verdicts and accounts in the database, and the first reward config
    is stored when there is none; a given session is only read, and a teacher opened from it remembers nothing."""
    if isinstance(source, Home):
        return Scorer(load_lexicons(), open_teacher(source.settings, ledger=open_ledger(source.settings)), ensure_reward_config())
    return Scorer(load_lexicons(), open_teacher(current_home().settings), reward_config(source) or FIRST_CONFIG)


def config_row(session: Session) -> t.RewardConfig | None:
    """The row in force: the one that was approved last. A proposal may be approved after a later one, so its number says nothing."""
    decided = func.coalesce(t.RewardConfig.decided_at, t.RewardConfig.created_at)
    query = select(t.RewardConfig).where(t.RewardConfig.status == "approved").order_by(decided.desc(), t.RewardConfig.id.desc())
    return session.scalar(query.limit(1))


def load_config(row: t.RewardConfig) -> RewardConfig:
    """The record of a stored config."""
    return RewardConfig(row.version, row.chain, row.emergency, row.risk_penalty, row.teacher, row.conflict_threshold)


def reward_config(session: Session) -> RewardConfig | None:
    """The reward config in force, or None when none was stored yet."""
    row = config_row(session)
    return None if row is None else load_config(row)


def ensure_reward_config() -> RewardConfig:
    """The approved reward config; stores the shipped one as v1 first when there is none."""
    with read_session() as session:
        found = reward_config(session)
    if found is not None:
        return found
    with write_session() as session:  # holds the write lock, so two processes cannot both store v1
        found = reward_config(session)
        if found is None:
            found = FIRST_CONFIG
            session.add(
                t.RewardConfig(
                    version=found.version,
                    chain=found.chain,
                    emergency=found.emergency,
                    risk_penalty=found.risk_penalty,
                    teacher=found.teacher,
                    conflict_threshold=found.conflict_threshold,
                    status="approved",
                    reason="Shipped default",
                )
            )
    return found


def store_scores(session: Session, scored: Sequence[tuple[int, Scored]], *, job_id: int | None = None) -> None:
    """Store what `Scorer.score` said about stored completions (id, Scored) in the caller's write transaction.

    Rule scores of the same lexicon version are replaced; judgements and rewards are appended (the newest row is current).
    A judgement that was read from the database (`judgement_id` is set) is linked, not stored twice.
    """
    for completion_id, one in scored:
        versions = {rule.lexicon_version for rule in one.rules}
        session.execute(delete(t.RuleScore).where(t.RuleScore.completion_id == completion_id, t.RuleScore.lexicon_version.in_(versions)))
        session.add_all(_rule_row(completion_id, rule, job_id) for rule in one.rules)
        judgement_id = one.judgement_id or _store_judgement(session, completion_id, one.judgement, job_id)
        session.add(
            t.Reward(
                completion_id=completion_id,
                config_version=one.reward.config_version,
                value=one.reward.value,
                unscored_reason=one.reward.unscored_reason,
                parts=one.reward.parts,
                judgement_id=judgement_id,
                job_id=job_id,
            )
        )
    session.flush()


def load_judgement(row: t.Judgement) -> Judgement:
    """The record of a stored judgement."""
    return Judgement(
        row.teacher,
        row.rubric_version,
        row.teacher_score,
        row.safety_flag,
        row.critique,
        row.suggested_answer,
        row.unscored_reason,
        row.is_offline,
        row.latency_s,
    )


def load_rules(rows: Sequence[t.RuleScore]) -> tuple[RuleScore, ...]:
    """The records of one completion's stored rule scores."""
    return tuple(
        RuleScore(r.rule_id, r.score, r.lexicon_version, tuple(Span(**span) for span in r.spans), r.unscored_reason, r.detail) for r in rows
    )


def _rule_row(completion_id: int, rule: RuleScore, job_id: int | None) -> t.RuleScore:
    return t.RuleScore(
        completion_id=completion_id,
        rule_id=rule.rule_id,
        lexicon_version=rule.lexicon_version,
        score=rule.score,
        unscored_reason=rule.unscored_reason,
        spans=[asdict(span) for span in rule.spans],
        detail=rule.detail,
        job_id=job_id,
    )


def _store_judgement(session: Session, completion_id: int, judgement: Judgement | None, job_id: int | None) -> int | None:
    if judgement is None:
        return None
    row = t.Judgement(
        completion_id=completion_id,
        teacher=judgement.teacher,
        rubric_version=judgement.rubric_version,
        teacher_score=judgement.teacher_score,
        safety_flag=judgement.safety_flag,
        critique=judgement.critique,
        suggested_answer=judgement.suggested_answer,
        unscored_reason=judgement.unscored_reason,
        is_offline=judgement.is_offline,
        latency_s=judgement.latency_s,
        job_id=job_id,
    )
    session.add(row)
    session.flush()
    return row.id
