"""trl's GRPOTrainer with our sampler, our reward and our masks. Beside training.trl_common, the only module that imports trl.

Called by training.grpo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import trl
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor

from core.errors import Unavailable
from core.policy import Policy, VersionFiles, row_seed
from core.records import Message
from training.run import Run, StopRequested
from training.trl_common import POLICY, Plan, Quiet, RunCallback, arguments, num_processes, start_checks


@dataclass(frozen=True, slots=True)
class Shared:
    """A rollout's rows as trl gathered them from all processes. `kl` is policy against reference in nats, summed over a row's
    tokens, before the first update on them; `is_used` is False for rows that no update sees."""

    number: int
    num_tokens: list[int]
    kl: list[float]
    is_used: list[bool]


class Rollouts(Protocol):
    """Who scores a GRPO rollout. Rows are numbered over all processes; every process is called alike."""

    def begin(self, number: int) -> None:
        """Rollout `number` (from 0) is about to be sampled."""

    def on_finished(self, row: int, ids: list[int]) -> None:
        """A row of this process has ended, while others still generate."""

    def scores(self) -> list[float]:
        """All rows' scores, NaN for unscored. Raises StopRequested or Unavailable: then what was learned so far is saved."""

    def after(self, rollout: Shared) -> None:
        """Scored and measured; the updates come next."""


class GRPOTrainer(Quiet, trl.GRPOTrainer):  # type: ignore[misc]
    """trl's, with four differences: prompts are encoded and answers sampled by our `Policy` (one random stream per row, so a
    resumed run repeats the uninterrupted one); a row is handed on for scoring as soon as it has ended; a row without a score, and a
    group with fewer than two scores, is masked out of the update, its KL and its token count instead of standing in it with an
    advantage of zero; the rollout is handed to `rollouts` before the updates.
    """

    def __init__(self, *, policy: Policy, plan: Plan, rollouts: Rollouts, **kwargs: Any) -> None:
        super().__init__(reward_funcs=[self.reward], **kwargs)
        self.our_policy, self.plan, self.rollouts = policy, plan, rollouts
        self.drawn: list[list[int]] = []

    def reward(self, completion_ids: list[list[int]], **_kwargs: Any) -> list[float]:
        """What trl calls for this process's rows."""
        try:
            found = self.rollouts.scores()
        except (StopRequested, Unavailable):
            if self.state.global_step:
                self._save_checkpoint(self.model, None)
                self.callback_handler.on_save(self.args, self.state, self.control)
            raise
        first = self.accelerator.process_index * len(completion_ids)
        return found[first : first + len(completion_ids)]

    @property
    def rollout_number(self) -> int:
        """From 0."""
        return int(self.state.global_step) // self.plan.unit

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.our_policy.encode([Message(m["role"], m["content"]) for m in chat]) for chat in prompts], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_args: Any, **_kwargs: Any) -> tuple[list[list[int]], None]:
        own = self.accelerator.process_index * len(prompt_ids)
        first = self.rollout_number * self.args.generation_batch_size + own
        self.rollouts.begin(self.rollout_number)
        self.model.eval()  # while it trains with recomputed activations it would refuse its own cache
        self.drawn = self.our_policy.sample(
            prompt_ids,
            adapter=POLICY,
            temperature=self.temperature,
            max_new_tokens=self.max_completion_length,
            seeds=[row_seed(self.plan.seed, first + i) for i in range(len(prompt_ids))],
            batch_size=len(prompt_ids),
            on_finished=lambda row, ids: self.rollouts.on_finished(own + row, ids),
        )
        self.model.train()
        return self.drawn, None

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        found: Tensor = super()._calculate_rewards(*args, **kwargs)
        self.scores = found
        return found

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = super()._generate_and_score_completions(inputs)
        mask = found["completion_mask"]
        used = usable(self.scores[:, 0], self.num_generations)
        if not used.any():
            raise Unavailable("training.nothing_scored", n=len(used))
        start = self.accelerator.process_index * len(mask)
        own = used[start : start + len(mask)].to(mask.device)
        found["completion_mask"] = mask * own[:, None]
        before = found.get("old_per_token_logps")
        if before is None:
            ids = torch.cat([found["prompt_ids"], found["completion_ids"]], dim=1)
            seen = torch.cat([found["prompt_mask"], mask], dim=1)
            with torch.no_grad():
                before, _, _ = self._get_per_token_logps_and_entropies(
                    self.model, ids, seen, mask.shape[1], batch_size=self.args.per_device_train_batch_size
                )
        kl = ((before - found["ref_per_token_logps"]) * mask).sum(1)
        for name in ("old_per_token_logps", "ref_per_token_logps"):
            if name in found:  # a masked row's log-probabilities are 0 in the loss: exp of their difference must stay finite
                found[name] = found[name] * found["completion_mask"]
        found["num_items_in_batch"] = self.accelerator.gather(found["completion_mask"].sum()).sum()
        rows = list(zip([len(ids) for ids in self.drawn], kl.tolist(), own.tolist(), strict=True))
        rows = gather_object(rows) if num_processes() > 1 else rows
        lengths, kls, is_used = (list(column) for column in zip(*rows, strict=True))
        self.rollouts.after(Shared(self.rollout_number, lengths, kls, is_used))
        return found


def usable(scores: Tensor, num_generations: int) -> Tensor:
    """(N,) bool from (N,) scores with NaN for unscored, groups in a row: scored, in a group with at least two scores."""
    known: Tensor = ~scores.isnan()
    enough: Tensor = known.view(-1, num_generations).sum(1) >= 2
    found: Tensor = known & enough.repeat_interleave(num_generations)
    return found


def grpo_trainer(
    run: Run,
    policy: Policy,
    files: VersionFiles,
    prompts: list[list[Message]],
    plan: Plan,
    callback: RunCallback,
    rollouts: Rollouts,
    **more: Any,
) -> GRPOTrainer:
    """`prompts` in the order in which they are asked; `more` is what trl.GRPOConfig takes."""
    rows = [{"prompt": [{"role": m.role, "content": m.content} for m in messages]} for messages in prompts]
    args = arguments(trl.GRPOConfig, run, policy.device, plan, shuffle_dataset=False, disable_dropout=True, top_k=0, top_p=1.0, **more)
    trainer = GRPOTrainer(
        model=policy.model,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
        callbacks=[callback],
        policy=policy,
        plan=plan,
        rollouts=rollouts,
    )
    callback.checks = start_checks(policy, trainer, files)
    return trainer
