"""The floor of any such trainer: sampling, and one forward and backward pass per PPO epoch over the same tokens. It learns nothing.

Sampling and passes are those of `own.py` (merged adapter, packed rows), so the floor is as low as ours can be; with
{"plain": true} they are transformers' `generate` and PEFT's layers on padded minibatches instead. No reference pass, no critic, no
optimizer, no clipping. The tokens are those of the untrained model.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from own import RewardFn, Work, open_learner

from training.ppo_learner import POLICY, Learner


def generate_plain(learner: Learner, queries: list[list[int]], seeds: list[int]) -> list[list[int]]:
    policy, width = learner.policy, max(map(len, queries))
    ids = torch.tensor([[policy.pad_id] * (width - len(q)) + q for q in queries])
    mask = torch.tensor([[0] * (width - len(q)) + [1] * len(q) for q in queries])
    torch.manual_seed(seeds[0])
    with policy.using(POLICY) as model, torch.no_grad():
        found = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=learner.config.max_new_tokens, eos_token_id=policy.eos_id, pad_token_id=policy.pad_id,
        )  # fmt: skip
    rows = [row.tolist() for row in found[:, width:]]
    return [row[: row.index(policy.eos_id) + 1] if policy.eos_id in row else row for row in rows]


def sample(learner: Learner, queries: list[list[int]], seeds: list[int]) -> list[list[int]]:
    policy, config = learner.policy, learner.config
    with policy.using(POLICY), learner.merged[POLICY]:
        return policy.sample(
            queries, adapter=POLICY, temperature=1.0, max_new_tokens=config.max_new_tokens, seeds=seeds, batch_size=len(queries)
        )


def epoch(learner: Learner, queries: list[list[int]], responses: list[list[int]], plain: bool) -> None:
    size = learner.config.mini_batch_size
    with learner.policy.using(POLICY) as model, learner.forward.session(model, learns=True):
        for parameter in learner.trained.values():
            parameter.requires_grad_(True)
        for start in range(0, len(queries), size):
            with contextlib.nullcontext() if plain else learner.merged[POLICY]:
                for rows in learner.forward.micro_batches(queries, responses, range(start, min(start + size, len(queries)))):
                    learner.forward(model, None, queries, responses, rows)[0].mean().backward()
            learner.optimizer.zero_grad(set_to_none=True)


def train(model_dir: str, prompts_file: str, reward_fn: RewardFn, steps: int, out_dir: str, cfg: dict[str, Any]) -> dict[str, Any]:
    plain = cfg.pop("plain", False)
    learner = open_learner(model_dir, out_dir, steps, cfg)
    if plain:
        learner.forward.is_packed, learner.forward.max_tokens = False, 10**9
    work = Work(learner, prompts_file, cfg)
    num_tokens = 0
    for number in range(steps):
        chosen = work.chosen(number)
        queries = [work.ids[i] for i in chosen]
        responses = work.timed("generation", generate_plain if plain else sample, learner, queries, work.seeds(number))
        num_tokens += sum(map(len, queries)) + sum(map(len, responses))
        texts = work.texts(responses, learner.policy.eos_ids)
        reward_fn([work.rows[i] for i in chosen], texts, [r[-1] in learner.policy.eos_ids for r in responses])
        for _ in range(cfg["epochs"]):
            work.timed("forward and backward", epoch, learner, queries, responses, plain)
    return {"times": work.times, "num_tokens": num_tokens}
