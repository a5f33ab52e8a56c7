"""The PPO learner: sample, measure, learn. The job script and the benchmark both drive this class; nothing else trains by PPO.

Policy and reference are two LoRA adapters on one base; the reference is read from the SFT folder and nowhere else, is never
trained, and is compared with that folder by hash. The critic is a float32 head on the policy's own trunk. What the reward is,
who gives it and what is written to disk is the caller's affair: `learn` takes one number per completion, NaN for "not scored".

Deviations from the textbook: KL to the reference stands in the reward (k1 per token) under an adaptive coefficient; a
rollout's updates end before the step that would leave `max_step_kl` behind; the critic is fitted in closed form (config.critic).
References: arXiv 1707.06347 (PPO), 1506.02438 (GAE), 1909.08593 (KL controller), 2403.17031 (details), 2503.01491 (critic).

Everything random follows from the caller's seeds and (config.seed, rollout), so a resumed run repeats the uninterrupted one.
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import Unavailable, UserError
from core.jobs.configs import PPOConfig
from core.policy import Policy
from training.causal import SMALL_MODEL, adapter_tensors, clip_and_step, num_parameters, save_adapter, trunk_and_head
from training.ppo_critic import GradientHead, RidgeHead, RunningMean
from training.ppo_forward import ResponseForward
from training.ppo_lora import MergedAdapter
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
from training.ppo_processes import Processes

POLICY, REFERENCE = "policy", "reference"
#: nats per sequence by which policy and reference may differ before the first update
MAX_FIRST_KL = 1e-3
VALUE_HEAD = "value_head.safetensors"
#: nats by which the sampler's log-probability of a token may differ from the training forward's before it is not used
MAX_SAMPLER_GAP = 1e-3


@dataclass(slots=True)
class Rollout:
    """One batch of responses. Tensors are (B, R): R is the longest response, `mask` is 1 on its tokens; they are zero until
    `Learner.measure` has run. With several processes every one holds the whole rollout; `rows` are those it sampled itself."""

    queries: list[list[int]]
    responses: list[list[int]]
    is_finished: list[bool]
    rows: list[int]
    mask: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    #: the critic's features (B, R, F) where they were kept while sampling
    features: Tensor | None = None

    @property
    def kl(self) -> Tensor:
        """k1 to the reference, summed over each response: (B,), in nats."""
        return (self.logprobs - self.ref_logprobs).mul(self.mask).sum(1)


class Learner:
    """PPO on one `Policy` without adapters. Raises AssertionError when an invariant that would train nothing, or train towards
    the wrong anchor, does not hold; UserError("training.too_many_trained", "training.unsupported_head")."""

    def __init__(self, policy: Policy, sft_adapter: Path, config: PPOConfig, accelerator: Any = None) -> None:
        self.policy, self.sft_adapter, self.config = policy, sft_adapter, config
        self.processes = Processes(accelerator)
        #: what samples the rollouts: anything with `Policy.sample`
        self.sampler: Any = policy
        policy.add_adapter(POLICY, sft_adapter, is_trainable=True)
        policy.add_adapter(REFERENCE, sft_adapter)
        width = policy.model.config.get_text_config().hidden_size
        is_ridge = config.critic == "ridge"
        self.value_head = RidgeHead(width, policy.device, config.seed) if is_ridge else GradientHead(width, policy.device)
        self.trained = trained_parameters(policy, self.value_head)
        self.optimizer = make_optimizer(self.trained, width, config)
        self.controller = KLController(config.kl_coef, config.target_kl, config.kl_horizon)
        self.score_stats = RunningStats()
        self.has_moved = False
        self.check_start()
        self.forward = ResponseForward(policy, config)
        self.merged = {name: MergedAdapter(policy.model, policy.key_of(name)) for name in (POLICY, REFERENCE)}
        # In float32 the sampler's numbers are the training forward's up to rounding (compared on the first rollout); in bfloat16
        # they are not, and every rollout is measured again.
        self.uses_sampler = config.old_logprobs == "sampler" or (config.old_logprobs == "auto" and policy.model.dtype == torch.float32)
        self.is_compared = False

    # ---------------------------------------------------------------- the silent failures, made loud

    def check_start(self) -> None:
        count, total = sum(p.numel() for p in self.trained.values()), num_parameters(self.policy.model)
        if not any(name.startswith("base_model") for name in self.trained):
            raise AssertionError("the policy adapter has no trainable parameter")
        is_toy = total < SMALL_MODEL
        note = " (a toy: its share says nothing about a real model)" if is_toy else ""
        print(f"{count:,} of {total:,} parameters are trained ({count / total:.1%}){note}", flush=True)
        if not is_toy and count / total > self.config.max_trained_share:
            raise UserError("training.too_many_trained", share=f"{count / total:.1%}", limit=f"{self.config.max_trained_share:.1%}")
        self.check_reference()
        probe = torch.arange(min(8, self.policy.model.config.get_text_config().vocab_size), device=self.policy.device)[None]
        trunk_and_head(self.policy.model, probe)

    def check_reference(self) -> None:
        """SHA-256 of the reference in memory against the SFT folder's adapter (both as float32)."""
        from safetensors.torch import load_file

        if tensors_hash(adapter_tensors(self.policy, REFERENCE)) != tensors_hash(load_file(self.sft_adapter / "adapter_model.safetensors")):
            raise AssertionError("the reference is not the SFT adapter")

    # ---------------------------------------------------------------- sampling and measuring

    def rollout(
        self, queries: list[list[int]], seeds: Sequence[int], on_finished: Callable[[int, list[int]], None] | None = None
    ) -> Rollout:
        """Sample one response per query at the training temperature, nothing filtered: forced tokens would show as KL that the
        policy then chases. `on_finished(row, response)` is called as soon as a row has ended, while others still generate."""
        policy, config = self.policy, self.config
        rows = self.processes.share(len(queries))
        logprobs = torch.zeros((len(queries), config.max_new_tokens), device=policy.device)
        values = torch.zeros_like(logprobs)
        features: list[tuple[Tensor, int, Tensor]] = []
        width = policy.model.config.get_text_config().hidden_size
        running = RunningMean(self.value_head, len(queries), width, policy.device)

        def observe(at: list[int], step: int, states: Tensor, logits: Tensor, chosen: Tensor) -> None:
            scaled = logits if config.temperature == 1 else logits / config.temperature
            here = torch.tensor([rows[i] for i in at], device=policy.device)
            logprobs[here, step] = scaled.gather(1, chosen[:, None])[:, 0] - scaled.logsumexp(1)
            if isinstance(self.value_head, RidgeHead):
                found = running(here, step, states)
                features.append((here, step, found))
                values[here, step] = self.value_head.of(found)
            else:
                values[here, step] = self.value_head(states)

        with policy.using(POLICY), self.merged[POLICY]:
            found = self.sampler.sample(
                [queries[i] for i in rows],
                adapter=POLICY,
                temperature=config.temperature,
                max_new_tokens=config.max_new_tokens,
                seeds=[seeds[i] for i in rows],
                batch_size=config.sample_batch_size or len(rows),
                on_finished=(lambda i, response: on_finished(rows[i], response)) if on_finished else None,
                observe=observe if self.uses_sampler else None,
            )
        gathered = self.processes.gather(dict(zip(rows, found, strict=True)))
        responses = [gathered[i] for i in range(len(queries))]
        mask = torch.zeros((len(responses), max(map(len, responses))))
        for row, response in enumerate(responses):
            mask[row, : len(response)] = 1
        mask = mask.to(policy.device)
        finished = [response[-1] in policy.eos_ids for response in responses]
        logprobs, values = logprobs[:, : mask.shape[1]] * mask, values[:, : mask.shape[1]] * mask
        rollout = Rollout(queries, responses, finished, rows, mask, logprobs, torch.zeros_like(mask), values)
        if features:
            rollout.features = torch.zeros((*mask.shape, features[0][2].shape[1]), device=policy.device)
            for here, step, found_there in features:
                if step < mask.shape[1]:
                    rollout.features[here, step] = found_there
        return rollout

    def measure(self, rollout: Rollout) -> None:
        """The reference's log-probabilities by the training forward, and the policy's and the values too unless the sampler's are
        as good. In the run's first rollout both are made and compared. Raises AssertionError where they should agree and do not."""
        with torch.no_grad():
            if not self.uses_sampler or not self.is_compared:
                logprobs, values = torch.zeros_like(rollout.mask), torch.zeros_like(rollout.mask)
                self._measure(rollout, POLICY, logprobs, values)
                if not self.uses_sampler:
                    rollout.logprobs, rollout.values = logprobs, values
                elif (gap := float((logprobs - rollout.logprobs)[rollout.rows].abs().max())) > MAX_SAMPLER_GAP:
                    raise AssertionError(f"sampler and training forward differ by {gap} nats for a token: set old_logprobs to forward")
                self.is_compared = True
            self._measure(rollout, REFERENCE, rollout.ref_logprobs, None)
        if self.processes.count > 1:
            tensors = (rollout.logprobs, rollout.ref_logprobs, rollout.values)
            lines = self.processes.gather({i: [tensor[i].tolist() for tensor in tensors] for i in rollout.rows})
            for i, found in lines.items():
                for tensor, line in zip(tensors, found, strict=True):
                    tensor[i] = torch.tensor(line, device=tensor.device)

    def _measure(self, rollout: Rollout, adapter: str, logprobs: Tensor, values: Tensor | None) -> None:
        head = self.value_head
        features: list[Tensor] = []

        def critic(states: Tensor, lengths: list[int]) -> Tensor:
            if not isinstance(head, RidgeHead):
                value: Tensor = head(states, lengths)
                return value
            features.append(head.features(states, lengths))
            return head.of(features[-1])

        with self.policy.using(adapter) as model, self.merged[adapter], self.forward.session(model):
            for rows in self.forward.micro_batches(rollout.queries, rollout.responses, rollout.rows):
                part = rollout.mask[rows].bool()
                found, predicted = self.forward(model, None if values is None else critic, rollout.queries, rollout.responses, rows)
                logprobs[rows] = logprobs[rows].masked_scatter(part, found)
                if values is not None:
                    values[rows] = values[rows].masked_scatter(part, predicted)
                if features:
                    if rollout.features is None:
                        rollout.features = torch.zeros((*rollout.mask.shape, features[-1].shape[1]), device=rollout.mask.device)
                    rollout.features[rows] = rollout.features[rows].masked_scatter(part[:, :, None], features.pop())

    # ---------------------------------------------------------------- learning

    def learn(self, rollout: Rollout, scores: Tensor, number: int) -> dict[str, float]:
        """One rollout's updates. `scores` (B,) in rollout order, NaN = not scored and left out; with several processes each
        gives those of its own `rows`. `number` counts rollouts from 0. Returns metrics under the field's names.

        Raises Unavailable("training.nothing_scored"); AssertionError when the first updates changed no weight.
        """
        config = self.config
        factor = 1 - 0.8 * number / config.num_rollouts if config.decay else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        scores = self._all_scores(rollout, scores)
        known = ~scores.isnan()
        if not known.any():
            raise Unavailable("training.nothing_scored", n=len(known))
        kl = rollout.kl
        if not self.has_moved and (gap := float(kl.abs().max())) > MAX_FIRST_KL:
            raise AssertionError(f"policy and reference differ by {gap} nats before the first update")

        mask = rollout.mask * known[:, None]
        shaped = self._shape(rollout, scores.nan_to_num(0.0), known)
        rewards = token_rewards(shaped, rollout.logprobs, rollout.ref_logprobs, rollout.mask, self.controller.kl_coef)
        advantages, _ = gae(rewards, rollout.values, rollout.mask, config.gamma, config.lam)
        _, returns = gae(rewards, rollout.values, rollout.mask, config.gamma, config.lam_critic)
        critic_fit = explained_variance(rollout.values, returns, mask)
        advantages = whiten(advantages, mask)
        if isinstance(self.value_head, RidgeHead):  # after this rollout's advantages were taken without it
            self._fit_critic(self.value_head, rollout, returns, mask)
        elif number == 0:
            self._warm_up(self.value_head, rollout, returns, mask)
            rollout.values = returns.clone()  # so that the value clip does not hold the critic back at zero

        has_signal = bool((advantages != 0).any())  # a rollout in which every answer fails alike teaches nothing
        before = {} if self.has_moved or not has_signal else {name: tensor.detach().clone() for name, tensor in self.trained.items()}
        metrics = self._update(rollout, advantages, returns, mask, number)
        if before and metrics["policy/num_updates"] and all(torch.equal(before[name], tensor) for name, tensor in self.trained.items()):
            raise AssertionError("the first updates changed no weight")
        self.has_moved = self.has_moved or (has_signal and metrics["policy/num_updates"] > 0)

        mean_kl, used = float(kl.mean()), self.controller.kl_coef
        self.controller.update(mean_kl, len(kl))
        lengths = rollout.mask.sum(1)
        return metrics | {
            "objective/kl": mean_kl,
            "objective/kl_coef": used,
            "objective/kl_coef_next": self.controller.kl_coef,
            "objective/entropy": float(-(rollout.logprobs * rollout.mask).sum(1).mean()),
            "objective/scores": float(scores[known].mean()),
            "objective/non_score_reward": float(-used * mean_kl),
            "objective/rlhf_reward": float(scores[known].mean() - used * mean_kl),
            "val/num_unscored": float((~known).sum()),
            "val/finished_ratio": sum(rollout.is_finished) / len(known),
            "val/response_length": float(lengths.mean()),
            "val/explained_variance": critic_fit,
            "val/score_running_mean": self.score_stats.mean,
            "val/score_running_std": self.score_stats.std,
            "learning_rate": config.learning_rate * factor,
        }

    def _all_scores(self, rollout: Rollout, scores: Tensor) -> Tensor:
        scores = scores.to(rollout.mask)
        if self.processes.count == 1:
            return scores
        found = self.processes.gather({i: float(scores[i]) for i in rollout.rows})
        return torch.tensor([found[i] for i in range(len(scores))], dtype=scores.dtype, device=scores.device)

    def _shape(self, rollout: Rollout, scores: Tensor, known: Tensor) -> Tensor:
        """The scores as the update sees them: penalties for no end and for nearly none, divided by the running deviation where
        asked for. The deviation is that of all scores so far, and raw scores are what is logged: a drift stays visible."""
        config = self.config
        unfinished = torch.tensor([not f for f in rollout.is_finished], dtype=scores.dtype, device=scores.device)
        shaped = scores - config.eos_penalty * unfinished
        if config.overlong_buffer:
            shaped = shaped + overlong_penalty(rollout.mask.sum(1), config.max_new_tokens, config.overlong_buffer, config.overlong_penalty)
        self.score_stats.add(scores[known])
        if config.scale_scores and self.score_stats.std > 0:
            shaped = shaped / self.score_stats.std
        return shaped

    def _update(self, rollout: Rollout, advantages: Tensor, returns: Tensor, mask: Tensor, number: int) -> dict[str, float]:
        """`num_ppo_epochs` passes over the scored rows in shuffled minibatches; returns the means of the standard metrics."""
        config, policy = self.config, self.policy
        rows = self._rows_worth_learning(advantages, mask)
        logs: list[dict[str, float]] = []
        stopped = False
        with policy.using(POLICY) as model, self.forward.session(model, learns=True):
            for parameter in self.trained.values():
                parameter.requires_grad_(True)  # switching adapters freezes the one switched away from
            for epoch in range(config.num_ppo_epochs):
                order = rows.copy()
                random.Random(f"{config.seed}-{number}-{epoch}").shuffle(order)
                for start in range(0, len(order), config.mini_batch_size):
                    with self.merged[POLICY]:
                        log = self._gradients(model, rollout, advantages, returns, mask, order[start : start + config.mini_batch_size])
                    if log["policy/approxkl_avg"] > 1.5 * config.max_step_kl:  # looked at before the step is taken, not after
                        self.optimizer.zero_grad(set_to_none=True)
                        stopped = True
                        break
                    log["policy/grad_norm"] = clip_and_step(self.optimizer, self.trained.values(), config.max_grad_norm)
                    logs.append(log)
                if stopped:
                    break
        means = {name: sum(log[name] for log in logs) / len(logs) for name in logs[0]} if logs else {}
        return {**means, "policy/num_updates": float(len(logs)), "policy/stopped_early": float(stopped)}

    def _gradients(
        self, model: Any, rollout: Rollout, advantages: Tensor, returns: Tensor, mask: Tensor, batch: list[int]
    ) -> dict[str, float]:
        """Leave the gradient of one minibatch's loss on the parameters: the mean over ALL its tokens, however it is split into
        micro-batches and over processes. Returns the minibatch's metrics."""
        config, policy = self.config, self.policy
        num_tokens = float(mask[batch].sum())
        critic_head = self.value_head if isinstance(self.value_head, GradientHead) else None
        names = ("loss/policy_avg", "loss/value_avg", "policy/approxkl_avg", "policy/clipfrac_avg", "val/ratio")
        sums = torch.zeros(len(names), dtype=torch.float64, device=policy.device)
        for micro in self.forward.micro_batches(rollout.queries, rollout.responses, self.processes.part(batch)):
            flat, values = self.forward(model, critic_head, rollout.queries, rollout.responses, micro)
            real = mask[micro].bool()
            old, ones = rollout.logprobs[micro][real], torch.ones_like(flat)
            clipped = policy_loss(flat, old, advantages[micro][real], ones, config.cliprange)
            critic = torch.zeros_like(clipped.loss)
            if critic_head is not None:
                critic = value_loss(values, rollout.values[micro][real], returns[micro][real], ones, config.cliprange_value)
            ((clipped.loss + config.vf_coef * critic) / num_tokens).backward()  # type: ignore[no-untyped-call]
            n = len(flat)
            moved = n * float(approx_kl(flat.detach(), old, ones))
            found = [float(clipped.loss.detach()), float(critic.detach()), moved, n * clipped.clipfrac, n * clipped.ratio]
            sums += torch.tensor(found, dtype=torch.float64, device=policy.device)
        self.processes.sum_gradients(list(self.trained.values()))
        return dict(zip(names, (self.processes.sum(sums) / num_tokens).tolist(), strict=True))

    def _rows_worth_learning(self, advantages: Tensor, mask: Tensor) -> list[int]:
        """The scored rows, or the `update_share` of them with the largest mean absolute advantage, in rollout order.

        A row's part in the gradient is proportional to its advantage: half the rows of a normal distribution hold 93 % of the
        squares (down-sampling of rollouts: arXiv 2504.13818)."""
        rows = [i for i in range(len(mask)) if mask[i].any()]
        weight = (advantages.abs() * mask).sum(1) / mask.sum(1).clamp_min(1)
        kept = max(1, round(self.config.update_share * len(rows)))
        return sorted(sorted(rows, key=lambda i: -float(weight[i]))[:kept])

    def _states(self, rollout: Rollout, rows: Sequence[int]) -> Iterator[tuple[list[int], Tensor]]:
        with torch.no_grad(), self.policy.using(POLICY) as model, self.merged[POLICY], self.forward.session(model):
            for micro in self.forward.micro_batches(rollout.queries, rollout.responses, rows):
                yield micro, self.forward.states(model, rollout.queries, rollout.responses, micro)

    def _fit_critic(self, head: RidgeHead, rollout: Rollout, returns: Tensor, mask: Tensor) -> None:
        """Every process fits on the features of all rows: the same numbers in the same order everywhere."""
        assert rollout.features is not None, "measure comes first"
        if self.processes.count > 1:
            rollout.features = self.processes.sum(rollout.features * self._own(rollout)[:, None, None])
        kept = mask.bool()
        head.fit(rollout.features[kept], returns[kept])

    def _own(self, rollout: Rollout) -> Tensor:
        """1 for the rows that this process sampled."""
        own = torch.zeros(len(rollout.mask), device=rollout.mask.device)
        own[rollout.rows] = 1
        return own

    def _warm_up(self, head: GradientHead, rollout: Rollout, returns: Tensor, mask: Tensor) -> None:
        """Fit the head to the first rollout's returns by ridge regression on the trunk's states, all at once.

        An untrained critic misleads the first rollouts (arXiv 2503.01491); a linear head needs no gradient steps to be trained.
        """
        states, wanted = [], []
        for micro, hidden in self._states(rollout, [i for i in range(len(mask)) if mask[i].any()]):
            states.append(hidden.double())
            wanted.append(returns[micro][mask[micro].bool()].double())
        x, y = torch.cat(states), torch.cat(wanted)
        centre, mean = x.mean(0), y.mean()
        gram = (x - centre).T @ (x - centre)
        gram += gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        weight = torch.linalg.solve(gram, (x - centre).T @ (y - mean))
        with torch.no_grad():
            head.weight.copy_(weight[None])
            head.bias.copy_((mean - weight @ centre)[None])

    # ---------------------------------------------------------------- keeping

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact resume needs; loads with `torch.load(weights_only=True)`."""
        return {
            "weights": {name: tensor.detach() for name, tensor in self.trained.items()},
            "optimizer": self.optimizer.state_dict(),
            "controller": self.controller.state_dict(),
            "score_stats": self.score_stats.state_dict(),
            "critic": self.value_head.state_dict(),
            "has_moved": self.has_moved,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["weights"].keys() != self.trained.keys():
            raise AssertionError("the checkpoint was written for another adapter")
        with torch.no_grad():
            for name, tensor in self.trained.items():
                tensor.copy_(state["weights"][name])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # torch would share the tensors with `state`
        self.controller.load_state_dict(state["controller"])
        self.score_stats.load_state_dict(state["score_stats"])
        self.value_head.load_state_dict(state["critic"])
        self.has_moved = state["has_moved"]
        self.is_compared = True  # a resumed rollout takes the numbers that the uninterrupted one took

    def save(self, folder: Path) -> None:
        """Write a plain PEFT folder with value_head.safetensors beside the adapter, for a next round."""
        from safetensors.torch import save_file

        save_adapter(self.policy, POLICY, folder)
        kept = {name: tensor for name, tensor in self.value_head.state_dict().items() if name in ("weight", "bias", "projection")}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in kept.items()}, folder / VALUE_HEAD)


def trained_parameters(policy: Policy, value_head: torch.nn.Module) -> dict[str, Tensor]:
    """What the optimizer owns: the policy adapter and the value head. Everything else is frozen, whatever PEFT set."""
    mark = f".{policy.key_of(POLICY)}."
    trained: dict[str, Tensor] = {}
    for name, parameter in policy.model.named_parameters():
        parameter.requires_grad_(mark in name)
        if mark in name:
            trained[name] = parameter
    return trained | {f"value_head.{name}": parameter for name, parameter in value_head.named_parameters()}


def make_optimizer(trained: dict[str, Tensor], width: int, config: PPOConfig) -> torch.optim.AdamW:
    """AdamW; the head's rate is divided by the root of its width: one Adam step moves every weight by the rate, so a wide head
    would leap (seen: explained variance of -1.7 after one rollout)."""
    head = [tensor for name, tensor in trained.items() if name.startswith("value_head.")]
    adapter = [tensor for name, tensor in trained.items() if not name.startswith("value_head.")]
    slow = config.learning_rate / width**0.5
    groups: list[dict[str, Any]] = [{"params": adapter, "lr": config.learning_rate, "peak": config.learning_rate}]
    if head:
        groups.append({"params": head, "lr": slow, "peak": slow})
    return torch.optim.AdamW(groups, eps=1e-5, weight_decay=0.0, fused=True)


def tensors_hash(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
