"""trl's PPOTrainer (experimental; last in trl 1.12) as a plug-in of bench.py.

It takes rewards from a sequence-classification module only: it calls the module's backbone for hidden states and its `score` on
them. `Shim` passes the token ids through as hidden states, decodes them again, and finds the row by its prompt's text.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

ANSWER = "<|im_start|>assistant\n"
END = "<|im_end|>"


class Passing(torch.nn.Module):
    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return SimpleNamespace(hidden_states=[input_ids[..., None].double()])


class Shim(torch.nn.Module):
    base_model_prefix = "backbone"

    def __init__(self, tokenizer: Any, rows: list[dict[str, Any]], reward_fn: Any) -> None:
        super().__init__()
        self.tokenizer, self.reward_fn = tokenizer, reward_fn
        self.by_prompt = {tokenizer.decode(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]): row for row in rows}
        self.backbone = Passing()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def score(self, states: torch.Tensor) -> torch.Tensor:
        rows, texts, finished = [], [], []
        for ids in states[..., 0].long().tolist():
            prompt, _, answer = self.tokenizer.decode([i for i in ids if i != self.tokenizer.pad_token_id]).partition(ANSWER)
            rows.append(self.by_prompt[prompt + ANSWER])
            finished.append(END in answer)
            texts.append(answer.split(END)[0])
        rewards = torch.tensor(self.reward_fn(rows, texts, finished), dtype=torch.float32)
        return rewards[:, None, None].expand(states.shape[0], states.shape[1], 1)


def train(model_dir: str, prompts_file: str, reward_fn: Any, steps: int, out_dir: str, cfg: dict[str, Any]) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    critic = AutoModelForSequenceClassification.from_pretrained(model_dir, num_labels=1, dtype=torch.float32)
    torch.nn.init.zeros_(critic.score.weight)
    rows = [json.loads(line) for line in Path(prompts_file).read_text("utf-8").splitlines()]
    dataset = Dataset.from_list([{"input_ids": tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]} for row in rows])
    size = cfg["batch"]
    arguments = PPOConfig(
        output_dir=out_dir + "/hf",
        per_device_train_batch_size=size,
        gradient_accumulation_steps=1,
        num_mini_batches=size // cfg["minibatch"],
        num_ppo_epochs=cfg["epochs"],
        total_episodes=steps * size,
        response_length=cfg["max_new"],
        temperature=cfg["temperature"],
        kl_coef=cfg["beta"],
        learning_rate=cfg["lr"],
        lr_scheduler_type="constant",
        stop_token="eos",
        local_rollout_forward_batch_size=size,
        num_sample_generations=0,
        report_to=[],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_steps=50,
        save_strategy="no",
        seed=cfg["seed"],
        disable_tqdm=True,
        vf_coef=0.1,
        lam=cfg["lam"],
    )
    torch.manual_seed(cfg["seed"])
    trainer = PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=model,
        ref_model=None,
        reward_model=Shim(tokenizer, rows, reward_fn),
        train_dataset=dataset,
        value_model=critic,
        eval_dataset=dataset.select(range(8)),
        peft_config=LoraConfig(r=cfg["lora_r"], lora_alpha=2 * cfg["lora_r"], target_modules=cfg["targets"], task_type="CAUSAL_LM"),
    )
    trainer.train()
    final = trainer.accelerator.unwrap_model(trainer.model).policy.merge_and_unload()
    final.save_pretrained(out_dir + "/final")
    tokenizer.save_pretrained(out_dir + "/final")
