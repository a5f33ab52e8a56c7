"""PPO's forward passes: log-probabilities and values of response tokens, in micro-batches that pad little.

Sequences are right-padded and only response tokens are kept, flat and in row order, so nothing here depends on how rows are
grouped: splitting a minibatch never changes its loss. Called by training.ppo_learner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from core.jobs.configs import PPOConfig
from core.policy import Policy
from training.causal import trunk_and_head

#: padded tokens per forward pass
MICRO_TOKENS = {"cpu": 1536, "cuda": 8192}
#: logits are made for this many (token, vocabulary) pairs at a time
LOGITS_AT_ONCE = 2**27


def micro_tokens(policy: Policy, config: PPOConfig) -> int:
    return config.micro_batch_tokens or MICRO_TOKENS["cuda" if policy.device.startswith("cuda") else "cpu"]


def micro_batches(queries: list[list[int]], responses: list[list[int]], rows: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """`rows` in groups of similar length, each of at most `max_tokens` padded tokens (or one row)."""
    group: list[int] = []
    for row in sorted(rows, key=lambda i: -(len(queries[i]) + len(responses[i]))):
        longest = len(queries[group[0]]) + len(responses[group[0]]) if group else 0
        if group and longest * (len(group) + 1) > max_tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def response_states(model: Any, queries: list[list[int]], responses: list[list[int]], rows: Sequence[int], policy: Policy) -> Tensor:
    """The trunk's states (N, width) that predict the response tokens of `rows`, flat, in row order."""
    width = max(len(queries[i]) + len(responses[i]) for i in rows)
    ids = torch.full((len(rows), width), policy.pad_id)
    predicts = torch.zeros((len(rows), width), dtype=torch.bool)
    for r, i in enumerate(rows):
        whole = queries[i] + responses[i]
        ids[r, : len(whole)] = torch.tensor(whole)
        predicts[r, len(queries[i]) - 1 : len(whole) - 1] = True
    trunk, _ = trunk_and_head(model)
    hidden: Tensor = trunk(input_ids=ids.to(policy.device), use_cache=False)[0][predicts.to(policy.device)]
    return hidden


def forward(
    model: Any,
    value_head: torch.nn.Linear | None,
    queries: list[list[int]],
    responses: list[list[int]],
    rows: Sequence[int],
    policy: Policy,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """(log-probabilities, values) of all response tokens of `rows`, flat, in row order. The value at a token is that of the
    state that predicts it; without a value head the second is empty."""
    targets = torch.tensor([token for i in rows for token in responses[i]], device=policy.device)
    hidden = response_states(model, queries, responses, rows, policy)
    _, head = trunk_and_head(model)

    def logprobs_of(states: Tensor, tokens: Tensor) -> Tensor:
        return -F.cross_entropy(head(states).float() / temperature, tokens, reduction="none")

    size = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
    if len(hidden) <= size:
        logprobs = logprobs_of(hidden, targets)
    else:  # logits of a chunk are made again for the backward pass instead of being kept
        chunks = zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
        logprobs = torch.cat([checkpoint(logprobs_of, h, token, use_reentrant=False) for h, token in chunks])
    return logprobs, value_head(hidden.float())[:, 0] if value_head is not None else hidden.new_zeros(0)
