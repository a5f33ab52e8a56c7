"""A finished GGUF file: what it says about its model, and the Modelfile with which Ollama takes it in.

Reading needs the package `gguf` alone, no llama.cpp. Called by the export job and its tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import UserError

#: what the converter writes itself, and what llama.cpp has to be built for
DIRECT = ("f16", "bf16", "f32", "q8_0")
QUANTS = ("Q4_K_M", "Q5_K_M", "Q6_K")
#: metadata (below the architecture's name) -> the config's name for the same
SAME = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "context_length": "max_position_embeddings",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
#: a chat as ChatML writes it; a template that gives this back is written for Ollama as CHATML
PROBE = [{"role": "system", "content": "S 1"}, {"role": "user", "content": "U 2"}]
PROBE_TEXT = "<|im_start|>system\nS 1<|im_end|>\n<|im_start|>user\nU 2<|im_end|>\n<|im_start|>assistant\n"
CHATML = "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"


def metadata(file: Path) -> dict[str, Any]:
    """Numbers and texts of a GGUF file's header (arrays left out). Raises UserError("expansion_export.bad_gguf")."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(file))
        found = {name: field.contents() for name, field in reader.fields.items() if len(field.types) == 1}
        sizes = [int(tensor.n_elements) for tensor in reader.tensors]
    except (OSError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError) as error:  # the reader trusts every offset
        raise UserError("expansion_export.bad_gguf", file=file.name, reason=str(error)) from error
    return {**found, "num_tensors": len(sizes), "num_parameters": sum(sizes)}


def differences(about: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """Where a file's header says something else than the model's config.json; empty when every shape and constant agrees."""
    known = {**config, **(config.get("rope_parameters") or {})}
    architecture = about.get("general.architecture", "")
    wrong = []
    for name, ours in SAME.items():
        said, meant = about.get(f"{architecture}.{name}"), known.get(ours)
        if said is not None and meant is not None and not math.isclose(float(said), float(meant), rel_tol=1e-6):
            wrong.append(f"{name} {said} != {ours} {meant}")
    if f"{architecture}.block_count" not in about:
        wrong.append("block_count is missing")
    return wrong


def modelfile(
    gguf: str, *, instruction: str, render: Callable[[list[dict[str, str]]], str], context: int, stops: list[str]
) -> tuple[str, bool]:
    """The Modelfile's text, and whether it holds a template.

    `render` is the tokenizer's own chat template. Ollama's templates are written in Go: one is added only where the tokenizer's
    is ChatML to the letter; for any other model Ollama has to know the template itself, and the caller says so.
    """
    is_chatml = render(PROBE) == PROBE_TEXT
    lines = [f"FROM ./{gguf}"]
    if is_chatml:
        lines.append(f'TEMPLATE """{CHATML}"""')
    lines.append(f'SYSTEM """{instruction}"""')
    lines += [f"PARAMETER stop {stop}" for stop in stops]
    lines += ["PARAMETER temperature 0", f"PARAMETER num_ctx {context}"]
    return "\n".join(lines) + "\n", is_chatml
