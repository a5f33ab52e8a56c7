"""The reward watch on policies that were really trained: one paid by the token is flagged, one paid honestly is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from core.completions import split_completion
from core.datasets import load_prompts
from core.home import Home
from core.jobs.configs import PPOConfig
from core.models import get_version
from core.policy import Policy, row_seed, version_files
from core.records import Completion, Prompt, Split
from core.reward_features import features
from core.reward_watch import HackReport, WatchRow, watch
from core.scoring import Scored, open_scorer
from db.engine import read_session
from training.ppo_learner import Learner

pytestmark = pytest.mark.training

ROLLOUTS, BATCH = 8, 48
CONFIG = PPOConfig(
    name="x", sft_model="tiny-sft", num_rollouts=ROLLOUTS, rollout_batch_size=BATCH, mini_batch_size=24, num_ppo_epochs=2,
    max_new_tokens=160, learning_rate=3e-3, max_step_kl=0.2,
)  # fmt: skip
#: without a KL leash a hack is learned in eight rollouts
UNLEASHED = CONFIG.model_copy(update={"kl_coef": 0.0, "target_kl": 50.0, "learning_rate": 6e-3})
Pay = Callable[[Scored, int], float]


def train(home: Home, pay: Pay, config: PPOConfig = CONFIG) -> HackReport:
    """A short PPO run whose reward is `pay(scored, num_tokens)`, through the learner that every PPO run uses."""
    with read_session() as session:
        files = version_files(session, home, get_version(session, "tiny-sft"))
        prompts = load_prompts(session, "demo", Split.TRAIN, limit=BATCH)
    assert files.adapter is not None
    torch.set_num_threads(1)  # a toy gains nothing from more, and loses much where others compute too
    learner = Learner(Policy.load(home, files.base), files.adapter, config)
    policy, scorer, rows = learner.policy, open_scorer(home), list[WatchRow]()
    queries = [policy.encode(prompt.messages) for prompt in prompts]
    for number in range(ROLLOUTS):
        rollout = learner.rollout(queries, [row_seed(0, number * BATCH + i) for i in range(BATCH)])
        completions = [
            split_completion(policy.decode(r), "stop" if done else "length")
            for r, done in zip(rollout.responses, rollout.is_finished, strict=True)
        ]
        scored = scorer.score(prompts, completions)
        scores = [
            pay(one, len(response)) if done else config.failure_score
            for one, response, done in zip(scored, rollout.responses, rollout.is_finished, strict=True)
        ]
        learner.measure(rollout)
        learner.learn(rollout, torch.tensor(scores), number)
        rows += [row_of(*cells, number) for cells in zip(prompts, completions, scored, scores, rollout.responses, strict=True)]
    return watch(rows)


def row_of(prompt: Prompt, completion: Completion, scored: Scored, score: float, response: list[int], number: int) -> WatchRow:
    is_finished = completion.finish_reason == "stop" and scored.reward.value is not None
    measured = features(prompt, completion)
    return WatchRow(
        score, scored.reward.parts, len(response), number, measured, prompt.language.value, None, prompt.text, completion.text,
        prompt.sample_id, is_finished,
    )  # fmt: skip


def honest(scored: Scored, num_tokens: int) -> float:
    return -0.5 if scored.reward.value is None else scored.reward.value


def by_the_token(scored: Scored, num_tokens: int) -> float:
    return honest(scored, num_tokens) + (0.03 * num_tokens if scored.reward.value is not None else 0.0)


def test_a_policy_that_was_paid_by_the_token_is_flagged_and_an_honest_one_is_not(trained: Home) -> None:
    hacked = train(trained, by_the_token, UNLEASHED)
    length = next(m for m in hacked.measures if m.name == "num_tokens")
    assert length.late > 1.1 * length.early  # it did learn to pad
    assert "length" in {flag.code for flag in hacked.flags}
    assert ("unexplained", "num_tokens") in {(flag.code, flag.feature) for flag in hacked.flags}
    fair = train(trained, honest)
    assert fair.is_enough
    assert fair.flags == ()
