"""Our own trainer as a plug-in of bench.py: `training.ppo_learner.Learner` on the harness's model, prompts and reward."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import training  # noqa: F401  (environment that libraries read at import)
from core.jobs.configs import PPOConfig
from core.policy import Policy, row_seed
from training.ppo_learner import POLICY, Learner

RewardFn = Callable[[list[dict[str, Any]], list[str], list[bool]], list[float]]


def fresh_adapter(model_dir: str, folder: Path, cfg: dict[str, Any]) -> None:
    """A LoRA adapter that changes nothing yet: our learner starts from an SFT adapter, the peers from a fresh one."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(cfg["seed"])
    lora = LoraConfig(r=cfg["lora_r"], lora_alpha=2 * cfg["lora_r"], target_modules=cfg["targets"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32), lora).save_pretrained(str(folder))


def open_learner(model_dir: str, out_dir: str, steps: int, cfg: dict[str, Any]) -> Learner:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    fresh_adapter(model_dir, Path(out_dir) / "sft", cfg)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    config = PPOConfig(
        name="bench",
        num_rollouts=steps,
        rollout_batch_size=cfg["batch"],
        num_ppo_epochs=cfg["epochs"],
        mini_batch_size=cfg["minibatch"],
        learning_rate=cfg["lr"],
        kl_coef=cfg["beta"],
        max_new_tokens=cfg["max_new"],
        temperature=cfg["temperature"],
        seed=cfg["seed"],
        **cfg.get("ppo", {}),
    )
    return Learner(Policy(model, AutoTokenizer.from_pretrained(model_dir), "cpu"), Path(out_dir) / "sft", config)


class Work:
    """Which prompts a rollout gets, and the CPU seconds of each part."""

    def __init__(self, learner: Learner, prompts_file: str, cfg: dict[str, Any]) -> None:
        self.tokenizer, self.size, self.seed = learner.policy.tokenizer, cfg["batch"], cfg["seed"]
        self.rows = [json.loads(line) for line in Path(prompts_file).read_text("utf-8").splitlines()]
        self.ids = self.tokenizer([row["prompt"] for row in self.rows], add_special_tokens=False)["input_ids"]
        self.order = list(range(len(self.rows)))
        random.Random(self.seed).shuffle(self.order)
        self.times: dict[str, float] = {}

    def chosen(self, number: int) -> list[int]:
        return [self.order[(number * self.size + i) % len(self.order)] for i in range(self.size)]

    def seeds(self, number: int) -> list[int]:
        return [row_seed(self.seed, number * self.size + i) for i in range(self.size)]

    def texts(self, responses: list[list[int]], ends: frozenset[int]) -> list[str]:
        return [self.tokenizer.decode([t for t in r if t not in ends], skip_special_tokens=True) for r in responses]

    def timed(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        started = time.process_time()
        found = function(*arguments)
        self.times[name] = self.times.get(name, 0.0) + time.process_time() - started
        return found


def train(model_dir: str, prompts_file: str, reward_fn: RewardFn, steps: int, out_dir: str, cfg: dict[str, Any]) -> dict[str, Any]:
    learner = open_learner(model_dir, out_dir, steps, cfg)
    work, history = Work(learner, prompts_file, cfg), []
    for number in range(steps):
        chosen = work.chosen(number)
        rollout = work.timed("rollout", learner.rollout, [work.ids[i] for i in chosen], work.seeds(number))
        texts = work.texts(rollout.responses, learner.policy.eos_ids)
        scores = torch.tensor(reward_fn([work.rows[i] for i in chosen], texts, rollout.is_finished))
        work.timed("measure", learner.measure, rollout)
        history.append(work.timed("learn", learner.learn, rollout, scores, number))
        print({name: round(value, 4) for name, value in history[-1].items()}, flush=True)
    learner.check_reference()
    with learner.policy.using(POLICY) as model:
        final = model.merge_and_unload(adapter_names=[learner.policy.key_of(POLICY)])
    final.save_pretrained(out_dir + "/final")
    work.tokenizer.save_pretrained(out_dir + "/final")
    return {"times": work.times, "history": history}
