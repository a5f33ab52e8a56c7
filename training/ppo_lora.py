"""LoRA without its extra matrix products: every adapted linear layer computes with W + scale * B A, made once per use.

PEFT computes `W x + scale * B (A x)`: two thin products, a scaling and an addition per layer more, for every token. Here the sum
is made once (per minibatch when training, per rollout when sampling) and used for all tokens; the backward pass goes through the
same merged matrix and then takes the gradients of A and B alone, which needs no gradient of the full matrix. The base's weights
are never touched, so hashes of the base and of the reference stay what they are. Only float32 layers are merged: in bfloat16
the sum would lose the low bits of an update that is small against W. Layers that are anything but plain LoRA on `nn.Linear`
(dropout in force, DoRA, biases of their own, several adapters) keep PEFT's forward.

Called by training.ppo_learner. Invariant (tested): outputs and gradients equal PEFT's to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class MergedLinear(torch.autograd.Function):
    """y = x M^T + b with M = W + s B A given; gradients of x, A and B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, merged: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x, merged, a, b)
        ctx.scale = scale
        return F.linear(x, merged, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        flat, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        through = flat @ (ctx.scale * b)  # (N, r)
        grad_a = through.T @ inputs if ctx.needs_input_grad[3] else None
        grad_b = flat.T @ (inputs @ (ctx.scale * a).T) if ctx.needs_input_grad[4] else None
        grad_x = (flat @ merged).view_as(x) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, grad_a, grad_b, None


def plain_lora(module: Any, key: str) -> bool:
    """Whether `module` is plain float32 LoRA on a linear layer, with this adapter and nothing else in force."""
    from peft.tuners.lora import Linear

    if not isinstance(module, Linear) or key not in module.lora_A or module.merged or key in module.lora_variant:
        return False
    base, dropout = module.get_base_layer(), module.lora_dropout[key]
    return (
        type(base) is torch.nn.Linear
        and not module.fan_in_fan_out
        and module.lora_A[key].bias is None
        and module.lora_B[key].bias is None
        and base.weight.dtype == module.lora_A[key].weight.dtype == torch.float32
        and (isinstance(dropout, torch.nn.Identity) or not dropout.training)
    )


def merged_forward(module: Any, key: str) -> Callable[..., Tensor]:
    """A replacement of `module.forward` for the adapter's weights as they are now."""
    base, a, b, scale = module.get_base_layer(), module.lora_A[key].weight, module.lora_B[key].weight, module.scaling[key]
    with torch.no_grad():
        merged = torch.addmm(base.weight, b, a, alpha=scale)

    def run(x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
        if torch.is_grad_enabled():
            out: Tensor = MergedLinear.apply(x, merged, base.bias, a, b, scale)  # type: ignore[no-untyped-call]
            return out
        return F.linear(x, merged, base.bias)

    return run


class MergedAdapter:
    """`with MergedAdapter(model, key):` runs every layer that can be merged with adapter `key` merged, for its weights as they
    are on entry; they must not change inside the block, and the adapter must be the active one."""

    def __init__(self, model: Any, key: str) -> None:
        self.key = key
        self.modules = [module for module in model.modules() if plain_lora(module, key)]

    def __enter__(self) -> None:
        for module in self.modules:
            module.forward = merged_forward(module, self.key)

    def __exit__(self, *_exc: object) -> None:
        for module in self.modules:
            del module.forward
