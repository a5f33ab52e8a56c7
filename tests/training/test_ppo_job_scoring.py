"""Scores of a rollout against a scripted endpoint: one mode per rollout, nothing invented, nothing lost."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

import training.ppo_scoring as ppo_scoring
from core.completions import split_completion
from core.errors import Unavailable
from core.jobs.configs import PPOConfig
from core.lexicons import load_lexicons
from core.records import Prompt, RewardConfig, Risk
from core.rewards import rules_only_map
from core.scoring import Scorer
from core.teacher import OfflineTeacher, Teacher
from core.teacher.ledger import MemoryLedger
from core.teacher.prices import Price
from tests.teacher.endpoint import Answer, Script, ScriptedEndpoint, Seen, answers, ask_about, completion, verdict
from training.ppo_scoring import RULES_ONLY, TEACHER, RolloutScorer, ScoredRollout

ANSWERS = ("Call 120 now, this is an emergency.", "Rest at home.", "Take double the dose of aspirin.", "See a doctor if it gets worse.")
THOUGHTS = ("1. Symptom: chest pain. 2. Danger sign: cold sweat. 3. Drug: aspirin, bleeding.", "1. Symptom: chest pain.", "")


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    opened = ScriptedEndpoint()
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppo_scoring, "LOOK_AGAIN_S", 0.05)


def judge(seen: Seen) -> Answer:
    """A teacher that likes long answers: its scores vary and are not the rules'."""
    if seen.is_probe:
        return Answer(body=completion("ok"))
    return verdict(seen, teacher_score=round(min(1.0, len(seen.data["answer"]) / 60), 3))


def no_verdict_on(*endings: str) -> Script:
    """No verdict on answers that end so, an honest one on all others."""
    return lambda seen: judge(seen) if seen.is_probe or not seen.data["answer"].endswith(endings) else Answer(body={"no": "verdict"})


def scoring_of(teacher: Teacher, **config: Any) -> RolloutScorer:
    scorer = Scorer(load_lexicons(), teacher, RewardConfig("v1"))
    return RolloutScorer(scorer, PPOConfig(**{"teacher_wait_minutes": 0.0, **config}), timeout_s=5.0)


def rows_of(number: int, size: int = 32) -> tuple[list[Prompt], list[str]]:
    prompts = [ask_about(f"Chest pain for {number}-{i} days?", risk=Risk.HIGH if i % 2 else Risk.LOW) for i in range(size)]
    texts = [f"<think>{THOUGHTS[i % 3]}</think>{ANSWERS[(i + number) % 4]} {number} {i}" for i in range(size)]
    return prompts, texts


def play(scoring: RolloutScorer, number: int, size: int = 32, should_stop: Callable[[], bool] = lambda: False) -> ScoredRollout | None:
    prompts, texts = rows_of(number, size)
    scoring.begin(number, prompts)
    for i, text in enumerate(texts):
        scoring.on_finished(i, text, True)
    return scoring.finish(should_stop)


def played(scoring: RolloutScorer, number: int, size: int = 32) -> ScoredRollout:
    found = play(scoring, number, size)
    assert found is not None
    return found


def test_scores_are_the_reward_and_only_finished_answers_are_judged(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = judge
    scoring = scoring_of(endpoint.teacher(), failure_score=-0.4)
    prompts, texts = rows_of(1, 8)
    texts[2] = "<think>Only thoughts."
    scoring.begin(1, prompts)
    for i, text in enumerate(texts):
        scoring.on_finished(i, text, i != 5)
    found = scoring.finish()
    assert found is not None
    expected = scoring.scorer.score(prompts, [split_completion(text) for text in texts])
    for i, (score, one) in enumerate(zip(found.scores, expected, strict=True)):
        assert score == (-0.4 if i in (2, 5) else one.reward.value)
    assert (found.mode, found.usage.num_asked) == (TEACHER, 6)
    assert texts[5].partition("</think>")[2] not in [seen.data["answer"] for seen in endpoint.judged[:6]]
    assert found.rows[0].rules_reward != found.rows[0].reward.value


def test_high_risk_goes_first(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda seen: replace(judge(seen), hang_s=0.05)
    played(scoring_of(endpoint.teacher(num_at_once=1)), 1, 8)
    order = [int(seen.data["conversation"][0]["content"].split("-")[1].split()[0]) % 2 for seen in endpoint.judged]
    assert order[-2:] == [0, 0]  # the very first were on their way before the others had ended
    assert sum(order[:5]) >= 3


def test_an_outage_switches_whole_rollouts_and_recovery_scores_what_waited(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = judge
    scoring = scoring_of(endpoint.teacher())
    before = [played(scoring, n) for n in (1, 2)]
    assert [one.mode for one in before] == [TEACHER, TEACHER]
    known = list(scoring.known)
    assert len(known) == 64

    endpoint.script = lambda seen: judge(seen) if seen.number % 5 == 0 else Answer(500)  # some verdicts still come through
    third = played(scoring, 3)
    endpoint.script = lambda _seen: Answer(500)
    scoring.scorer.teacher.judge([ask_about()] * 12, answers(12))  # until it counts as down
    fourth = played(scoring, 4)
    fitted = rules_only_map(known)
    assert fitted is not None
    assert third.mode == fourth.mode == RULES_ONLY
    assert third.map == fitted
    for row in third.rows:
        assert row.rules_reward is not None
        assert row.score == fitted(row.rules_reward)
    assert fourth.reason in ("server_error", "endpoint_down")
    assert not any(math.isnan(score) for score in third.scores + fourth.scores)
    waiting = sum(row.is_missing for row in third.rows) + 32
    assert len(scoring.pending) == waiting
    assert [p.prompt.risk for p in scoring.pending] == sorted((p.prompt.risk for p in scoring.pending), key=lambda r: r is not Risk.HIGH)

    endpoint.script = judge
    time.sleep(0.9)  # the teacher's own pause after an outage
    fifth = played(scoring, 5)
    assert (fifth.mode, len(fifth.late), scoring.pending) == (TEACHER, waiting, [])
    assert fifth.refit == rules_only_map(scoring.known)
    assert fifth.refit != fitted
    assert all(late.row.holds_both and math.isnan(late.row.score) for late in fifth.late)
    assert played(scoring, 6).refit is None
    judged = [(seen.data["conversation"][0]["content"], seen.data["answer"]) for seen in endpoint.judged if seen.number > 80]
    assert {number for prompt, _ in judged if (number := prompt[15]) in "3456"} == set("3456")


def test_a_few_missing_verdicts_are_left_out_and_too_many_are_an_outage(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = judge
    scoring = scoring_of(endpoint.teacher(num_attempts=1))
    for number in (1, 2):
        played(scoring, number)
    endpoint.script = no_verdict_on(" 3", " 13")
    few = played(scoring, 3)
    assert few.mode == TEACHER
    assert [i for i, score in enumerate(few.scores) if math.isnan(score)] == [3, 13]
    assert [p.rollout for p in scoring.pending] == [3, 3]
    endpoint.script = no_verdict_on("1", "3")
    many = played(scoring, 4)
    assert many.mode == RULES_ONLY
    assert many.reason == "off_menu_verdict"
    assert many.map is not None
    assert many.scores == [many.map(row.rules_reward or 0.0) for row in many.rows]  # those with a verdict too: one scale per rollout


def test_a_row_that_never_gets_a_verdict_is_given_up(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = no_verdict_on("1 7")
    scoring = scoring_of(endpoint.teacher())
    left = []
    for number in range(1, 6):
        played(scoring, number, 16)
        left.append(len(scoring.pending))
    assert left == [1, 1, 1, 0, 0]


def test_without_enough_rows_for_a_map_nothing_is_invented(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda _seen: Answer(503)
    scoring = scoring_of(endpoint.teacher())
    with pytest.raises(Unavailable) as caught:
        played(scoring, 1)
    assert caught.value.code == "training.teacher_away"
    assert (caught.value.params["n"], caught.value.params["needed"]) == (0, 64)


def test_waiting_ends_when_the_teacher_comes_or_a_person_stops_it(endpoint: ScriptedEndpoint) -> None:
    down_until = time.monotonic() + 1.0
    endpoint.script = lambda seen: judge(seen) if time.monotonic() > down_until else Answer(503)
    found = played(scoring_of(endpoint.teacher(), teacher_wait_minutes=1.0), 1, 8)
    assert found.mode == TEACHER
    assert not any(math.isnan(score) for score in found.scores)
    endpoint.script = lambda _seen: Answer(503)
    assert play(scoring_of(endpoint.teacher(), teacher_wait_minutes=1.0), 2, 8, should_stop=lambda: True) is None


def test_a_spent_budget_is_the_same_path_and_says_so(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = judge
    price = Price("judge-1", 1.0, 1.0, None, date(2026, 1, 1))
    with pytest.raises(Unavailable) as caught:
        played(scoring_of(endpoint.teacher(MemoryLedger(1e-9, {"judge-1": price}))), 1)
    assert caught.value.code == "training.teacher_budget"
    ledger = MemoryLedger(1.0, {"judge-1": price})
    scoring = scoring_of(endpoint.teacher(ledger))
    for number in (1, 2):
        played(scoring, number)
    ledger.budget_usd = ledger.spent_usd + 0.01
    third = played(scoring, 3)
    assert (third.mode, third.reason) == (RULES_ONLY, "budget_spent")
    assert ledger.spent_usd <= ledger.budget_usd
    ledger.budget_usd = 10.0
    fourth = played(scoring, 4)
    assert (fourth.mode, len(fourth.late) > 0) == (TEACHER, True)


def test_a_hanging_request_ends_in_time(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda seen: judge(seen) if seen.is_probe or not seen.data["answer"].endswith(" 4") else Answer(hang_s=30.0)
    started = time.monotonic()
    found = played(scoring_of(endpoint.teacher(timeout_s=2.0)), 1, 16)
    assert time.monotonic() - started < 15
    assert [i for i, score in enumerate(found.scores) if math.isnan(score)] == [4]


def test_state_goes_through_a_checkpoint(endpoint: ScriptedEndpoint) -> None:
    import torch

    endpoint.script = no_verdict_on(" 3")
    scoring = scoring_of(endpoint.teacher(), max_unscored=0.5)
    played(scoring, 1)
    prompts: dict[int | None, Prompt] = {None: rows_of(1)[0][3]}
    file = io.BytesIO()
    torch.save(scoring.state_dict(), file)
    file.seek(0)
    again = scoring_of(OfflineTeacher())
    again.load_state_dict(torch.load(file, weights_only=True), prompts)
    assert (again.known, again.was_away) == (scoring.known, scoring.was_away)
    assert [(p.completion, p.rollout, p.tries) for p in again.pending] == [(p.completion, p.rollout, p.tries) for p in scoring.pending]
    assert len(again.pending) == 1


def test_the_offline_teacher_needs_no_waiting() -> None:
    scoring = scoring_of(OfflineTeacher())
    found = played(scoring, 1, 8)
    assert (found.mode, len(scoring.known)) == (TEACHER, 8)
    assert found.usage.num_scored == 8
