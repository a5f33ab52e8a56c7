"""One learner on several processes, by accelerate: rows are sampled and measured in shares, minibatches are split evenly.

The maths stays that of one process: every process holds the whole rollout (token ids and one float per token are small), a
minibatch's loss is divided by the tokens of the WHOLE minibatch, and gradients are summed. Nothing is wrapped in DDP: one
all-reduce per minibatch is all there is to synchronise. Sharded weights (FSDP, ZeRO-3) are not supported. Called by
training.ppo_learner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

V = TypeVar("V")


class Processes:
    """`accelerator` is an `accelerate.Accelerator`, or None for one process."""

    def __init__(self, accelerator: Any = None) -> None:
        self.accelerator = accelerator
        self.count: int = accelerator.num_processes if accelerator else 1
        self.rank: int = accelerator.process_index if accelerator else 0

    def share(self, num_rows: int) -> list[int]:
        """The rows of a rollout that this process samples."""
        return list(range(self.rank, num_rows, self.count))

    def part(self, batch: Sequence[int]) -> list[int]:
        """The rows of a minibatch that this process computes (possibly none)."""
        return list(batch[self.rank :: self.count])

    def gather(self, own: dict[int, V]) -> dict[int, V]:
        """The union of every process's dictionary."""
        if self.count == 1:
            return own
        parts: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(parts, own)
        return {key: value for part in parts for key, value in part.items()}

    def sum(self, tensor: Tensor) -> Tensor:
        """The element-wise sum over processes."""
        if self.count > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace every gradient by its sum over processes, in one message."""
        if self.count == 1:
            return
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
        torch.distributed.all_reduce(flat)
        for p, grad in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
            p.grad = grad.view_as(p)
