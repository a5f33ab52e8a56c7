"""The one door to trl: its trainers with our data, our files and our stop button. Only training.trl_grpo imports it too.

Idea: trl gets token ids that we made (`Policy.encode`, so a chat template can never strip `<think>` or shift a label) and writes
nothing that people read; a callback turns its steps into the files of `training.run`. Invariants: no trainer speaks to the hub
or to a tracker; a checkpoint counts only once its mark `complete` was written, after everything else; the reference is copied
from the start version's folder at every start, never from a checkpoint, and compared with it by hash. trl is pinned, because it
changes weekly; the methods overridden here are listed in docs/training_notes.md.

Called by training.sft (engine trl), training.trl_grpo, training.preferences.
"""

from __future__ import annotations

import json
import math
import os
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import trl
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback

from core.home import Home
from core.policy import Policy, VersionFiles, pick_device
from db import tables as t
from db.engine import read_session
from training.causal import IGNORED, Example, adapter_tensors, num_parameters, trim_metrics
from training.ppo_learner import tensors_hash
from training.run import Run, StopRequested

POLICY, REFERENCE = "policy", "reference"
#: what trl calls the two adapters
TRL_POLICY, TRL_REFERENCE = "default", "ref"
COMPLETE, RUN_STATE = "complete", "run_state.pt"
WARMUP = 0.05

disable_progress_bars()


@dataclass(frozen=True, slots=True)
class Plan:
    """What every trainer is told. `batch_size` is rows per update over all processes; one of `num_epochs`, `max_steps` counts.

    `unit` is how many updates make one step of progress and metrics (a rollout has several); a stop is obeyed between units.
    """

    phase: str
    batch_size: int
    learning_rate: float
    seed: int
    save_steps: int
    micro_batch_size: int = 0
    num_epochs: float = 1.0
    max_steps: int = -1
    unit: int = 1
    log_steps: int = 10
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = 0.01
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0

    def per_device(self) -> int:
        """Rows of one forward and backward pass of one process."""
        return self.micro_batch_size or self.batch_size // num_processes()

    def accumulation(self) -> int:
        return self.batch_size // (self.per_device() * num_processes())


def num_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def place(home: Home) -> str:
    """The device of this process: with several processes on GPUs each has its own."""
    device = pick_device(home)
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    return device


def arguments(kind: type[Any], run: Run, device: str, plan: Plan, **more: Any) -> Any:
    """`kind` (trl.SFTConfig ...) filled in: files in the run folder, nothing reported anywhere, bf16 on a GPU."""
    on_gpu = not device.startswith("cpu")
    schedules: dict[str, dict[str, Any]] = {
        "cosine": {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "warmup_steps": WARMUP},
        "linear": {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": plan.learning_rate / 5, "power": 1.0}},
        "constant": {"lr_scheduler_type": "constant"},
    }
    made = kind(
        output_dir=str(run.checkpoints),
        per_device_train_batch_size=plan.per_device(),
        gradient_accumulation_steps=plan.accumulation(),
        learning_rate=plan.learning_rate,
        num_train_epochs=plan.num_epochs,
        max_steps=plan.max_steps,
        **schedules[plan.schedule],
        weight_decay=plan.weight_decay,
        adam_beta2=0.95 if plan.schedule == "cosine" else 0.999,
        adam_epsilon=plan.adam_epsilon,
        max_grad_norm=plan.max_grad_norm,
        seed=plan.seed,
        save_strategy="steps",
        save_steps=plan.save_steps * plan.unit,
        save_total_limit=2,
        logging_steps=plan.log_steps * plan.unit,
        logging_first_step=False,
        report_to="none",
        push_to_hub=False,
        disable_tqdm=True,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        dataloader_pin_memory=on_gpu,
        activation_checkpointing=plan.gradient_checkpointing == "on" or (plan.gradient_checkpointing == "auto" and on_gpu),
        **more,
    )
    if num_processes() == 1 and made.n_gpu > 1:  # one process uses one GPU; DataParallel is refused by trl
        made._n_gpu = 1
    return made


class Quiet:
    """Mixed into every trainer: no telemetry, no model card (both look things up on the hub)."""

    def _send_telemetry(self) -> None:
        return

    def create_model_card(self, *_args: Any, **_kwargs: Any) -> None:
        return


class RunCallback(TrainerCallback):  # type: ignore[misc]
    """trl's steps as progress.json and metrics.jsonl; the stop button; the mark of a complete checkpoint. Never raises for a
    full disk. `rename` maps trl's metric names to ours (names not in it are dropped); `checks` run once before the first update."""

    def __init__(self, run: Run, plan: Plan, rename: dict[str, str], checks: Callable[[], None] | None = None) -> None:
        self.run, self.plan, self.rename, self.checks = run, plan, rename, checks
        self.was_stopped = False

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        if self.checks:
            self.checks()
        self.run.progress(self.plan.phase, state.global_step // self.plan.unit, state.max_steps // self.plan.unit)

    def on_step_end(self, args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        if state.global_step % self.plan.unit:
            return
        self.run.progress(self.plan.phase, state.global_step // self.plan.unit, state.max_steps // self.plan.unit)
        if agreed(self.run.should_stop(), args.device):
            self.was_stopped = True
            control.should_save = control.should_training_stop = True

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_kwargs: Any) -> None:
        found = self.translate(logs or {})
        if found:
            self.run.log(state.global_step // self.plan.unit, **found)

    def translate(self, logs: dict[str, Any]) -> dict[str, float]:
        """Finite numbers under our names."""
        named = {self.rename[name]: value for name, value in logs.items() if name in self.rename}
        return {name: float(value) for name, value in named.items() if isinstance(value, int | float) and math.isfinite(value)}

    def on_save(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        if not self.run.is_main:
            return
        folder = self.run.checkpoints / f"checkpoint-{state.global_step}"
        try:
            torch.save(self.state_dict(), folder / RUN_STATE)
            (folder / COMPLETE).write_text(json.dumps(_sums(folder)))
        except OSError as error:
            print(f"checkpoint not marked: {error}", flush=True)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beside trl's own state; loads with `weights_only`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Called before a resumed run goes on."""


def agreed(wanted: bool, device: Any) -> bool:
    """The first process's word, for all: one that stopped alone would leave the others waiting for ever."""
    if num_processes() == 1:
        return wanted
    word = torch.tensor([int(wanted)], device=device)
    torch.distributed.broadcast(word, 0)
    return bool(word.item())


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end and still holds what was written; a damaged one is said and passed by."""
    found = [path for path in folder.glob("checkpoint-*") if (path / COMPLETE).exists()]
    for path in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        said = (path / COMPLETE).read_text()
        if not said or json.loads(said) == _sums(path):  # earlier releases marked without sums
            return path
        print(f"checkpoint {path.name} is damaged; going on from the one before", flush=True)
    return None


def _sums(folder: Path) -> dict[str, int]:
    """CRC-32 of every file of a checkpoint but its mark."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != COMPLETE:
            total = 0
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    total = zlib.crc32(block, total)
            sums[path.relative_to(folder).as_posix()] = total
    return sums


def fit(run: Run, trainer: Any, callback: RunCallback) -> int:
    """Train from the newest checkpoint to the end; returns the number of updates in all.

    Raises StopRequested after saving when a person asked for it.
    """
    trainer.remove_callback(PrinterCallback)
    found = last_checkpoint(run.checkpoints)
    if found is not None:
        step = int(found.name.rpartition("-")[2])
        if run.is_main:
            trim_metrics(run, step // callback.plan.unit)
        callback.load_state_dict(torch.load(found / RUN_STATE, weights_only=True))
        print(f"resumed at update {step}", flush=True)
    trainer.train(resume_from_checkpoint=str(found) if found else None)
    if callback.was_stopped:
        raise StopRequested
    return int(trainer.state.global_step)


# --- the policy and its reference ------------------------------------------------------------------------------------------


def load_start(home: Home, files: VersionFiles, device: str, *, seed: int, lora_r: int = 16) -> Policy:
    """The base with the start version's adapter, trainable, under trl's name; a whole model gets a fresh adapter (B = 0).

    Raises as `Policy.load`.
    """
    policy = Policy.load(home, files.base, device)
    torch.manual_seed(seed)
    if files.adapter is None:
        lora = LoraConfig(r=lora_r, lora_alpha=2 * lora_r, target_modules="all-linear", lora_dropout=0.0, task_type="CAUSAL_LM")
        model = get_peft_model(policy.model, lora, adapter_name=TRL_POLICY)
    else:  # without is_trainable nothing would learn, and every figure would still look alive
        model = PeftModel.from_pretrained(policy.model, str(files.adapter), adapter_name=TRL_POLICY, is_trainable=True)
    model.peft_config[TRL_POLICY].base_model_name_or_path = files.base  # a path: by a bare name PEFT would ask the hub
    policy.adopt(model, {POLICY: TRL_POLICY})
    give_padding(policy)
    return policy


def name_base(policy: Policy, files: VersionFiles, start: t.ModelVersion) -> int:
    """Id of the version that the adapter stands on; the adapter names it, not a path: the data folder may move."""
    with read_session() as session:
        base = start if files.adapter is None else session.get_one(t.ModelVersion, start.base_version_id)
    policy.model.peft_config[TRL_POLICY].base_model_name_or_path = base.name
    return base.id


def give_padding(policy: Policy) -> None:
    """trl pads with the tokenizer's padding token and would take the end token where there is none."""
    if policy.tokenizer.pad_token_id in (None, policy.eos_id):
        policy.tokenizer.pad_token = policy.tokenizer.convert_ids_to_tokens(policy.pad_id)


def start_checks(policy: Policy, trainer: Any, files: VersionFiles) -> Callable[[], None]:
    """Makes the silent failures loud: nothing trainable, more than the policy trainable, a reference that is not the start."""
    policy.adopt(trainer.model, {POLICY: TRL_POLICY, REFERENCE: TRL_REFERENCE})
    fresh = tensors_hash(adapter_tensors(policy, POLICY)) if files.adapter is None else ""

    print_share(trainer.model)

    def check() -> None:
        names = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
        if not names or any(f".{TRL_POLICY}." not in name for name in names):
            raise AssertionError(f"trainable: {names[:3]}; it should be the policy adapter and nothing else")
        wanted = tensors_hash(load_file(files.adapter / "adapter_model.safetensors")) if files.adapter else fresh
        if tensors_hash(adapter_tensors(policy, REFERENCE)) != wanted:
            raise AssertionError("the reference is not the start version")

    return check


def print_share(model: Any) -> None:
    trainable, total = num_parameters(model, trainable_only=True), num_parameters(model)
    if trainable == 0:
        raise AssertionError("nothing is trainable")
    print(f"{trainable:,} of {total:,} parameters are trained ({trainable / total:.1%})", flush=True)


# --- supervised fine-tuning ------------------------------------------------------------------------------------------------


class ByLength(Sampler[int]):
    """Every row once per epoch, rows of similar length in one batch, batches in random order. By (seed, epoch) alone, so that a
    run resumed in the middle of an epoch sees the same rows (transformers' own length sampler does not promise that)."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed}-{self.epoch}")
        order = sorted(range(len(self.lengths)), key=lambda i: self.lengths[i] + 8 * rng.random())
        short = len(order) % self.batch_size
        start = rng.randrange(len(order) - short + 1) if short else 0
        rest = order[start : start + short]  # not always the longest ones
        order = order[:start] + order[start + short :]
        batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        rng.shuffle(batches)
        return iter([i for batch in batches for i in batch] + rest)


class SFTTrainer(Quiet, trl.SFTTrainer):  # type: ignore[misc]
    """trl's, on rows that are tokenized and labelled already, in the order of `ByLength`."""

    def __init__(self, *, plan: Plan, **kwargs: Any) -> None:
        self.plan = plan
        super().__init__(**kwargs)

    def _get_train_sampler(self, dataset: Any = None) -> ByLength:
        lengths = [len(ids) for ids in (dataset or self.train_dataset)["input_ids"]]
        return ByLength(lengths, self.plan.batch_size, self.plan.seed)


def sft_rows(examples: Sequence[Example]) -> Dataset:
    """`input_ids` and `labels` (IGNORED before the completion), not shifted: trl shifts."""
    labels = [[IGNORED] * e.start + e.ids[e.start :] for e in examples]
    return Dataset.from_dict({"input_ids": [e.ids for e in examples], "labels": labels})


def sft_trainer(
    run: Run, policy: Policy, examples: Sequence[Example], plan: Plan, *, max_length: int, packing: bool
) -> tuple[SFTTrainer, RunCallback]:
    """Trains whatever of `policy.model` requires a gradient. With `packing` a row holds several samples that do not see each other
    (their positions restart, from which the attention mask is made), and `plan.batch_size` counts such rows."""
    give_padding(policy)
    rows = sft_rows(examples)
    if packing:
        rows = trl.pack_dataset(rows, max_length, "bfd")
    args = arguments(
        trl.SFTConfig,
        run,
        policy.device,
        plan,
        max_length=max_length,
        packing=packing,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    names = {"loss": "train/loss", "grad_norm": "train/grad_norm", "learning_rate": "train/learning_rate"}
    names |= {"mean_token_accuracy": "train/token_accuracy", "entropy": "train/entropy"}
    callback = RunCallback(run, plan, names, lambda: print_share(policy.model))
    trainer = SFTTrainer(
        plan=plan, model=policy.model, args=args, train_dataset=rows, processing_class=policy.tokenizer, callbacks=[callback]
    )
    return trainer, callback


# --- preferences -----------------------------------------------------------------------------------------------------------


class DPOTrainer(Quiet, trl.DPOTrainer):  # type: ignore[misc]
    """trl's, on rows of `prompt_ids`, `chosen_ids`, `rejected_ids`."""

    def _prepare_dataset(self, dataset: Any, *_args: Any, **_kwargs: Any) -> Any:
        return dataset


class KTOTrainer(Quiet, trl.KTOTrainer):  # type: ignore[misc]
    """trl's, on rows of `prompt_ids`, `completion_ids`, `label`; the KL is estimated from answers shifted by one within a batch."""

    def _prepare_dataset(self, dataset: Any, _processing_class: Any, args: Any, *_args: Any, **_kwargs: Any) -> Any:
        size, answers = args.per_device_train_batch_size, dataset["completion_ids"]
        batches = [answers[start : start + size] for start in range(0, len(answers), size)]
        return dataset.add_column("KL_completion_ids", [ids for batch in batches for ids in [batch[-1], *batch[:-1]]])


def preference_trainer(
    run: Run, policy: Policy, files: VersionFiles, rows: list[dict[str, Any]], plan: Plan, *, method: str, beta: float, max_length: int
) -> tuple[Any, RunCallback]:
    """DPO or KTO with the start version as reference. Rows are in the order in which they are to be seen."""
    config, trainer_class = (trl.DPOConfig, DPOTrainer) if method == "dpo" else (trl.KTOConfig, KTOTrainer)
    args = arguments(config, run, policy.device, plan, beta=beta, max_length=max_length)
    metrics = {"loss": "train/loss", "grad_norm": "train/grad_norm", "learning_rate": "train/learning_rate"}
    for name in ("accuracies", "margins", "chosen", "rejected"):
        metrics[f"rewards/{name}"] = f"rewards/{name}"
    metrics["kl"] = "objective/kl"
    callback = RunCallback(run, plan, metrics)
    trainer = trainer_class(
        model=policy.model, args=args, train_dataset=Dataset.from_list(rows), processing_class=policy.tokenizer, callbacks=[callback]
    )
    callback.checks = start_checks(policy, trainer, files)
    return trainer, callback
