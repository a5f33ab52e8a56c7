"""What every language-model script shares: examples, length-bucketed batches, the loss, the learning rate, seeds, checkpoints.

Batches are bucketed by length (little padding) and depend on (seed, epoch) only, so a resumed run sees the same order without
storing it. Right padding needs no attention mask under causal attention: a real token never looks right. Logits are computed
only where a label stands; `trunk_and_head` checks once that this equals the model's own logits.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from core.errors import UserError
from core.home import Home
from core.policy import Policy
from training.run import Run

#: Below this many parameters one thread: a second brings a third where the cores are free and costs double where they are not
#: (measured in docs/training_notes.md).
SMALL_MODEL = 20_000_000
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids; the loss is taken from position `start` on (0: the whole text)."""

    ids: list[int]
    start: int


def prepare(home: Home, seed: int, num_parameters: int) -> None:
    """Seeds and threads, before anything random happens."""
    random.seed(seed)
    torch.manual_seed(seed)
    cores = home.settings.num_threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(cores if num_parameters >= SMALL_MODEL or home.settings.num_threads else 1)


def num_parameters(model: Any, *, trainable_only: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def bucketed(lengths: Sequence[int], *, tokens_per_batch: int, max_rows: int, seed: int) -> list[list[int]]:
    """All indices once, grouped by similar length, groups in random order; rows x longest stays within `tokens_per_batch`."""
    rng = random.Random(seed)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    order.sort(key=lambda i: lengths[i] + 8 * rng.random())
    batches: list[list[int]] = []
    batch: list[int] = []
    longest = 0
    for i in order:
        longest = max(longest, lengths[i])
        if batch and (longest * (len(batch) + 1) > tokens_per_batch or len(batch) == max_rows):
            batches.append(batch)
            batch, longest = [], lengths[i]
        batch.append(i)
    if batch:
        batches.append(batch)
    rng.shuffle(batches)
    return batches


def collate(rows: Sequence[Example], pad_id: int, device: str) -> tuple[Tensor, Tensor]:
    """(input_ids, labels), both (B, T), right-padded; labels are shifted already: labels[:, t] is the token after input t."""
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    labels = torch.full((len(rows), width), IGNORED)
    for r, row in enumerate(rows):
        tokens = torch.tensor(row.ids)
        ids[r, : len(tokens)] = tokens
        first = max(row.start, 1)
        labels[r, first - 1 : len(tokens) - 1] = tokens[first:]
    return ids.to(device), labels.to(device)


def trunk_and_head(model: Any, probe: Tensor | None = None) -> tuple[Any, Any]:
    """The transformer without its language-model head, and the head; adapters inside stay in force.

    With `probe` (1, T) of token ids: raises UserError("training.unsupported_head") for a model that does more between the two
    (scaled or capped logits), which would train on wrong probabilities without anybody noticing.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    trunk, head = inner.base_model, inner.get_output_embeddings()
    if probe is not None:
        with torch.no_grad():
            ours = head(trunk(input_ids=probe, use_cache=False)[0])
            theirs = inner(input_ids=probe, use_cache=False).logits
        if not torch.allclose(ours.float(), theirs.float(), atol=1e-2, rtol=1e-2):
            raise UserError("training.unsupported_head", model=type(inner).__name__)
    return trunk, head


def completion_loss(model: Any, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the labelled tokens of a batch."""
    trunk, head = trunk_and_head(model)
    hidden = trunk(input_ids=ids, use_cache=False)[0]
    wanted = labels != IGNORED
    return F.cross_entropy(head(hidden[wanted]).float(), labels[wanted])


def warmup_cosine(step: int, total: int, *, warmup: float = 0.05, floor: float = 0.1) -> float:
    """Factor of the learning rate at `step` of `total`: linear up, cosine down to `floor`."""
    rising = min(1.0, (step + 1) / max(1.0, warmup * total))
    return rising * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total)))))


def clip_and_step(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], max_norm: float = 1.0) -> float:
    """Clip the gradients' norm, step, clear; returns the norm before clipping."""
    norm = float(torch.nn.utils.clip_grad_norm_(list(parameters), max_norm))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep: int = 2) -> None:
    """Write `folder/step-N/state.pt` whole or not at all, then drop all but the newest `keep`."""
    target = folder / f"step-{step:07d}"
    scratch = folder / f".step-{step:07d}.{os.getpid()}"
    scratch.mkdir(parents=True)
    with (scratch / "state.pt").open("wb") as file:
        torch.save({"step": step, **state}, file)
        file.flush()
        os.fsync(file.fileno())  # else a power cut after the rename leaves a checkpoint of the right name and no content
    if target.exists():
        shutil.rmtree(target)
    scratch.replace(target)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint's state that can be read, or None. A damaged one is set aside and said; the one before it is kept for this."""
    for found in sorted(folder.glob("step-*/state.pt"), reverse=True):
        try:
            state: dict[str, Any] = torch.load(found, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, LookupError, pickle.UnpicklingError) as error:
            print(f"checkpoint {found.parent.name} is damaged ({type(error).__name__}); going on from the one before", flush=True)
            found.parent.replace(folder / f"damaged-{found.parent.name}-{os.getpid()}")
            continue
        return state
    return None


def adapter_tensors(policy: Policy, adapter: str) -> dict[str, Tensor]:
    """The adapter's tensors by name (those that PEFT writes), as they are in memory.

    Embeddings are never part of ours; on "auto" PEFT would look for the base's config on the hub to find out.
    """
    from peft import get_peft_model_state_dict

    state: dict[str, Tensor] = get_peft_model_state_dict(policy.model, adapter_name=policy.key_of(adapter), save_embedding_layers=False)
    return {name: tensor.detach() for name, tensor in state.items()}


def save_adapter(policy: Policy, adapter: str, folder: Path) -> None:
    """Write a plain PEFT folder (adapter_model.safetensors, adapter_config.json), whatever the adapter is called in memory."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in adapter_tensors(policy, adapter).items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = policy.model.peft_config[policy.key_of(adapter)]
    was, config.inference_mode = config.inference_mode, True
    config.save_pretrained(str(folder))  # names the base by its version, not by a path: the data folder may move
    config.inference_mode = was


def replace_folder(scratch: Path, target: Path) -> None:
    """Put a finished folder in place; a rerun of the same job replaces what it wrote before."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    scratch.replace(target)


def fit(
    run: Run,
    model: Any,
    examples: Sequence[Example],
    *,
    phase: str,
    num_epochs: float,
    batch_size: int,
    tokens_per_batch: int,
    learning_rate: float,
    seed: int,
    save_steps: int,
    pad_id: int,
    device: str,
    weight_decay: float = 0.01,
) -> dict[str, float]:
    """Train what requires a gradient on `examples` with AdamW and a warm-up-cosine schedule; resumes from `run.checkpoints`.

    Returns the mean loss of the last 20 updates, the number of updates, and labelled tokens seen by this attempt.
    Raises StopRequested after saving when a person asked for it.
    """
    lengths = [len(example.ids) for example in examples]
    first = bucketed(lengths, tokens_per_batch=tokens_per_batch, max_rows=batch_size, seed=seed)
    total = max(1, round(num_epochs * len(first)))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=learning_rate, betas=(0.9, 0.95), weight_decay=weight_decay, fused=True)
    step, losses = 0, list[float]()
    if state := load_checkpoint(run.checkpoints):
        with torch.no_grad():
            for name, p in trained.items():
                p.copy_(state["weights"][name])
        optimizer.load_state_dict(state["optimizer"])
        step, losses = state["step"], state["losses"]
        trim_metrics(run, step)
        print(f"resumed at update {step} of {total}", flush=True)

    def save() -> None:
        weights = {name: p.detach() for name, p in trained.items()}
        save_checkpoint(run.checkpoints, step, {"weights": weights, "optimizer": optimizer.state_dict(), "losses": losses[-20:]})

    num_tokens, started = 0, time.monotonic()
    model.train()
    run.progress(phase, step, total)
    epoch, batches = -1, first
    while step < total:
        if step // len(first) != epoch:  # every epoch has its own order and as many batches as the first, give or take the buckets
            epoch = step // len(first)
            batches = bucketed(lengths, tokens_per_batch=tokens_per_batch, max_rows=batch_size, seed=seed + 7919 * epoch)
        ids, labels = collate([examples[i] for i in batches[step % len(first) % len(batches)]], pad_id, device)
        factor = warmup_cosine(step, total)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * factor
        loss = completion_loss(model, ids, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_and_step(optimizer, trained.values())
        losses = [*losses[-19:], float(loss.detach())]
        num_tokens += int((labels != IGNORED).sum())
        step += 1
        if step % 10 == 0 or step == total:
            speed = num_tokens / (time.monotonic() - started)
            mean = sum(losses) / len(losses)
            run.log(step, **{"train/loss": mean, "train/grad_norm": norm, "train/learning_rate": learning_rate * factor})
            run.progress(phase, step, total)
            if step % 100 == 0 or step == total:
                print(f"{phase} {step}/{total} loss {mean:.3f} {speed:.0f} tokens/s", flush=True)
        if step % save_steps == 0 or run.should_stop():
            save()
            run.leave_if_stopped()
    model.eval()
    return {"loss": sum(losses) / max(1, len(losses)), "num_updates": float(total), "num_tokens": float(num_tokens)}


def trim_metrics(run: Run, step: int) -> None:
    """Drop metric lines written after the checkpoint that a resumed run starts from: they will be written again."""
    path = run.dir / "metrics.jsonl"
    if path.is_file():
        kept = [line for line in path.read_text("utf-8").splitlines() if line.endswith("}") and json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), "utf-8")
