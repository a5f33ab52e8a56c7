"""The numbers of an evaluation: one version over prompts, and a candidate against the baseline. Pure arithmetic, no database.

Every function takes the answers as `Measured` rows in the order of the prompts. What was not scored is left out and counted, but an
answer that says nothing is a failure and not an unknown: it counts as it does in PPO. Pairs are formed only where both sides are
known. Shapes: core.evaluation. Called by training.evaluate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from core.evaluation import MIN_SLICE, Change, Comparison, Difference, PairedOutcome, Part, Share, Slice, SliceDifference, SplitReport
from core.facts import FactScore
from core.outcomes import OUTCOMES
from core.records import Prompt
from core.rewards import EMPTY_ANSWER, FAILURE_SCORE
from core.scoring import Scored
from core.statistics import bootstrap, holm, mcnemar, paired_difference, sign_flip, wilson

PARTS = ("chain", "emergency", "prescription", "verbosity", "risk_penalty", "teacher")
#: the gravest first: it decides where a regression stands in the list
GRAVITY = ("emergency", "safe", "acceptable")


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt and the groups it belongs to."""

    prompt: Prompt
    split: str
    is_red_flag: bool
    #: terms of the danger signs in the question
    danger_signs: tuple[str, ...] = ()

    @property
    def groups(self) -> Iterator[tuple[str, str]]:
        yield from (("risk", self.prompt.risk.value), ("language", self.prompt.language.value), ("category", self.prompt.category))
        yield from (("danger_sign", sign) for sign in self.danger_signs)
        yield ("split", self.split)


@dataclass(frozen=True, slots=True)
class Measured:
    """One answer, measured: its reward with parts, its outcomes, and its facts (None when they were not asked for)."""

    scored: Scored
    outcomes: dict[str, bool | None]
    facts: FactScore | None = None

    @property
    def is_silent(self) -> bool:
        return self.scored.reward.unscored_reason == EMPTY_ANSWER

    @property
    def reward(self) -> float | None:
        """The reward; FAILURE_SCORE, as in PPO, for an answer that says nothing; None where nothing could be scored."""
        return FAILURE_SCORE if self.is_silent else self.scored.reward.value


def mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def slice_members(asked: Sequence[Asked]) -> dict[tuple[str, str], list[int]]:
    """Rows of every group, in a fixed order; a split is a group only when there are several."""
    found: dict[tuple[str, str], list[int]] = {}
    for i, one in enumerate(asked):
        for group in one.groups:
            found.setdefault(group, []).append(i)
    is_one_split = len({one.split for one in asked}) == 1
    order = ("split", "risk", "language", "danger_sign", "category")
    return {
        group: found[group]
        for group in sorted(found, key=lambda g: (order.index(g[0]), g[1]))
        if not (is_one_split and group[0] == "split")
    }


def summarise(rows: Sequence[Measured], rng: np.random.Generator) -> SplitReport:
    """Reward, parts and outcomes of one version over some prompts."""
    known = [m.reward for m in rows if m.reward is not None]
    low, high = bootstrap(known, rng)
    parts = {name: _part([m.scored.reward.parts.get(name) for m in rows]) for name in PARTS}
    if any(m.facts is not None for m in rows):
        parts["facts"] = _part([m.facts.score if m.facts else None for m in rows])
    outcomes = {name: share(m.outcomes[name] for m in rows) for name in OUTCOMES}
    return {
        "n": len(known), "num_unscored": len(rows) - len(known), "num_silent": sum(m.is_silent for m in rows),
        "mean": mean(known), "ci_low": low, "ci_high": high,
        "parts": parts, "outcomes": outcomes,
    }  # fmt: skip


def share(passed: Iterable[bool | None]) -> Share:
    """How many passed of those that are known."""
    known = [one for one in passed if one is not None]
    low, high = wilson(sum(known), len(known))
    return {"num": sum(known), "n": len(known), "ci_low": low, "ci_high": high}


def _part(column: Sequence[float | None]) -> Part:
    numbers = [x for x in column if x is not None]
    return {"mean": mean(numbers), "n": len(numbers), "num_unscored": len(column) - len(numbers)}


def slices(asked: Sequence[Asked], rows: Sequence[Measured], rng: np.random.Generator) -> list[Slice]:
    """Mean reward of every group; below MIN_SLICE a group has a count and no number."""
    found: list[Slice] = []
    for (by, value), members in slice_members(asked).items():
        part = [r for i in members if (r := rows[i].reward) is not None]
        enough = len(part) >= MIN_SLICE
        low, high = bootstrap(part, rng) if enough else (None, None)
        found.append({"by": by, "value": value, "n": len(part), "mean": mean(part) if enough else None, "ci_low": low, "ci_high": high})
    return found


def compare(
    candidate: str, asked: Sequence[Asked], before: Sequence[Measured], after: Sequence[Measured], rng: np.random.Generator
) -> Comparison:
    """The candidate against the baseline: differences, outcomes, slices, and every prompt that changed."""
    everything = list(range(len(asked)))
    by_split = {s: [i for i in everything if asked[i].split == s] for s in dict.fromkeys(a.split for a in asked)}
    whole = difference(everything, before, after, rng)
    outcomes = [paired_outcome(name, "", everything, before, after) for name in OUTCOMES]
    if len(by_split) > 1:
        outcomes += [paired_outcome(name, split, members, before, after) for split, members in by_split.items() for name in OUTCOMES]
    red = [i for i in everything if asked[i].is_red_flag and before[i].outcomes["emergency"] is not None]
    regressions = changes(asked, before, after, passed_by=before)

    def lost(name: str) -> list[int]:
        return [c["sample_id"] for c in regressions if c["is_red_flag"] and name in c["outcomes"]]

    return {
        "candidate": candidate,
        **whole,
        "by_split": {split: difference(members, before, after, rng) for split, members in by_split.items()},
        "slices": slice_differences(asked, before, after, rng),
        "outcomes": outcomes,
        "emergency_regressions": lost("emergency"),
        "safety_regressions": lost("safe"),
        "num_red_flag": len(red),
        "regressions": regressions,
        "wins": changes(asked, before, after, passed_by=after),
    }


def difference(members: Sequence[int], before: Sequence[Measured], after: Sequence[Measured], rng: np.random.Generator) -> Difference:
    """Candidate minus baseline on the rows of `members` that both have a reward for."""
    pairs = [(after[i].reward, before[i].reward) for i in members]
    found = [new - old for new, old in pairs if new is not None and old is not None]
    low, high = bootstrap(found, rng)
    return {"n": len(found), "difference": mean(found), "ci_low": low, "ci_high": high, "p_value": sign_flip(found, rng) if found else None}


def slice_differences(
    asked: Sequence[Asked], before: Sequence[Measured], after: Sequence[Measured], rng: np.random.Generator
) -> list[SliceDifference]:
    """Every group's difference; p is corrected over all groups that are large enough to be tested (Holm)."""
    found: list[SliceDifference] = []
    for (by, value), members in slice_members(asked).items():
        n = sum(before[i].reward is not None and after[i].reward is not None for i in members)
        few: Difference = {"n": n, "difference": None, "ci_low": None, "ci_high": None, "p_value": None}
        one = difference(members, before, after, rng) if n >= MIN_SLICE else few
        found.append({"by": by, "value": value, **one, "p_holm": None})
    tested = [s for s in found if s["p_value"] is not None]
    for piece, adjusted in zip(tested, holm([s["p_value"] or 0.0 for s in tested]), strict=True):
        piece["p_holm"] = adjusted
    return found


def paired_outcome(name: str, split: str, members: Sequence[int], before: Sequence[Measured], after: Sequence[Measured]) -> PairedOutcome:
    """The four cells of one outcome where both versions are known, with Newcombe's interval and McNemar's exact test."""
    pairs = [(before[i].outcomes[name], after[i].outcomes[name]) for i in members]
    both, only_old, only_new, neither = (
        sum(pair == cell for pair in pairs) for cell in ((True, True), (True, False), (False, True), (False, False))
    )
    change, low, high = paired_difference(both, only_old, only_new, neither)
    return {
        "outcome": name, "split": split, "n": both + only_old + only_new + neither, "both": both, "only_baseline": only_old,
        "only_candidate": only_new, "neither": neither, "difference": change, "ci_low": low, "ci_high": high,
        "p_value": mcnemar(only_old, only_new),
    }  # fmt: skip


def changes(
    asked: Sequence[Asked], before: Sequence[Measured], after: Sequence[Measured], *, passed_by: Sequence[Measured]
) -> list[Change]:
    """Prompts on which `passed_by` (one of the two) passed what the other failed; dangerous ones first, then by the reward lost."""
    other = after if passed_by is before else before
    found: list[Change] = []
    for i, one in enumerate(asked):
        names = [n for n in GRAVITY if passed_by[i].outcomes[n] is True and other[i].outcomes[n] is False]
        if names and one.prompt.sample_id is not None:
            change: Change = {
                "sample_id": one.prompt.sample_id, "split": one.split, "is_red_flag": one.is_red_flag, "outcomes": names,
                "baseline_reward": before[i].reward, "candidate_reward": after[i].reward,
            }  # fmt: skip
            found.append(change)

    def gravity(change: Change) -> tuple[bool, int, float]:
        size = abs((change["baseline_reward"] or 0.0) - (change["candidate_reward"] or 0.0))
        return not change["is_red_flag"], GRAVITY.index(change["outcomes"][0]), -size

    return sorted(found, key=gravity)
