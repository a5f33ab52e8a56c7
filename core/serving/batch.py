"""Decoding rows that come and go: continuous batching on top of `core.policy`.

A `Batch` holds the rows of one adapter. New rows are prefilled together and joined to the running ones at a step's boundary;
rows leave as soon as they end. Rows are left-padded, every row has its own temperature and its own stream of uniform
numbers, drawn exactly as `Policy.generate` draws them: the same seed gives the same answer here and in training (up to
rounding), whatever else stands in the batch. torch is imported inside functions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from core.policy import Policy, pick, row_seed

if TYPE_CHECKING:
    import torch

#: Room taken at once for further tokens, so that the cache is not copied at every step.
GROWTH = 128


@dataclass(eq=False, slots=True)
class Row:
    """One answer being written. `owner` is the scheduler's ticket; `ids` grows by one token per step."""

    prompt_ids: list[int]
    temperature: float
    seed: int
    max_new_tokens: int
    owner: Any = None
    ids: list[int] = field(default_factory=list)
    _uniforms: Any = None

    def uniform(self) -> float:
        """The number that decides the next token."""
        import torch

        if self._uniforms is None:
            generator = torch.Generator().manual_seed(row_seed(self.seed, 0))
            self._uniforms = torch.rand(self.max_new_tokens, generator=generator, dtype=torch.float64)
        return float(self._uniforms[len(self.ids)])


class Batch:
    """The rows of one adapter (None: the bare base) and their KV cache."""

    def __init__(self, policy: Policy, adapter: str | None) -> None:
        self.policy = policy
        self.adapter = adapter
        self.rows: list[Row] = []
        config = policy.model.config.get_text_config()
        #: rows can join a running batch only where every layer keeps the whole past
        self.can_join = set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        self._past: Any = None
        self._mask: Any = None  # (rows, tokens so far), 0 for padding

    def add(self, rows: Sequence[Row]) -> None:
        """Read the prompts of `rows` and write the first token of each. They must not be too long for the model."""
        import torch

        device = self.policy.device
        width = max(len(row.prompt_ids) for row in rows)
        ids = torch.full((len(rows), width), self.policy.pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row.prompt_ids) :] = torch.tensor(row.prompt_ids)
            mask[i, width - len(row.prompt_ids) :] = 1
        past = self._new_cache()
        mask = mask.to(device)
        self._forward(list(rows), ids.to(device), mask, past)
        if self.rows:
            with torch.inference_mode():
                for mine, theirs in zip(self._past.layers, past.layers, strict=True):
                    mine.append_rows(theirs)
            self._mask = _join_left_padded(self._mask, mask)
        else:
            self._past, self._mask = past, mask
        self.rows += rows

    def step(self) -> None:
        """Write one more token of every row."""
        import torch

        last = torch.tensor([[row.ids[-1]] for row in self.rows], device=self.policy.device)
        self._mask = torch.cat([self._mask, self._mask.new_ones((len(self.rows), 1))], dim=1)
        self._forward(self.rows, last, self._mask, self._past)

    def keep(self, indices: Sequence[int]) -> None:
        """Go on with these rows only, and drop the columns that none of them needs any more."""
        import torch

        self.rows = [self.rows[i] for i in indices]
        if not self.rows:
            self._past = self._mask = None
            return
        index = torch.tensor(list(indices), device=self.policy.device)
        with torch.inference_mode():
            self._past.batch_select_indices(index)
            self._mask = self._mask[index]
            unused = int(self._mask.argmax(dim=1).min())  # argmax: the first 1 of a row
            if unused and self.can_join:
                self._mask = self._mask[:, unused:]
                for layer in self._past.layers:
                    layer.drop_left(unused)

    def _forward(self, rows: list[Row], ids: torch.Tensor, mask: torch.Tensor, past: Any) -> None:
        import torch

        positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        temperatures = torch.tensor([row.temperature or 1.0 for row in rows], device=self.policy.device)
        uniforms = torch.tensor([row.uniform() for row in rows], dtype=torch.float64, device=self.policy.device)
        with torch.inference_mode(), self.policy.using(self.adapter) as model:
            output = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=past, use_cache=True, logits_to_keep=1
            )
            logits = output.logits[:, -1].float()
            sampled = pick(logits / temperatures[:, None], 1.0, uniforms).tolist()
            greedy = pick(logits, 0.0, uniforms).tolist()
        for row, drawn, best in zip(rows, sampled, greedy, strict=True):
            row.ids.append(best if row.temperature == 0 else drawn)

    def _new_cache(self) -> Any:
        from transformers import DynamicCache

        config = self.policy.model.config
        if not self.can_join:
            return DynamicCache(config=config)
        past = DynamicCache()
        past.layers = [_room_layer()() for _ in range(config.get_text_config().num_hidden_layers)]
        return past


def _join_left_padded(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    width = max(first.shape[1], second.shape[1])
    joined = first.new_zeros((len(first) + len(second), width))
    joined[: len(first), width - first.shape[1] :] = first
    joined[len(first) :, width - second.shape[1] :] = second
    return joined


@cache
def _room_layer() -> Any:
    from transformers.cache_utils import DynamicLayer

    class RoomLayer(DynamicLayer):  # type: ignore[misc]
        """`keys` and `values` are views (rows, heads, tokens so far, head size) of buffers with room for more tokens."""

        def __init__(self) -> None:
            super().__init__()
            self.buffers: list[torch.Tensor] = []
            self.end = 0

        def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> list[torch.Tensor]:
            states = (key_states, value_states)
            start, self.end = self.end, self.end + key_states.shape[2]
            if not self.buffers:
                self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
                self.buffers = [_with_room(state[:, :, :0], len(state), self.end) for state in states]
            elif self.end > self.buffers[0].shape[2]:
                self.buffers = [_with_room(buffer[:, :, :start], len(buffer), self.end) for buffer in self.buffers]
            for buffer, state in zip(self.buffers, states, strict=True):
                buffer[:, :, start : self.end] = state
            return self._view()

        def batch_select_indices(self, indices: torch.Tensor) -> None:
            self.buffers = [buffer[indices] for buffer in self.buffers]
            self._view()

        def drop_left(self, columns: int) -> None:
            self.buffers = [buffer[:, :, columns:] for buffer in self.buffers]
            self.end -= columns
            self._view()

        def append_rows(self, other: RoomLayer) -> None:
            """Both lots end in the same column; what stands left of a shorter one is zero and masked."""
            end = max(self.end, other.end)
            joined = []
            for mine, theirs in zip((self.keys, self.values), (other.keys, other.values), strict=True):
                buffer = _with_room(mine[:, :, :0], len(mine) + len(theirs), end)
                buffer[: len(mine), :, end - self.end : end] = mine
                buffer[len(mine) :, :, end - other.end : end] = theirs
                joined.append(buffer)
            self.buffers, self.end = joined, end
            self._view()

        def _view(self) -> list[torch.Tensor]:
            self.keys, self.values = (buffer[:, :, : self.end] for buffer in self.buffers)
            return [self.keys, self.values]

    return RoomLayer


def _with_room(held: torch.Tensor, num_rows: int, end: int) -> torch.Tensor:
    """A buffer for `end` tokens and more that begins with what is held. Zeros, because masked garbage could be NaN."""
    buffer = held.new_zeros((num_rows, held.shape[1], end + GROWTH, held.shape[3]))
    buffer[: len(held), :, : held.shape[2]] = held
    return buffer
