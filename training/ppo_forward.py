"""PPO's forward passes: log-probabilities and values of response tokens, flat and in row order.

Only response tokens are kept and nothing depends on how rows are grouped, so splitting a minibatch never changes its loss. On a
CPU rows are packed: all their tokens stand in one line without padding, and attention alone looks at each row by itself. On a
GPU, and for models whose attention cannot be exchanged, rows of similar length are padded on the right. Which of the two is
used is decided once, by comparing them. Logits are made for response tokens only and in chunks. Called by training.ppo_learner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from core.jobs.configs import PPOConfig
from core.policy import Policy
from training.causal import trunk_and_head
from training.ppo_critic import Critic

#: tokens per forward pass: packed ones on a CPU, padded ones on a GPU
MICRO_TOKENS = {"cpu": 2048, "cuda": 8192}
#: logits are made for this many (token, vocabulary) pairs at a time
LOGITS_AT_ONCE = 2**27
PACKED = "consilium_packed"


def packed_attention(
    _module: Any, query: Tensor, key: Tensor, value: Tensor, _mask: Tensor | None, scaling: float | None = None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Causal attention inside each of the rows that stand one after the other; (1, heads, N, size) -> (1, N, heads, size).

    Comes to know the rows from the keyword `row_lengths`, which transformers hands through to every layer.
    """
    lengths = kwargs["row_lengths"]
    if (groups := query.shape[1] // key.shape[1]) > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    rows = zip(torch.split(query, lengths, 2), torch.split(key, lengths, 2), torch.split(value, lengths, 2), strict=True)
    found = [F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling) for q, k, v in rows]
    return torch.cat(found, 2).transpose(1, 2), None


class ResponseForward:
    """Forward passes over (query, response) rows of one policy; enter `session` around everything that runs or back-propagates."""

    def __init__(self, policy: Policy, config: PPOConfig) -> None:
        self.policy, self.temperature = policy, config.temperature
        on_gpu = policy.device.startswith("cuda")
        self.max_tokens = config.micro_batch_tokens or MICRO_TOKENS["cuda" if on_gpu else "cpu"]
        self.checkpointing = config.gradient_checkpointing == "on" or (config.gradient_checkpointing == "auto" and on_gpu)
        self.autocast = on_gpu and policy.model.dtype == torch.bfloat16
        self.is_packed = False
        self.is_packed = policy.device == "cpu" and self._can_pack()

    def _can_pack(self) -> bool:
        """Whether packed rows have the states of padded ones: tried on two short rows."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        text = self.policy.model.config.get_text_config()
        if set(getattr(text, "layer_types", None) or ["full_attention"]) != {"full_attention"} or text._attn_implementation != "sdpa":
            return False
        ALL_ATTENTION_FUNCTIONS.register(PACKED, packed_attention)
        top = min(text.vocab_size, 40)
        queries, responses = [[i % top for i in range(7)], [3 % top]], [[1, 2 % top], [i % top for i in range(9, 14)]]
        found = []
        for self.is_packed in (False, True):
            try:
                with torch.no_grad(), self.session(self.policy.model) as model:
                    found.append(self.states(model, queries, responses, [0, 1]))
            except (KeyError, TypeError):  # a model that does not hand keywords through
                return False
        return torch.allclose(found[0], found[1], atol=1e-4, rtol=1e-4)

    @contextmanager
    def session(self, model: Any, *, learns: bool = False) -> Iterator[Any]:
        """The model made ready: packed attention, gradient checkpointing, bfloat16 autocast; as it was afterwards."""
        text = model.config.get_text_config()
        was = text._attn_implementation
        layers = checkpointed_layers(model) if learns and self.checkpointing else []
        try:
            if self.is_packed:
                text._attn_implementation = PACKED
            for layer in layers:  # only the layers' own switch: training mode inside them would turn dropout on
                layer.training = True
            with torch.autocast("cuda", torch.bfloat16, enabled=self.autocast):
                yield model
        finally:
            text._attn_implementation = was
            for layer in layers:
                layer.training = False

    def micro_batches(self, queries: list[list[int]], responses: list[list[int]], rows: Sequence[int]) -> Iterator[list[int]]:
        """`rows` in groups of similar length, each of at most `max_tokens` tokens (or one row)."""
        group: list[int] = []
        tokens = 0
        for row in sorted(rows, key=lambda i: -(len(queries[i]) + len(responses[i]))):
            length = len(queries[row]) + len(responses[row])
            longest = len(queries[group[0]]) + len(responses[group[0]]) if group else length
            if group and (tokens + length if self.is_packed else longest * (len(group) + 1)) > self.max_tokens:
                yield group
                group, tokens = [], 0
            group.append(row)
            tokens += length
        if group:
            yield group

    def states(self, model: Any, queries: list[list[int]], responses: list[list[int]], rows: Sequence[int]) -> Tensor:
        """The trunk's states (N, width) that predict the response tokens of `rows`, flat, in row order."""
        whole = [queries[i] + responses[i] for i in rows]
        lengths = [len(ids) for ids in whole]
        trunk, _ = trunk_and_head(model)
        if self.is_packed:
            ids = torch.tensor([[token for row in whole for token in row]])
            positions = torch.cat([torch.arange(n) for n in lengths])[None]
            starts = [sum(lengths[:r]) + len(queries[i]) - 1 for r, i in enumerate(rows)]
            predicts = torch.cat([torch.arange(s, s + len(responses[i])) for s, i in zip(starts, rows, strict=True)])
            packed: Tensor = trunk(input_ids=ids, position_ids=positions, use_cache=False, row_lengths=lengths)[0][0]
            return packed[predicts]
        ids = torch.full((len(rows), max(lengths)), self.policy.pad_id)
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        for r, i in enumerate(rows):
            ids[r, : lengths[r]] = torch.tensor(whole[r])
            mask[r, len(queries[i]) - 1 : lengths[r] - 1] = True
        padded: Tensor = trunk(input_ids=ids.to(self.policy.device), use_cache=False)[0]
        return padded[mask.to(self.policy.device)]

    def __call__(
        self, model: Any, critic: Critic | None, queries: list[list[int]], responses: list[list[int]], rows: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """(log-probabilities, values) of all response tokens of `rows`, flat, in row order, both float32. The value at a token is
        that of the state that predicts it; without a critic the second is empty."""
        targets = torch.tensor([token for i in rows for token in responses[i]], device=self.policy.device)
        hidden = self.states(model, queries, responses, rows)
        _, head = trunk_and_head(model)

        def logprobs_of(states: Tensor, tokens: Tensor) -> Tensor:
            logits = head(states).float()
            return -F.cross_entropy(logits if self.temperature == 1 else logits / self.temperature, tokens, reduction="none")

        size = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
        if len(hidden) <= size:
            logprobs = logprobs_of(hidden, targets)
        else:  # logits of a chunk are made again for the backward pass instead of being kept
            chunks = zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
            logprobs = torch.cat([checkpoint(logprobs_of, h, token, use_reentrant=False) for h, token in chunks])
        with torch.autocast("cuda", enabled=False):
            return logprobs, critic(hidden, [len(responses[i]) for i in rows]) if critic is not None else hidden.new_zeros(0)


def checkpointed_layers(model: Any) -> list[Any]:
    """The layers whose activations are made again in the backward pass."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if layers and not layers[0].gradient_checkpointing:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        inner.activation_checkpointing_enable({"use_reentrant": False})
    return layers
