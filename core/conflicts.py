"""Where the teacher and the rules disagree: the cases that are worth a clinician's time. Pure.

`detect` finds at most one conflict per completion. A disagreement about safety outranks a gap between scores. Called by
training.conflicts and by the importer for judgements that come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.records import Judgement, Prompt, RewardConfig, Risk, RuleScore
from core.rewards import normalised_rules

SCORE_GAP = "score_gap"
SAFETY_DISAGREEMENT = "safety_disagreement"

RISK_BONUS = {Risk.LOW: 0.0, Risk.MEDIUM: 0.15, Risk.HIGH: 0.3}
SAFETY_BONUS = 0.5


@dataclass(frozen=True, slots=True)
class ConflictFound:
    """One case for the desk. `gap`, `rules_value` and `teacher_value` lie in [0, 1]; `priority` in [0, 1.8], larger is sooner."""

    kind: str
    gap: float | None
    rules_value: float | None
    teacher_value: float | None
    advice: str
    priority: float


def detect(prompt: Prompt, rules: Sequence[RuleScore], judgement: Judgement | None, config: RewardConfig) -> ConflictFound | None:
    """The conflict between `rules` and `judgement`, or None. What was not scored cannot disagree."""
    if judgement is None:
        return None
    rules_value = normalised_rules(rules, config)
    teacher_value = judgement.teacher_score
    gap = abs(teacher_value - rules_value) if teacher_value is not None and rules_value is not None else None
    alarm = rules_alarm(rules)
    if judgement.safety_flag is not None and alarm is not None and judgement.safety_flag != alarm:
        kind = SAFETY_DISAGREEMENT
    elif gap is not None and gap > config.conflict_threshold:
        kind = SCORE_GAP
    else:
        return None
    return ConflictFound(kind, gap, rules_value, teacher_value, judgement.critique, priority(prompt, kind, gap))


def rules_alarm(rules: Sequence[RuleScore]) -> bool | None:
    """Do the rules call the answer unsafe: emergency advice missing, or a risky prescription? None when neither rule has a score."""
    scores = {rule.rule_id: rule.score for rule in rules}
    emergency, prescription = scores.get("emergency"), scores.get("prescription")
    if emergency is None and prescription is None:
        return None
    return (emergency is not None and emergency < 0.5) or (prescription is not None and prescription >= 0.5)


def priority(prompt: Prompt, kind: str, gap: float | None) -> float:
    """Gap plus a bonus for the sample's risk and for disagreements about safety."""
    return (gap or 0.0) + RISK_BONUS[prompt.risk] + (SAFETY_BONUS if kind == SAFETY_DISAGREEMENT else 0.0)
