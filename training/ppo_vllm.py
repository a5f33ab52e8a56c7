"""Rollouts sampled by vLLM instead of our own sampler: `rollout_engine = "vllm"`. Has been run against a stand-in engine only.

The policy's adapter is written to a folder before every rollout and sent along as a LoRA request; the base is loaded once, beside
the training's own copy. Nothing of the sampler's numbers is used but the token ids: old log-probabilities come from the training
forward (`Learner.measure`), so small differences between the two implementations make the first ratio differ from nothing. A
resumed run repeats the interrupted one only as far as vLLM's seeded sampling does. Called by training.ppo.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.jobs.configs import PPOConfig
from core.policy import Policy
from training.causal import save_adapter

#: share of the GPU's memory that vLLM may take; the rest is the training's
GPU_SHARE = 0.35


def check_engine(config: PPOConfig, device: str) -> None:
    """Raise UserError("training.no_vllm") or UserError("training.vllm_needs_gpu") before anything is loaded."""
    if config.rollout_engine != "vllm":
        return
    if importlib.util.find_spec("vllm") is None:
        raise UserError("training.no_vllm")
    if not device.startswith("cuda"):
        raise UserError("training.vllm_needs_gpu", device=device)


class VllmSampler:
    """Has the `sample` of `core.policy.Policy`, so that the learner need not know who samples."""

    def __init__(self, policy: Policy, base: str, config: PPOConfig, folder: Path, max_prompt_tokens: int) -> None:
        vllm = importlib.import_module("vllm")
        self.policy, self.folder, self.num_rollouts = policy, folder, 0
        rank = max(one.r for one in policy.model.peft_config.values())
        self.engine: Any = vllm.LLMEngine.from_engine_args(
            vllm.EngineArgs(
                model=base,
                enable_lora=True,
                max_loras=1,
                max_lora_rank=max(8, 1 << (rank - 1).bit_length()),
                max_model_len=max_prompt_tokens + config.max_new_tokens,
                gpu_memory_utilization=GPU_SHARE,
                seed=config.seed,
            )
        )

    def sample(
        self,
        prompt_ids: list[list[int]],
        *,
        adapter: str | None,
        temperature: float,
        max_new_tokens: int,
        seeds: Sequence[int],
        batch_size: int = 64,
        on_finished: Callable[[int, list[int]], None] | None = None,
        observe: None = None,
    ) -> list[list[int]]:
        """As `Policy.sample`: completion ids, end token included where reached. vLLM batches as it likes: `batch_size` is ignored."""
        vllm, requests = importlib.import_module("vllm"), importlib.import_module("vllm.lora.request")
        assert adapter is not None
        self.num_rollouts += 1
        folder = self.folder / f"lora-{self.num_rollouts}"  # vLLM keeps adapters by number and path: each rollout has its own
        save_adapter(self.policy, adapter, folder)
        lora = requests.LoRARequest(f"policy-{self.num_rollouts}", self.num_rollouts, str(folder))
        for row, (ids, seed) in enumerate(zip(prompt_ids, seeds, strict=True)):
            params = vllm.SamplingParams(
                temperature=temperature,
                max_tokens=max_new_tokens,
                seed=seed % 2**31,
                stop_token_ids=sorted(self.policy.eos_ids),
                detokenize=False,
            )
            self.engine.add_request(f"{self.num_rollouts}-{row}", {"prompt_token_ids": ids}, params, lora_request=lora)
        completions: list[list[int]] = [[] for _ in prompt_ids]
        while self.engine.has_unfinished_requests():
            for output in self.engine.step():
                if not output.finished:
                    continue
                row, last = int(output.request_id.rpartition("-")[2]), output.outputs[0]
                ids = list(last.token_ids)
                if last.finish_reason == "stop" and (not ids or ids[-1] not in self.policy.eos_ids):
                    ids.append(self.policy.eos_id)  # an engine that keeps the end token to itself
                completions[row] = ids
                if on_finished:
                    on_finished(row, ids)
        shutil.rmtree(folder)
        return completions
