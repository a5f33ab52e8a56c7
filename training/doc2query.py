"""Train a question writer from (question, passage) pairs, and try it out: do its questions help to find passages?

Pairs are read as for embeddings (`training.retrieval_pairs`); questions kept aside, and those of an `exclude` file, are never
trained on. AdamW, warm-up and cosine, resumable, the same for our own model and a Hugging Face one; beside it the words that
questions about a passage are expected to hold are learnt from the same pairs. Afterwards the writer writes for some passages,
those of the held-out questions among them; its questions join a small index, and recall@10 with and without them is part of the
result. Then the folder is registered (kind doc2query) for `core.retrieval.writers.open_writer`.

    python -m training.doc2query --run-dir DIR        (config.json: core.jobs.configs_doc2query.Doc2QueryConfig)
"""

from __future__ import annotations

import json
import shutil
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from core.errors import UserError
from core.home import Home
from core.jobs.configs_doc2query import Doc2QueryConfig
from core.retrieval import retrieval_models
from core.retrieval.writers import read_writer
from training.causal import (
    bucketed,
    clip_and_step,
    load_checkpoint,
    prepare,
    replace_folder,
    save_checkpoint,
    trim_metrics,
    warmup_cosine,
)
from training.doc2query_models import SCRATCH, Learner, Pair, make_learner, random_spans
from training.doc2query_trial import try_out
from training.question_words import learn_question_words
from training.retrieval_pairs import Judged, Material, read_material
from training.run import Run, main

MAX_ROWS = 128
EVAL_ROWS = 64
WEIGHT_DECAY = 0.05


def train_writer(run: Run) -> None:
    """Read, train, save, try out, register."""
    config = run.config(Doc2QueryConfig)
    retrieval_models.check_name(config.name, job_id=run.job_id)
    prepare(run.home, config.seed, num_parameters=0)
    material = read_material(config, run.home)
    excluded = read_excluded(run.home, config.exclude)
    train = pairs_of(material.train, material, config.min_grade, excluded)
    held = pairs_of(material.held_out, material, config.min_grade, frozenset())
    if len(train) < 10:
        raise UserError("doc2query.too_few_pairs", num=len(train))
    texts = sorted(material.passages.values())
    learner = make_learner(config, train, texts)
    num_parameters = sum(p.numel() for p in learner.parameters.values())
    print(f"{len(train)} pairs, {len(held)} held out, {num_parameters} parameters", flush=True)

    started = time.monotonic()
    spans = random_spans(texts, config.num_spans, config.max_source, config.seed) if config.base == SCRATCH else []
    trained = fit(run, learner, spans, train, held, config)
    target = retrieval_models.models_folder(run.home, config.name)
    scratch = run.dir / "writer"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    learner.save(scratch)
    words = learn_question_words(train)
    if words is not None:
        words.save(scratch)
    replace_folder(scratch, target)
    metrics: dict[str, Any] = {**trained, "train_s": round(time.monotonic() - started, 1)}

    # the held-out questions are the only ones that the writer has not seen: they judge it
    examples: list[dict[str, Any]] = []
    if config.num_tried:
        tried = try_out(run, read_writer(target, config.name), material, config)
        examples = tried.pop("examples")
        metrics |= tried
    manifest = {
        "config": config.model_dump(),
        "source": material.source,
        "num_pairs": len(train),
        "num_parameters": num_parameters,
        "excluded": len(excluded),
        "entries": metrics.get("entries", "none"),
        "examples": examples,
        "torch": torch.__version__,
    }
    base = "" if config.base == SCRATCH else config.base
    row = retrieval_models.register(
        run.home,
        kind="doc2query",
        name=config.name,
        form=SCRATCH if not base else "hub",
        folder=target,
        base=base,
        metrics=metrics,
        manifest=manifest,
        job_id=run.job_id,
    )
    run.result(writer=config.name, content_hash=row.content_hash, num_pairs=len(train), examples=examples, **metrics)


def read_excluded(home: Home, wanted: str) -> frozenset[str]:
    """Questions that must not be trained on, reduced by `same`. Raises UserError("embedding.no_pairs_file" / "embedding.bad_pairs")."""
    if not wanted:
        return frozenset()
    path = home.root / Path(wanted).expanduser()
    if not path.is_file():
        raise UserError("embedding.no_pairs_file", path=path)
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return frozenset(same(str(row["text"] if "text" in row else row["query"])) for row in rows)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError("embedding.bad_pairs", path=path, reason=f"{type(error).__name__}: {error}") from error


def same(question: str) -> str:
    """What two wordings share that differ only in case, spaces and marks."""
    return "".join(c for c in unicodedata.normalize("NFKC", question).lower() if c.isalnum())


def pairs_of(judged: Sequence[Judged], material: Material, min_grade: float, excluded: frozenset[str]) -> list[Pair]:
    """One pair per question and passage relevant enough, in a fixed order."""
    kept = [one for one in judged if same(one.query) not in excluded]
    return [(one.query, material.passages[i]) for one in kept for i in one.positives if one.grades[i] >= min_grade]


def fit(
    run: Run, learner: Learner, spans: Sequence[Pair], train: Sequence[Pair], held: Sequence[Pair], config: Doc2QueryConfig
) -> dict[str, float]:
    """Train on the spans once, then on the pairs; resumes from `run.checkpoints`.

    Returns loss on training and held-out pairs (nats per piece) and the updates. Raises StopRequested after saving when a
    person asked for it.
    """
    examples, held_examples = learner.examples(train), learner.examples(held)
    span_examples = learner.examples(spans)

    def order(some: Sequence[Any], epoch: int) -> list[list[int]]:
        lengths = [learner.length(e) for e in some]
        return bucketed(lengths, tokens_per_batch=config.tokens_per_batch, max_rows=MAX_ROWS, seed=config.seed + 7919 * epoch)

    span_batches = order(span_examples, 0) if span_examples else []
    per_epoch = len(order(examples, 0))
    total = len(span_batches) + max(1, round(config.num_epochs * per_epoch))
    rate = config.learning_rate or learner.learning_rate
    trained = {name: p for name, p in learner.parameters.items() if p.requires_grad}
    decayed = [{"params": [p for p in trained.values() if (p.dim() > 1) is d], "weight_decay": WEIGHT_DECAY * d} for d in (True, False)]
    optimizer = torch.optim.AdamW(decayed, lr=rate, betas=(0.9, 0.98), fused=True)
    step, losses = 0, list[float]()
    if state := load_checkpoint(run.checkpoints):
        with torch.no_grad():
            for name, p in trained.items():
                p.copy_(state["weights"][name])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])  # dropout goes on as it would have
        step, losses = state["step"], state["losses"]
        trim_metrics(run, step)
        print(f"resumed at update {step} of {total}", flush=True)

    run.progress("train", step, total)
    batches: list[list[int]] = []
    while step < total:
        epoch, place = divmod(step - len(span_batches), per_epoch)
        if epoch >= 0 and (not batches or place == 0):
            batches = order(examples, epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate * warmup_cosine(step, total, floor=0.05)
        rows = [examples[i] for i in batches[place % len(batches)]] if epoch >= 0 else [span_examples[i] for i in span_batches[step]]
        loss = learner.loss(rows, is_training=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_and_step(optimizer, trained.values())
        losses = [*losses[-49:], float(loss.detach())]
        step += 1
        if step % 10 == 0 or step == total:
            mean = sum(losses) / len(losses)
            run.log(step, **{"train/loss": mean, "train/grad_norm": norm})
            run.progress("train", step, total)
        if (step > len(span_batches) and place == per_epoch - 1) or step == total:
            held_loss = mean_loss(learner, held_examples)
            run.log(step, **{"train/loss": sum(losses) / len(losses), "eval/loss": held_loss})
            print(f"update {step}/{total} loss {sum(losses) / len(losses):.3f} held out {held_loss:.3f}", flush=True)
        if step % config.save_steps == 0 or step == total or run.should_stop():
            weights = {name: p.detach() for name, p in trained.items()}
            state = {"weights": weights, "optimizer": optimizer.state_dict(), "losses": losses, "random": torch.get_rng_state()}
            save_checkpoint(run.checkpoints, step, state)
            run.leave_if_stopped()
    return {"loss": sum(losses) / len(losses), "held_out_loss": mean_loss(learner, held_examples), "num_updates": float(total)}


def mean_loss(learner: Learner, examples: Sequence[Any]) -> float:
    """Mean of the batches' losses, without dropout."""
    with torch.no_grad():
        parts = [examples[i : i + EVAL_ROWS] for i in range(0, len(examples), EVAL_ROWS)]
        values = [float(learner.loss(part, is_training=False)) * len(part) for part in parts]
    return sum(values) / max(1, len(examples))


if __name__ == "__main__":
    main(train_writer)
