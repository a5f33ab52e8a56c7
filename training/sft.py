"""Supervised fine-tuning: a LoRA adapter on a base, or all its weights; loss on the completion only, `<think>` block kept.

The target of a sample is its `meta.demonstration` where there is one (the demo's imperfect answers, so that PPO has something
to mend), else its `reference`. Samples of the train split only. Two engines with one interface: trl's SFTTrainer (packing,
several processes), and our own small loop (training.causal.fit), which on the demo's toy costs less than half the CPU time
(docs/training_notes.md). Both get the same token ids: the chat prompt from `Policy.encode`, then the target as it is stored,
then the end token. No chat template ever sees the target, so none can strip its thinking.

    python -m training.sft --run-dir DIR      (job kind sft)
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import select

from core.datasets import get_dataset
from core.errors import NotFound, UserError
from core.home import Home
from core.jobs.configs_training import SFTConfig
from core.models import check_name_free, folder_hash, register_version
from core.policy import Policy, base_location, is_whole_model
from core.records import Message, Split, VersionKind
from db import tables as t
from db.engine import read_session, write_session
from training.causal import Example, fit, num_parameters, prepare, replace_folder, save_adapter, trunk_and_head
from training.run import Run, main

ADAPTER = "sft"


def train(run: Run) -> None:
    """Fine-tune a LoRA adapter on prompts with reference answers."""
    config = run.config(SFTConfig)

    # 1. Everything that can be wrong with the config is said before the model is loaded.
    with read_session() as session:
        check_name_free(session, config.name, job_id=run.job_id)
        base = find_base(session, run.home, config.base_model)
        dataset = get_dataset(session, config.dataset)
        pairs = load_targets(session, dataset, config)
    folder = Path(config.base_model)
    location = base_location(run.home, base.path) if base else str(folder.resolve() if folder.is_dir() else folder)

    # 2. Base, and what is trained of it: a fresh adapter on all linear layers (never the head: its raw weight gives the
    #    log-probabilities), or everything.
    policy = Policy.load(run.home, location, device_of(run, config))
    prepare(run.home, config.seed, num_parameters(policy.model))
    if config.method == "lora":
        add_fresh_adapter(policy, config, location)
    elif not policy.device.startswith("cpu"):
        policy.model.float()  # AdamW on bfloat16 weights loses small updates; the forward pass is bfloat16 by autocast
    trainable, total = num_parameters(policy.model, trainable_only=True), num_parameters(policy.model)
    if trainable == 0:
        raise AssertionError("nothing is trainable")

    # 3. Examples: the chat prompt, then the completion and the end-of-turn token.
    examples = [to_example(policy, messages, target, config.max_length) for messages, target in pairs]
    kept = [example for example in examples if example is not None]
    if not kept:
        raise UserError("training.all_too_long", max_length=config.max_length)

    # 4. Train, save, register.
    result = ENGINES[config.engine](run, policy, kept, config)
    if not run.is_main:
        return
    target = run.home.models / "sft" / config.name
    scratch = run.dir / "adapter"
    shutil.rmtree(scratch, ignore_errors=True)
    save(policy, config, scratch, base.name if base else base_name(config.base_model))
    replace_folder(scratch, target)
    manifest = {
        "config": config.model_dump(),
        "dataset": {"name": dataset.name, "content_hash": dataset.content_hash, "num_examples": len(kept)},
        "num_too_long": len(examples) - len(kept),
        "base": {"name": base.name if base else config.base_model, "content_hash": base.content_hash if base else ""},
        "num_trainable": trainable,
        "num_parameters": total,
        "metrics": result,
    }
    digest = register(run, config, base, target, manifest)
    run.result(version=config.name, content_hash=digest, num_examples=len(kept), num_too_long=len(examples) - len(kept), **result)


def device_of(run: Run, config: SFTConfig) -> str:
    if config.engine == "compact":
        return "auto"
    from training.trl_common import place

    return place(run.home)


def train_compact(run: Run, policy: Policy, examples: list[Example], config: SFTConfig) -> dict[str, float]:
    """Our own loop: batches of similar length, logits only where a label stands."""
    import torch

    share = num_parameters(policy.model, trainable_only=True) / num_parameters(policy.model)
    print(f"{share:.1%} of the parameters are trained", flush=True)
    trunk_and_head(policy.model, torch.tensor([examples[0].ids], device=policy.device))
    return fit(
        run,
        policy.model,
        examples,
        phase="sft",
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        tokens_per_batch=config.batch_size * config.max_length,
        learning_rate=config.learning_rate,
        seed=config.seed,
        save_steps=config.save_steps,
        pad_id=policy.pad_id,
        device=policy.device,
    )


def train_trl(run: Run, policy: Policy, examples: list[Example], config: SFTConfig) -> dict[str, float]:
    """trl's SFTTrainer on the same examples. `loss` is the mean of the last two log windows."""
    from training import trl_common

    updates = max(1, round(config.num_epochs * len(examples) / config.batch_size))
    plan = trl_common.Plan(
        phase="sft",
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        learning_rate=config.learning_rate,
        seed=config.seed,
        save_steps=config.save_steps,
        num_epochs=config.num_epochs,
        log_steps=1 if config.packing or updates < 20 else 10,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    trainer, callback = trl_common.sft_trainer(run, policy, examples, plan, max_length=config.max_length, packing=config.packing)
    num_updates = trl_common.fit(run, trainer, callback)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-2:]
    num_labels = sum(len(example.ids) - example.start for example in examples)
    return {"loss": sum(losses) / max(1, len(losses)), "num_updates": float(num_updates), "num_tokens": num_labels * config.num_epochs}


ENGINES = {"trl": train_trl, "compact": train_compact}


def find_base(session: Any, home: Home, name: str) -> t.ModelVersion | None:
    """The version called `name`, a base or a whole model that was fine-tuned; None when it is not a version (then it is a folder
    or a hub name).

    Raises UserError("training.needs_base") for a version that is an adapter: an adapter on an adapter is not a thing.
    """
    row: t.ModelVersion | None = session.scalar(select(t.ModelVersion).where(t.ModelVersion.name == name))
    if row is not None and row.kind != VersionKind.BASE and not is_whole_model(home, row):
        raise UserError("training.needs_base", name=name)
    return row


def load_targets(session: Any, dataset: t.Dataset, config: SFTConfig) -> list[tuple[list[Message], str]]:
    """(messages, target) of the train split, in id order; a seeded choice of `max_samples` where that is set.

    Raises NotFound("training.no_targets") when no train sample has an answer to learn from.
    """
    query = select(t.Sample).where(t.Sample.dataset_id == dataset.id, t.Sample.split == Split.TRAIN.value).order_by(t.Sample.id)
    found = [([Message(m["role"], m["content"]) for m in row.messages], target_of(row)) for row in session.scalars(query)]
    pairs = [(messages, target) for messages, target in found if target]
    if not pairs:
        raise NotFound("training.no_targets", name=dataset.name)
    if 0 < config.max_samples < len(pairs):
        chosen = sorted(random.Random(config.seed).sample(range(len(pairs)), config.max_samples))
        pairs = [pairs[i] for i in chosen]
    return pairs


def target_of(row: t.Sample) -> str:
    return str(row.meta.get("demonstration") or row.reference or "")


def to_example(policy: Policy, messages: list[Message], target: str, max_length: int) -> Example | None:
    """None when prompt and target do not fit: a cut-off target would teach the model to stop in the middle."""
    prompt = policy.encode(messages)
    ids = [*prompt, *policy.tokenizer(target, add_special_tokens=False)["input_ids"], policy.eos_id]
    return Example(ids, len(prompt)) if len(ids) <= max_length else None


def add_fresh_adapter(policy: Policy, config: SFTConfig, location: str) -> None:
    """Put a new LoRA adapter (B = 0, so the model is unchanged at first) on every linear layer but the head."""
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=config.lora_r, lora_alpha=config.lora_alpha, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
    model = get_peft_model(policy.model, lora, adapter_name="default")
    model.peft_config["default"].base_model_name_or_path = location  # by a bare name PEFT would ask the hub at every checkpoint
    policy.adopt(model, {ADAPTER: "default"})


def save(policy: Policy, config: SFTConfig, folder: Path, base: str) -> None:
    """An adapter that names its base by version, or the whole model with its tokenizer (bfloat16 where it was trained on a GPU)."""
    if config.method == "lora":
        policy.model.peft_config["default"].base_model_name_or_path = base
        save_adapter(policy, ADAPTER, folder)
        return
    import torch

    if not policy.device.startswith("cpu"):
        policy.model.to(torch.bfloat16)
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)


def base_name(given: str) -> str:
    """The name a base goes by when it is not a version yet: a folder's own name, or the hub name."""
    return Path(given).name if Path(given).is_dir() else given


def register(
    run: Run, config: SFTConfig, base: t.ModelVersion | None, folder: Path, manifest: dict[str, Any], *, task: str = "answer"
) -> str:
    """Register the adapter; a base that was given as a folder or hub name becomes a version first. Returns the hash."""
    home: Home = run.home
    digest = folder_hash(folder)
    with write_session() as session:
        if base is None:
            path = Path(config.base_model)
            stored = str(path.resolve()) if path.is_dir() else config.base_model
            known = session.scalar(
                select(t.ModelVersion).where(t.ModelVersion.path == stored, t.ModelVersion.kind == VersionKind.BASE.value)
            )
            base = known or register_version(
                session,
                name=base_name(config.base_model),
                kind=VersionKind.BASE,
                path=stored,
                content_hash=folder_hash(path) if path.is_dir() else "",
                job_id=run.job_id,
            )
        register_version(
            session,
            name=config.name,
            kind=VersionKind.SFT,
            path=home.relative(folder),
            base_version_id=base.id if config.method == "lora" else None,
            parent_version_id=base.id,
            is_toy=base.is_toy,
            content_hash=digest,
            manifest=manifest,
            job_id=run.job_id,
            task=task,
        )
    return digest


if __name__ == "__main__":
    main(train)
