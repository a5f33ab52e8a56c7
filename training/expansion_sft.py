"""Query expansion, stage one: a LoRA adapter that learns to write lex/vec/hyde lines from rows, loss on the lines only.

The engines, the adapter and the registration are those of `training.sft`; here are the rows, the chat that Ask sends, and the held-out
loss. Train split only; the version's task is "expansion", so nobody promotes it to answer patients.

    python -m training.expansion_sft --run-dir DIR      (job kind expansion_sft)
"""

from __future__ import annotations

import shutil
from pathlib import Path

from core.errors import UserError
from core.expansion.runs import rows_of
from core.expansion.schema import Row
from core.jobs.configs_expansion_training import ExpansionSFTConfig
from core.jobs.configs_training import SFTConfig
from core.models import check_name_free
from core.policy import Policy, base_location
from db.engine import read_session
from training import sft
from training.causal import Example, collate, completion_loss, num_parameters, prepare, replace_folder
from training.expansion_common import chat, target
from training.run import Run, main

EVAL_ROWS = 32


def train(run: Run) -> None:
    """Fine-tune on the rows of a set."""
    config = run.config(ExpansionSFTConfig)

    # 1. Everything that can be wrong with the config is said before the model is loaded.
    with read_session() as session:
        check_name_free(session, config.name, job_id=run.job_id)
        base = sft.find_base(session, run.home, config.base_model)
    rows = rows_of(config.data, ("train",), run.home)
    held = rows_of(config.data, ("val",), run.home)
    if not rows:
        raise UserError("expansion_training.no_rows", data=config.data, split="train")
    folder = Path(config.base_model)
    location = base_location(run.home, base.path) if base else str(folder.resolve() if folder.is_dir() else folder)

    # 2. Base and adapter.
    plain = as_sft(config)
    policy = Policy.load(run.home, location, sft.device_of(run, plain))
    prepare(run.home, config.seed, num_parameters(policy.model))
    add_adapter(policy, config, location)
    trainable, total = num_parameters(policy.model, trainable_only=True), num_parameters(policy.model)
    if trainable == 0:
        raise AssertionError("nothing is trainable")

    # 3. Examples: the chat of Ask, then the lines and the end of the turn.
    examples = to_examples(policy, rows[: config.max_samples or None], config.max_length)
    if not examples:
        raise UserError("training.all_too_long", max_length=config.max_length)
    print(f"{len(examples)} rows of {len(rows)}, {trainable:,} of {total:,} parameters", flush=True)

    # 4. Train, measure on rows that it has not seen, save, register.
    result = dict(sft.ENGINES[config.engine](run, policy, examples, plain))
    if not run.is_main:
        return
    if unseen := to_examples(policy, held[:200], config.max_length):
        result["held_out_loss"] = held_out_loss(policy, unseen)
        print(f"held out loss {result['held_out_loss']:.3f} on {len(unseen)} rows", flush=True)
    scratch, final = run.dir / "adapter", run.home.models / "sft" / config.name
    shutil.rmtree(scratch, ignore_errors=True)
    sft.save(policy, plain, scratch, base.name if base else sft.base_name(config.base_model))
    replace_folder(scratch, final)
    manifest = {
        "method": "expansion_sft",
        "config": config.model_dump(),
        "dataset": {"name": config.data, "num_examples": len(examples)},
        "num_too_long": len(rows[: config.max_samples or None]) - len(examples),
        "num_trainable": trainable,
        "num_parameters": total,
        "metrics": result,
    }
    digest = sft.register(run, plain, base, final, manifest, task="expansion")
    run.result(version=config.name, content_hash=digest, num_examples=len(examples), **result)


def as_sft(config: ExpansionSFTConfig) -> SFTConfig:
    """What the engines of `training.sft` read."""
    shared = set(SFTConfig.model_fields) & set(ExpansionSFTConfig.model_fields)
    return SFTConfig(**config.model_dump(include=shared))


def add_adapter(policy: Policy, config: ExpansionSFTConfig, location: str) -> None:
    """A new adapter (B = 0) on the projections that the config names.

    Raises UserError("expansion_training.no_projections") for a base that has none of them: another architecture.
    """
    from peft import LoraConfig, get_peft_model

    check_projections(policy, config.base_model, list(config.target_modules))
    lora = LoraConfig(
        r=config.lora_r, lora_alpha=config.lora_alpha, target_modules=list(config.target_modules), lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    model = get_peft_model(policy.model, lora, adapter_name="default")
    model.peft_config["default"].base_model_name_or_path = location
    policy.adopt(model, {sft.ADAPTER: "default"})


def check_projections(policy: Policy, base: str, wanted: list[str]) -> None:
    """Raises UserError("expansion_training.no_projections") when the model lacks one of the projections."""
    known = {name.rpartition(".")[2] for name, _ in policy.model.named_modules()}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise UserError("expansion_training.no_projections", base=base, missing=", ".join(missing))


def to_examples(policy: Policy, rows: list[Row], max_length: int) -> list[Example]:
    """Rows that fit, as token ids."""
    found = (sft.to_example(policy, chat(row.query), target(row), max_length) for row in rows)
    return [example for example in found if example is not None]


def held_out_loss(policy: Policy, examples: list[Example]) -> float:
    """Mean cross-entropy in nats per token of the lines."""
    import torch

    policy.model.eval()
    total = num_tokens = 0.0
    with torch.no_grad(), policy.using(sft.ADAPTER) as model:
        for start in range(0, len(examples), EVAL_ROWS):
            part = examples[start : start + EVAL_ROWS]
            ids, labels = collate(part, policy.pad_id, policy.device)
            number = sum(len(e.ids) - e.start for e in part)
            total += float(completion_loss(model, ids, labels)) * number
            num_tokens += number
    return total / num_tokens


if __name__ == "__main__":
    main(train)
