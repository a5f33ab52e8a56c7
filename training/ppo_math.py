"""The arithmetic of PPO on padded batches. All tensors are (B, T) over response tokens; `mask` is 1 on real ones, 0 on padding.

Every mean is a masked one: padding dilutes plain means, and an early stop on a diluted KL fires late. Called by training.ppo_learner;
tests compare each function with an independent one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: log-ratios are clamped before exponentiation: one token with a vanished probability must not turn the loss into inf
MAX_LOG_RATIO = 20.0


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask).sum() / mask.sum().clamp_min(1)


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit variance over the real tokens of the whole rollout."""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask


def token_rewards(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """-kl_coef * k1 at every token, plus the score (B,) at the last one. k1 because its gradient is unbiased in the reward."""
    rewards = -kl_coef * (logprobs - ref_logprobs) * mask
    last = mask.sum(1).long() - 1
    rewards[torch.arange(len(scores)), last] += scores
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """(advantages, returns) by generalised advantage estimation; nothing follows a row's last token. Schulman et al. 2015."""
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(running)
    for step in reversed(range(rewards.shape[1])):
        here = mask[:, step]
        delta = rewards[:, step] + gamma * next_value - values[:, step]
        running = (delta + gamma * lam * running) * here
        advantages[:, step] = running
        next_value = values[:, step] * here
    return advantages, (advantages + values) * mask


def approx_kl(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """k3 estimate of KL(old, new) per token: never negative, low variance. For monitoring and the early stop only."""
    log_ratio = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return masked_mean(log_ratio.expm1() - log_ratio, mask)


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    loss: Tensor
    clipfrac: float
    ratio: float


def policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, cliprange: float) -> PolicyLoss:
    """The clipped surrogate, summed over the real tokens of the (micro-)batch: divide by the minibatch's token count."""
    ratio = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    loss = (torch.maximum(plain, clipped) * mask).sum()
    with torch.no_grad():
        return PolicyLoss(loss, float(masked_mean((clipped > plain).float(), mask)), float(masked_mean(ratio, mask)))


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, cliprange: float) -> Tensor:
    """Half the squared error, the worse of plain and clipped around the old values; summed like `policy_loss`."""
    clipped = torch.maximum(torch.minimum(values, old_values + cliprange), old_values - cliprange)
    return 0.5 * (torch.maximum((values - returns) ** 2, (clipped - returns) ** 2) * mask).sum()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns); 0 means the critic knows nothing, 1 everything."""
    real = mask.bool()
    spread = returns[real].var(correction=0)
    return float(1 - (returns[real] - values[real]).var(correction=0) / spread) if spread > 0 else 0.0


class KLController:
    """Moves the KL coefficient towards the target (Ziegler et al. 2019); its state belongs in the checkpoint."""

    def __init__(self, kl_coef: float, target: float, horizon: float) -> None:
        self.kl_coef = kl_coef
        self.target = target
        self.horizon = horizon

    def update(self, kl: float, num_samples: int) -> None:
        """`kl` in nats per sequence, measured on `num_samples` completions."""
        error = min(0.2, max(-0.2, kl / self.target - 1))
        self.kl_coef *= 1 + error * num_samples / self.horizon

    def state_dict(self) -> dict[str, float]:
        return {"kl_coef": self.kl_coef}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.kl_coef = state["kl_coef"]


def overlong_penalty(lengths: Tensor, cap: int, buffer: int, penalty: float) -> Tensor:
    """Zero up to `cap - buffer` tokens, then linearly down to `-penalty` at the cap (soft overlong punishment, DAPO 2503.14476)."""
    beyond: Tensor = ((lengths - (cap - buffer)) / buffer).clamp(0, 1)
    return -penalty * beyond


class RunningStats:
    """Mean and (population) deviation of all numbers seen since the run began, by Welford's method; belongs in the checkpoint."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    @property
    def std(self) -> float:
        return (self.squares / self.count) ** 0.5 if self.count else 0.0

    def add(self, values: Tensor) -> None:
        for value in values.tolist():
            self.count += 1
            delta = value - self.mean
            self.mean += delta / self.count
            self.squares += delta * (value - self.mean)

    def state_dict(self) -> dict[str, float]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.count, self.mean, self.squares = int(state["count"]), state["mean"], state["squares"]
