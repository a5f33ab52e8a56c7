"""THE reward, one function for PPO, evaluation, preview and the desk. Pure.

    R = 0.35*chain + 0.25*emergency + 0.25*teacher - 0.15*risk_penalty        risk_penalty = min(1, prescription + verbosity)

so R lies in [-0.15, 0.85] with the default weights. What could not be scored is left out, never counted as zero: the positive
weights of the parts that were scored are scaled up to the full positive sum (0.85), and a reward without any positive part
is None with a reason. One exception keeps a policy from earning by silence: an empty answer has no reward at all, however
good the thinking. Callers that need a number for it (PPO) choose their own fixed low one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from core.records import Judgement, Reward, RewardConfig, RuleScore

#: The parts of `Reward.parts`, in the order in which screens list them.
PARTS = ("chain", "emergency", "prescription", "verbosity", "risk_penalty", "teacher")

EMPTY_ANSWER = "empty_answer"
NOTHING_SCORED = "nothing_scored"
#: what an answer that says nothing counts where a number is needed: PPO's default failure score, and the evaluation's means. Below
#: every reward that an answer can have, so that no version rises by falling silent on the hard prompts.
FAILURE_SCORE = -0.5

#: fewer rows with both rewards than this say nothing about a map; and how many of the newest rows it is fitted on
MIN_MAP_ROWS = 64
MAP_WINDOW = 500


class AffineMap(NamedTuple):
    """R' = a + b * R_rules: what the whole reward probably was, told from the rules alone. `r2` is None when R did not vary."""

    a: float
    b: float
    n: int
    r2: float | None

    def __call__(self, rules_reward: float) -> float:
        return self.a + self.b * rules_reward


def combine(rules: Sequence[RuleScore], judgement: Judgement | None, config: RewardConfig) -> Reward:
    """The reward of one completion from its rule scores and the teacher's judgement (None when the teacher was not asked)."""
    scores = {rule.rule_id: rule.score for rule in rules}
    parts: dict[str, float | None] = {name: scores.get(name) for name in PARTS}
    parts["risk_penalty"] = risk_penalty(rules)
    parts["teacher"] = judgement.teacher_score if judgement else None
    if any(rule.unscored_reason == EMPTY_ANSWER for rule in rules):
        return Reward(None, parts, config.version, EMPTY_ANSWER)
    benefit = _weighted({"chain": config.chain, "emergency": config.emergency, "teacher": config.teacher}, parts)
    if benefit is None:
        return Reward(None, parts, config.version, NOTHING_SCORED)
    return Reward(benefit - config.risk_penalty * (parts["risk_penalty"] or 0.0), parts, config.version)


def risk_penalty(rules: Sequence[RuleScore]) -> float | None:
    """Prescription and verbosity added up and capped at 1; the scored one alone when the other is not; None without either."""
    known = [rule.score for rule in rules if rule.rule_id in ("prescription", "verbosity") and rule.score is not None]
    return min(1.0, sum(known)) if known else None


def normalised_rules(rules: Sequence[RuleScore], config: RewardConfig) -> float | None:
    """What the rules alone think of a completion, in [0, 1], to be held against a teacher's score.

    The rules' share of the reward divided by its best value, cut at 0: 1 is a full chain, right emergency behaviour and no
    penalty; a penalty costs as much as it does in the reward. None when the reward without teacher would be None.
    """
    reward = combine(rules, None, config)
    if reward.value is None:
        return None
    best = config.chain + config.emergency + config.teacher
    return min(1.0, max(0.0, reward.value / best)) if best > 0 else None


def rules_only_map(rows: Iterable[tuple[float | None, float | None]], *, min_rows: int = MIN_MAP_ROWS) -> AffineMap | None:
    """Least squares of the whole reward on the reward without teacher, for rollouts during which the teacher is out.

    `rows` are pairs (R_rules, R) = (`combine(rules, None, config).value`, `combine(rules, judgement, config).value`) of completions
    that the teacher did score, oldest first; the last `MAP_WINDOW` of those that have both numbers are used. None when fewer than
    `min_rows` are left: the caller then has no map and must wait for the teacher. b is never negative, because a map that turns
    the rules' order round would reward what they punish; where R_rules does not vary, b is 1 and only the level is moved.
    """
    known = [(x, y) for x, y in rows if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)][-MAP_WINDOW:]
    n = len(known)
    if n < max(2, min_rows):
        return None
    mean_x, mean_y = sum(x for x, _ in known) / n, sum(y for _, y in known) / n
    var_x = sum((x - mean_x) ** 2 for x, _ in known)
    var_y = sum((y - mean_y) ** 2 for _, y in known)
    slope = max(0.0, sum((x - mean_x) * (y - mean_y) for x, y in known) / var_x) if var_x > 1e-12 else 1.0
    a = mean_y - slope * mean_x
    error = sum((y - a - slope * x) ** 2 for x, y in known)
    return AffineMap(a, slope, n, 1 - error / var_y if var_y > 1e-12 else None)


def _weighted(weights: dict[str, float], parts: dict[str, float | None]) -> float | None:
    """Weighted sum over the scored parts, scaled to the sum of all weights. None when no weighted part was scored."""
    scored = [(weight, score) for name, weight in weights.items() if (score := parts[name]) is not None]
    total = sum(weight for weight, _ in scored)
    if total <= 0:
        return None
    return sum(weight * score for weight, score in scored) * (sum(weights.values()) / total)
