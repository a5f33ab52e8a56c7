"""Scores of a rollout: THE reward while the teacher answers, rules with a fitted map while it does not, never both in one rollout.

Every finished row is handed to the teacher as soon as it has ended, while its neighbours still generate and while the learner
measures; high-risk rows go first. A rollout has one mode. `teacher`: the reward of `core.scoring`; a row whose judgement is
missing for a passing reason has no score and is left out. `rules_only`: when the teacher is down, its budget is spent, or it
left more than `max_unscored` of the finished rows without a verdict, ALL rows are scored a + b * R_rules with the map fitted
on the newest rows that hold both rewards (`core.rewards.rules_only_map`). Without enough of them nothing is invented: the run
waits for the teacher and stops with a sentence.

Rows without a verdict stay pending and are judged once the teacher answers again: they are recorded (`late`) and the map is
fitted anew; what was learned from them stays as it was. Invariant: everything a later rollout's scores depend on is in
`state_dict`. Under several processes every one judges its own rows and holds the same state. Called by training.ppo.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field, replace
from typing import Any

from core.completions import split_completion
from core.errors import Unavailable
from core.jobs.configs import PPOConfig
from core.records import Completion, Judgement, Prompt, Reward, Risk, RuleScore
from core.reward_features import features
from core.rewards import EMPTY_ANSWER, MAP_WINDOW, MIN_MAP_ROWS, AffineMap, combine, rules_only_map
from core.rules import score_rules
from core.scoring import Scorer
from core.teacher import LASTING_REASONS, Usage
from training.ppo_processes import Processes

TEACHER, RULES_ONLY = "teacher", "rules_only"
#: reasons that no waiting mends: money has to be granted, or a price named
NO_MONEY = frozenset({"budget_spent", "price_unknown"})
#: a pending row is handed to an answering teacher this often, then it stays unscored
MAX_TRIES = 3
#: pause between two looks at a teacher that is down, in seconds
LOOK_AGAIN_S = 5.0
#: what the teacher's own limit per judgement may be overrun by before the row is given up here
GRACE_S = 5.0


@dataclass(slots=True)
class Row:
    """One completion with its scores. `rules_reward` is R without the teacher, `reward` with it; `score` is what PPO gets (NaN:
    not scored, left out). `judgement` is None when the teacher was not asked."""

    completion: Completion
    rules: tuple[RuleScore, ...]
    features: dict[str, float]
    rules_reward: float | None
    reward: Reward
    judgement: Judgement | None
    score: float = math.nan

    @property
    def is_missing(self) -> bool:
        """Finished, but without a verdict for a reason that may pass."""
        if self.completion.finish_reason != "stop" or self.reward.unscored_reason == EMPTY_ANSWER:
            return False
        return self.judgement is None or self.judgement.unscored_reason not in (None, *LASTING_REASONS)

    @property
    def holds_both(self) -> bool:
        return self.judgement is not None and self.judgement.teacher_score is not None and self.reward.value is not None


@dataclass(slots=True)
class Pending:
    """A row that waits for its verdict: which rollout it was in, and how often a teacher that answered left it without one."""

    rollout: int
    prompt: Prompt
    completion: Completion
    tries: int = 0


@dataclass(slots=True)
class Late:
    """A row of an earlier rollout that has its verdict now. Its score in that rollout stays what it was."""

    pending: Pending
    row: Row


@dataclass(slots=True)
class ScoredRollout:
    """All rows in rollout order. `reason` says why the mode is `rules_only`, `map` with which numbers; `late` and `refit` are what
    a teacher that came back added. `usage` counts what this rollout asked of the teacher, over all processes."""

    mode: str
    reason: str | None
    rows: list[Row]
    map: AffineMap | None
    late: list[Late]
    refit: AffineMap | None
    usage: Usage

    @property
    def scores(self) -> list[float]:
        return [row.score for row in self.rows]


@dataclass(slots=True)
class _Open:
    """The rollout that is being sampled."""

    number: int
    prompts: Sequence[Prompt]
    is_asking: bool
    reason: str | None
    usage: Usage
    completions: dict[int, Completion] = field(default_factory=dict)
    futures: dict[int, Future[Judgement]] = field(default_factory=dict)
    late: dict[int, Future[Judgement]] = field(default_factory=dict)


class RolloutScorer:
    """`begin`, then `on_finished` per row from the sampling loop, then `finish`. See the module."""

    def __init__(
        self, scorer: Scorer, config: PPOConfig, *, timeout_s: float, processes: Processes | None = None, num_at_once: int = 8
    ) -> None:
        self.scorer, self.config, self.timeout_s, self.num_at_once = scorer, config, timeout_s, num_at_once
        self.processes = processes or Processes()
        #: (R_rules, R) of the newest completions that have both, oldest first
        self.known: list[tuple[float, float]] = []
        self.pending: list[Pending] = []
        self.was_away = False
        self._open: _Open | None = None

    # ---------------------------------------------------------------- one rollout

    def begin(self, number: int, prompts: Sequence[Prompt]) -> None:
        """`number` counts from 1, as in rewards.csv. Looks whether the teacher answers; if so, pending rows go along."""
        teacher = self.scorer.teacher
        usage = teacher.usage()
        health = self._from_first(lambda: teacher.health(probe=True))
        can_ask = health.is_up or health.reason in NO_MONEY  # the ledger refuses each at no cost, and knows when money has come
        self._open = _Open(number, prompts, can_ask, None if can_ask else health.reason, usage)
        if can_ask and self.processes.rank == 0:  # after this rollout's own rows: those hold the training up
            self._open.late = {i: teacher.submit(p.prompt, p.completion, priority=5) for i, p in enumerate(self.pending)}

    def on_finished(self, row: int, text: str, is_finished: bool) -> None:
        """A row has ended. An answer that never ends or is empty costs no teacher call."""
        now = self._opened()
        completion = now.completions[row] = split_completion(text, "stop" if is_finished else "length")
        if now.is_asking and is_finished and completion.answer.strip():
            now.futures[row] = self.scorer.teacher.submit(now.prompts[row], completion)

    def finish(self, should_stop: Callable[[], bool] = lambda: False) -> ScoredRollout | None:
        """Wait for the verdicts and settle mode and scores. None when a person asked to stop while it waited for a teacher.

        Raises Unavailable("training.teacher_away") and Unavailable("training.teacher_budget") when the teacher is needed and
        does not come: fewer than `MIN_MAP_ROWS` rows hold both rewards.
        """
        now = self._opened()
        rows = self._rows(now)
        late = self._late(now, rows)
        reason, fitted = None, None
        if self._is_away(now, rows):
            reason, fitted = self._reason(now, rows), rules_only_map(self.known)
            if fitted is None:  # nothing can stand in for the teacher
                waited = self._wait(now, rows, reason, should_stop)
                if waited is None:
                    return None
                rows, reason = waited, None
        mode = TEACHER if fitted is None else RULES_ONLY
        for row in rows:
            row.score = self._score(row, fitted)
        self._remember(now, rows, late)
        refit = rules_only_map(self.known) if self.was_away and mode == TEACHER else None
        self.was_away = mode == RULES_ONLY
        usage = self._usage(now.usage)
        self._open = None
        return ScoredRollout(mode, reason, rows, fitted, late, refit, usage)

    # ---------------------------------------------------------------- keeping

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and texts: loads with `torch.load(weights_only=True)`."""
        pending = [[p.rollout, p.prompt.sample_id, p.completion.text, p.tries] for p in self.pending]
        return {"known": [list(pair) for pair in self.known], "pending": pending, "was_away": self.was_away}

    def load_state_dict(self, state: dict[str, Any], prompts: dict[int | None, Prompt]) -> None:
        """`prompts` by sample id."""
        self.known = [(x, y) for x, y in state["known"]]
        self.was_away = state["was_away"]
        self.pending = [Pending(n, prompts[i], split_completion(text), tries) for n, i, text, tries in state["pending"] if i in prompts]

    # ---------------------------------------------------------------- inside

    def _opened(self) -> _Open:
        if self._open is None:
            raise RuntimeError("begin() comes first")
        return self._open

    def _from_first(self, what: Callable[[], Any]) -> Any:
        """The first process's answer, for all: a decision must be the same everywhere."""
        return self.processes.gather({0: what()} if self.processes.rank == 0 else {})[0]

    def _rows(self, now: _Open) -> list[Row]:
        """Every row of every process, rules and features computed where it was sampled."""
        verdicts = self._collect(now.futures)
        own = {i: self._row(now.prompts[i], completion, verdicts.get(i)) for i, completion in now.completions.items()}
        found = self.processes.gather(own)
        return [found[i] for i in range(len(now.prompts))]

    def _row(self, prompt: Prompt, completion: Completion, judgement: Judgement | None) -> Row:
        rules = score_rules(prompt, completion, self.scorer.lexicons)
        alone = combine(rules, None, self.scorer.config).value
        measured = features(prompt, completion, self.scorer.lexicons)
        return Row(completion, rules, measured, alone, combine(rules, judgement, self.scorer.config), judgement)

    def _collect(self, futures: dict[int, Future[Judgement]]) -> dict[int, Judgement]:
        """The verdicts. The teacher bounds each by `timeout_s`; should it fail to, the rows left are given up after their turn."""
        teacher = self.scorer.teacher
        deadline = time.monotonic() + self.timeout_s * (1 + len(futures) / self.num_at_once) + GRACE_S
        found: dict[int, Judgement] = {}
        for i, future in futures.items():
            try:
                found[i] = future.result(timeout=max(0.0, deadline - time.monotonic()))
            except FutureTimeout:
                future.cancel()
                found[i] = Judgement(teacher.name, teacher.rubric_version, None, unscored_reason="timeout", is_offline=teacher.is_offline)
        return found

    def _is_away(self, now: _Open, rows: Sequence[Row]) -> bool:
        """Whether this rollout must do without the teacher."""
        asked = [row for row in rows if row.is_missing or row.judgement is not None]
        if not asked:
            return not now.is_asking
        missing = [row for row in asked if row.is_missing]
        spent = any(row.judgement is not None and row.judgement.unscored_reason in NO_MONEY for row in missing)
        return spent or len(missing) > self.config.max_unscored * len(asked)

    def _reason(self, now: _Open, rows: Sequence[Row]) -> str:
        """What most of the missing rows say."""
        reasons = Counter(row.judgement.unscored_reason for row in rows if row.is_missing and row.judgement is not None)
        money = [reason for reason in reasons if reason in NO_MONEY]
        found = money[0] if money else reasons.most_common(1)[0][0] if reasons else now.reason
        return found or "endpoint_down"

    def _wait(self, now: _Open, rows: list[Row], reason: str, should_stop: Callable[[], bool]) -> list[Row] | None:
        """Ask again for what is missing until the teacher answers; None when asked to stop."""
        if reason in NO_MONEY:
            raise Unavailable("training.teacher_budget", n=len(self.known), needed=MIN_MAP_ROWS)
        deadline = time.monotonic() + 60 * self.config.teacher_wait_minutes
        teacher = self.scorer.teacher
        print(f"the teacher is away ({reason}) and only {len(self.known)} of {MIN_MAP_ROWS} rows hold both rewards: waiting", flush=True)
        while True:
            stops, is_late = self._from_first(lambda: (should_stop(), time.monotonic() >= deadline))
            if stops:
                return None
            if is_late:
                raise Unavailable("training.teacher_away", reason=reason, n=len(self.known), needed=MIN_MAP_ROWS)
            if self._from_first(lambda: teacher.health(probe=True)).is_up:
                again = {i: teacher.submit(now.prompts[i], rows[i].completion) for i in now.completions if rows[i].is_missing}
                verdicts = self.processes.gather(self._collect(again))
                rows = [self._judged(row, verdicts[i]) if i in verdicts else row for i, row in enumerate(rows)]
                if not self._is_away(now, rows):
                    return rows
            time.sleep(LOOK_AGAIN_S)

    def _judged(self, row: Row, judgement: Judgement) -> Row:
        return replace(row, judgement=judgement, reward=combine(row.rules, judgement, self.scorer.config))

    def _late(self, now: _Open, rows: Sequence[Row]) -> list[Late]:
        """Pending rows that were judged along with this rollout leave the list; the others stay for a later one."""
        if not self.pending:
            return []
        verdicts = self.processes.gather(self._collect(now.late))
        found, left = list[Late](), list[Pending]()
        answers = any(row.holds_both for row in rows) or any(verdict.teacher_score is not None for verdict in verdicts.values())
        for i, pending in enumerate(self.pending):
            verdict = verdicts.get(i)
            if verdict is not None and verdict.unscored_reason in (None, *LASTING_REASONS):
                found.append(Late(pending, self._row(pending.prompt, pending.completion, verdict)))
            elif verdict is None or not answers:
                left.append(pending)
            elif pending.tries + 1 < MAX_TRIES:
                left.append(replace(pending, tries=pending.tries + 1))
        self.pending = left
        return found

    def _remember(self, now: _Open, rows: Sequence[Row], late: Sequence[Late]) -> None:
        """Rows with both rewards feed the map, rows without a verdict wait for one."""
        for row in (*(one.row for one in late), *rows):
            if row.holds_both and row.rules_reward is not None and row.reward.value is not None:
                self.known.append((row.rules_reward, row.reward.value))
        del self.known[:-MAP_WINDOW]
        self.pending += [Pending(now.number, now.prompts[i], row.completion) for i, row in enumerate(rows) if row.is_missing]
        self.pending.sort(key=lambda p: p.prompt.risk is not Risk.HIGH)  # stable: high risk first, oldest first

    def _score(self, row: Row, fitted: AffineMap | None) -> float:
        """The number that PPO sees; NaN marks a completion that has none in this rollout's mode."""
        if row.completion.finish_reason == "length" or row.reward.unscored_reason == EMPTY_ANSWER:
            return self.config.failure_score
        if fitted is not None:
            return math.nan if row.rules_reward is None else fitted(row.rules_reward)
        return math.nan if row.is_missing or row.reward.value is None else row.reward.value

    def _usage(self, before: Usage) -> Usage:
        """What this rollout asked, summed over processes."""
        found = self.processes.gather({self.processes.rank: self.scorer.teacher.usage().since(before)})
        total, *others = (found[rank] for rank in sorted(found))
        for one in others:
            cost = None if total.cost_usd is None or one.cost_usd is None else total.cost_usd + one.cost_usd
            counts = {n: getattr(total, n) + getattr(one, n) for n in Usage.__dataclass_fields__ if n not in ("cost_usd", "reasons")}
            total = Usage(**counts, cost_usd=cost, reasons=dict(Counter(total.reasons) + Counter(one.reasons)))
        return total
