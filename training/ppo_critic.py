"""The critic's two forms, both a float32 linear head on the policy's own trunk.

`GradientHead` reads the state that predicts a token and learns by gradient steps with the policy, as PPO usually does. `RidgeHead`
also reads the mean of the response's states so far (what has been said, not only what comes next) and is fitted in closed form
after every rollout, by ridge regression with forgetting: a rollout holds many tokens but only as many returns as rows, and on
that little a head trained by gradient steps explained less than nothing (docs/benchmarks_ppo.md). It needs no learning rate
and sends no gradient into the trunk. Called by training.ppo_learner and, through it, by training.ppo_forward.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

#: a fit forgets this share of its evidence per rollout
FORGETTING = 0.2
#: strength of the ridge, in rollouts of evidence
RIDGE = 1.0
#: wider features are projected down to this many before the fit
MAX_FEATURES = 1024


class Critic(Protocol):
    """`states` (N, width) of whole responses, flat, in row order; `lengths` of the rows. Returns values (N,)."""

    def __call__(self, states: Tensor, lengths: list[int]) -> Tensor: ...


class GradientHead(torch.nn.Linear):
    """Zero at first; trained by the value loss."""

    def __init__(self, width: int, device: str) -> None:
        super().__init__(width, 1, dtype=torch.float32, device=device)
        torch.nn.init.zeros_(self.weight)
        torch.nn.init.zeros_(self.bias)

    def forward(self, states: Tensor, lengths: list[int] | None = None) -> Tensor:
        value: Tensor = super().forward(states.float())[:, 0]
        return value


class RidgeHead(torch.nn.Module):
    """Zero at first; `fit` after every rollout. Its normal equations belong in the checkpoint (they are buffers)."""

    weight: Tensor
    bias: Tensor
    projection: Tensor
    gram: Tensor
    moment: Tensor
    first: Tensor

    def __init__(self, width: int, device: str, seed: int = 0) -> None:
        super().__init__()
        size = min(2 * width, MAX_FEATURES)
        made = torch.Generator().manual_seed(seed)
        projection = torch.randn(2 * width, size, generator=made) / size**0.5 if size < 2 * width else torch.zeros(0)
        for name, tensor in (("weight", torch.zeros(1, size)), ("bias", torch.zeros(1)), ("projection", projection)):
            self.register_buffer(name, tensor.to(device))
        # sums over tokens of (1, x, y) outer (1, x): everything a regression with an intercept needs
        for name, shape in (("gram", (size + 1, size + 1)), ("moment", (size + 1,)), ("first", ())):
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64, device=device))

    def project(self, both: Tensor) -> Tensor:
        return both @ self.projection if self.projection.numel() else both

    def features(self, states: Tensor, lengths: list[int]) -> Tensor:
        """(N, F) for flat states of whole responses."""
        states = states.float()
        means = [s.cumsum(0) / torch.arange(1, len(s) + 1, device=s.device)[:, None] for s in torch.split(states, lengths)]
        return self.project(torch.cat([states, torch.cat(means)], 1))

    def forward(self, states: Tensor, lengths: list[int]) -> Tensor:
        return self.of(self.features(states, lengths))

    def of(self, features: Tensor) -> Tensor:
        value: Tensor = (features @ self.weight[0]) + self.bias
        return value

    @torch.no_grad()
    def fit(self, features: Tensor, returns: Tensor) -> None:
        """Add one rollout's tokens (N, F) and their returns (N,) to the evidence and solve."""
        x = torch.cat([torch.ones_like(features[:, :1]), features], 1).double()
        self.gram.mul_(1 - FORGETTING).add_(x.T @ x)
        self.moment.mul_(1 - FORGETTING).add_(x.T @ returns.double())
        if not float(self.first):
            self.first.fill_(len(x))
        count = self.gram[0, 0]
        mean, level = self.gram[0, 1:] / count, self.moment[0] / count
        covariance = self.gram[1:, 1:] - count * torch.outer(mean, mean)
        spread = (covariance.diagonal() / count).clamp_min(1e-12).sqrt()
        scaled = covariance / torch.outer(spread, spread)
        scaled += RIDGE * self.first * torch.eye(len(scaled), dtype=scaled.dtype, device=scaled.device)
        weight = torch.linalg.solve(scaled, (self.moment[1:] - count * mean * level) / spread) / spread
        self.weight.copy_(weight[None])
        self.bias.copy_((level - weight @ mean)[None])


class RunningMean:
    """The features of the newest token of every row while it is being sampled."""

    def __init__(self, head: Any, num_rows: int, width: int, device: str) -> None:
        self.head = head
        self.sums = torch.zeros((num_rows, width), device=device)

    def __call__(self, rows: Tensor, step: int, states: Tensor) -> Tensor:
        """Features (B, F) of `rows`, whose `step`-th token (from 0) the states (B, width) predict."""
        self.sums[rows] += states.float()
        features: Tensor = self.head.project(torch.cat([states.float(), self.sums[rows] / (step + 1)], 1))
        return features
