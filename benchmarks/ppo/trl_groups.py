"""trl's GRPOTrainer and RLOOTrainer as plug-ins of bench.py; `kind` in the config says which. Reward functions go in as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def train(model_dir: str, prompts_file: str, reward_fn: Any, steps: int, out_dir: str, cfg: dict[str, Any]) -> None:
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config_class, trainer_class = (trl.GRPOConfig, trl.GRPOTrainer) if cfg["kind"] == "grpo" else (trl.RLOOConfig, trl.RLOOTrainer)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    rows = [json.loads(line) for line in Path(prompts_file).read_text("utf-8").splitlines()]
    dataset = Dataset.from_list([{"prompt": row["prompt"], "row": json.dumps(row)} for row in rows])
    end = tokenizer.eos_token_id

    def reward(prompts: Any, completions: list[str], completion_ids: list[list[int]], row: list[str], **_: Any) -> list[float]:
        return reward_fn([json.loads(one) for one in row], completions, [bool(ids) and ids[-1] == end for ids in completion_ids])

    per_rollout = cfg["batch"] // cfg["minibatch"]
    arguments = config_class(
        output_dir=out_dir + "/hf",
        per_device_train_batch_size=cfg["minibatch"],
        gradient_accumulation_steps=1,
        steps_per_generation=per_rollout,
        num_iterations=cfg["epochs"],
        num_generations=cfg.get("group", 8),
        max_completion_length=cfg["max_new"],
        temperature=cfg["temperature"],
        beta=cfg["beta"],
        learning_rate=cfg["lr"],
        lr_scheduler_type="constant",
        max_steps=steps * per_rollout * cfg["epochs"],
        logging_steps=50,
        save_strategy="no",
        report_to=[],
        seed=cfg["seed"],
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
    )
    lora = LoraConfig(r=cfg["lora_r"], lora_alpha=2 * cfg["lora_r"], target_modules=cfg["targets"], task_type="CAUSAL_LM")
    trainer = trainer_class(
        model=model, reward_funcs=reward, args=arguments, train_dataset=dataset, processing_class=tokenizer, peft_config=lora
    )
    trainer.train()
    final = trainer.accelerator.unwrap_model(trainer.model).merge_and_unload()
    final.__dict__.pop("forward", None)  # what accelerate wrapped around it cannot be saved
    final.save_pretrained(out_dir + "/final")
    tokenizer.save_pretrained(out_dir + "/final")
