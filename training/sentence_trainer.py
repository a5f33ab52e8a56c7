"""The one door to sentence-transformers' trainers: their losses and loops, with our files, our checkpoints and our stop button.

As in `training.trl_common`, whose callback, checkpoint mark and loop are used here: nothing is reported anywhere, no model card
asks the hub, a checkpoint counts once its mark `complete` was written. Called by training.embedding and training.reranker.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import (
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import BatchSamplers

from training.run import Run
from training.trl_common import Plan, Quiet, RunCallback, fit

WARMUP = 0.1
METRICS = {"loss": "train/loss", "grad_norm": "train/grad_norm", "learning_rate": "train/learning_rate"}


class NoCard(Quiet):
    """Mixed into both: no examples are computed for a model card that nobody writes."""

    def add_model_card_callback(self, _default_args_dict: dict[str, Any]) -> None:
        return


class EmbeddingTrainer(NoCard, SentenceTransformerTrainer):
    """sentence-transformers' own, silent."""


class RerankerTrainer(NoCard, CrossEncoderTrainer):
    """sentence-transformers' own, silent."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One call of a trainer: rows of columns as the loss wants them, updates of `batch_size` rows, checkpoints in `folder`."""

    rows: dict[str, list[Any]]
    folder: Path
    phase: str
    batch_size: int
    learning_rate: float
    num_epochs: float
    seed: int
    save_steps: int
    weight_decay: float = 0.0


class LessonRun(Run):
    """The same run with another folder for checkpoints: each round has its own."""

    def __init__(self, run: Run, folder: Path) -> None:
        super().__init__(run.dir, run.job_id, run.home)
        self.checkpoints, self._whole = folder, run

    def should_stop(self) -> bool:
        return self._whole.should_stop()


def teach(run: Run, model: Any, loss: Any, lesson: Lesson) -> int:
    """Train `model` from the newest checkpoint in the lesson's folder to the end; returns the number of updates.

    Pairs of one batch never share a text, because each is a negative of the others. Raises StopRequested after saving.
    """
    is_embedding = hasattr(model, "encode")
    model._create_model_card = lambda *_args, **_kwargs: None  # every checkpoint would compute examples for one
    kind = SentenceTransformerTrainingArguments if is_embedding else CrossEncoderTrainingArguments
    device = str(model.device)
    args = kind(
        output_dir=str(lesson.folder),
        per_device_train_batch_size=lesson.batch_size,
        learning_rate=lesson.learning_rate,
        num_train_epochs=lesson.num_epochs,
        lr_scheduler_type="linear",
        warmup_steps=WARMUP,
        weight_decay=lesson.weight_decay,
        max_grad_norm=1.0,
        seed=lesson.seed,
        save_strategy="steps",
        save_steps=lesson.save_steps,
        save_total_limit=2,
        logging_steps=10,
        report_to="none",
        push_to_hub=False,
        disable_tqdm=True,
        use_cpu=device == "cpu",
        bf16=device != "cpu",
        dataloader_pin_memory=device != "cpu",
        batch_sampler=BatchSamplers.NO_DUPLICATES if is_embedding else BatchSamplers.BATCH_SAMPLER,
    )
    plan = Plan(lesson.phase, lesson.batch_size, lesson.learning_rate, lesson.seed, lesson.save_steps)
    one = LessonRun(run, lesson.folder)
    callback = RunCallback(one, plan, METRICS)
    trainer_class = EmbeddingTrainer if is_embedding else RerankerTrainer
    trainer = trainer_class(model=model, args=args, train_dataset=Dataset.from_dict(lesson.rows), loss=loss, callbacks=[callback])
    return fit(one, trainer, callback)
