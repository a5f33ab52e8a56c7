"""Each formula of PPO against one written another way."""

from __future__ import annotations

import math

import pytest
import torch

from training.ppo_math import (
    KLController,
    RunningStats,
    approx_kl,
    explained_variance,
    gae,
    overlong_penalty,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)


def rows(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards, values, mask of rows of length 7, 1, 4."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor([[1.0] * n + [0.0] * (7 - n) for n in (7, 1, 4)])
    return torch.randn(3, 7, generator=generator), torch.randn(3, 7, generator=generator), mask


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.97, 0.0)])
def test_gae_equals_the_sum_of_its_definition(gamma: float, lam: float) -> None:
    rewards, values, mask = rows()
    advantages, returns = gae(rewards * mask, values * mask, mask, gamma, lam)
    for row in range(3):
        length = int(mask[row].sum())
        deltas = [
            float(rewards[row, i]) + (gamma * float(values[row, i + 1]) if i + 1 < length else 0.0) - float(values[row, i])
            for i in range(length)
        ]
        for i in range(length):
            expected = sum((gamma * lam) ** (j - i) * deltas[j] for j in range(i, length))
            assert float(advantages[row, i]) == pytest.approx(expected, abs=1e-5)
            assert float(returns[row, i]) == pytest.approx(expected + float(values[row, i]), abs=1e-5)
        assert not advantages[row, length:].any()


def test_the_score_arrives_once_at_the_last_token() -> None:
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    logprobs, ref = torch.tensor([[-1.0, -2.0, 9.0], [-1.0, -1.0, -1.0]]), torch.tensor([[-1.5, -2.0, 0.0], [-1.0, -2.0, -1.0]])
    found = token_rewards(torch.tensor([0.7, -0.5]), logprobs, ref, mask, kl_coef=0.1)
    assert torch.allclose(found, torch.tensor([[-0.05, 0.7, 0.0], [0.0, -0.1, -0.5]]))


def test_whitening_ignores_padding() -> None:
    values, _, mask = rows(1)
    found = whiten(values, mask)
    real = found[mask.bool()]
    assert float(real.mean()) == pytest.approx(0, abs=1e-6)
    assert float(real.std(correction=0)) == pytest.approx(1, abs=1e-4)
    changed = values.clone()
    changed[1, 3:] = 1e6
    assert torch.equal(whiten(changed, mask), found)


def test_losses_equal_their_loops() -> None:
    generator = torch.Generator().manual_seed(2)
    new, old, advantages, values, before, returns = (torch.randn(4, 5, generator=generator) * 0.5 for _ in range(6))
    mask = (torch.rand(4, 5, generator=generator) > 0.3).float()
    surrogate = critic = clipped = count = 0.0
    for i in range(4):
        for j in range(5):
            if not mask[i, j]:
                continue
            ratio, a = math.exp(float(new[i, j] - old[i, j])), float(advantages[i, j])
            limited = min(max(ratio, 0.8), 1.2)
            surrogate += -min(ratio * a, limited * a)
            clipped += limited * a < ratio * a
            v, b, r = float(values[i, j]), float(before[i, j]), float(returns[i, j])
            critic += 0.5 * max((v - r) ** 2, (min(max(v, b - 0.2), b + 0.2) - r) ** 2)
            count += 1
    found = policy_loss(new, old, advantages, mask, 0.2)
    assert float(found.loss) == pytest.approx(surrogate, abs=1e-4)
    assert found.clipfrac == pytest.approx(clipped / count, abs=1e-6)
    assert float(value_loss(values, before, returns, mask, 0.2)) == pytest.approx(critic, abs=1e-4)


def test_kl_estimates() -> None:
    mask = torch.ones(1, 1000)
    same = torch.full((1, 1000), -2.0)
    assert float(approx_kl(same, same, mask)) == 0.0
    assert float(approx_kl(same + 0.1, same, mask)) == pytest.approx(math.exp(0.1) - 1.1, abs=1e-6)
    far = same.clone()
    far[0, 0] = -1e4  # a vanished probability must not become inf
    assert math.isfinite(float(approx_kl(far, same, mask)))
    assert float(approx_kl(same + 5, same, torch.zeros(1, 1000))) == 0.0


def test_the_controller_moves_towards_its_target_and_never_by_leaps() -> None:
    controller = KLController(0.1, target=5.0, horizon=100)
    controller.update(50.0, 10)
    assert controller.kl_coef == pytest.approx(0.1 * 1.02)
    controller.update(0.0, 10)
    assert controller.kl_coef == pytest.approx(0.1 * 1.02 * 0.98)
    before = controller.kl_coef
    controller.update(5.0, 10)
    assert controller.kl_coef == before


def test_explained_variance() -> None:
    returns, _, mask = rows(3)
    assert explained_variance(returns, returns, mask) == pytest.approx(1.0)
    assert explained_variance(torch.zeros_like(returns), returns, mask) == pytest.approx(0.0, abs=1e-6)


def test_the_controller_and_the_statistics_go_on_from_their_state() -> None:
    controller, stats = KLController(0.1, 5.0, 100), RunningStats()
    controller.update(9.0, 10)
    numbers = torch.tensor([0.5, -1.0, 2.0, 0.25, 7.0])
    stats.add(numbers[:2])
    again, more = KLController(0.7, 5.0, 100), RunningStats()
    again.load_state_dict(controller.state_dict())
    more.load_state_dict(stats.state_dict())
    more.add(numbers[2:])
    assert again.kl_coef == controller.kl_coef
    assert more.mean == pytest.approx(float(numbers.mean()))
    assert more.std == pytest.approx(float(numbers.std(correction=0)))


def test_only_the_last_tokens_before_the_cap_cost_something() -> None:
    found = overlong_penalty(torch.tensor([10.0, 80.0, 90.0, 100.0]), cap=100, buffer=20, penalty=0.4)
    assert torch.allclose(found, torch.tensor([0.0, 0.0, -0.2, -0.4]))
