"""What a training will cost before it starts: tokens, USD, hours and peak memory, from the config and a handful of facts.

Pure arithmetic, every formula in a docstring; nothing is loaded. `core.estimate_facts.facts_for` gathers the facts, and corrects
the time by what earlier runs on this machine took (`Facts.time_factor`). The numbers are estimates and say so: `seconds_low` to
`seconds_high` is the range in which the truth should lie. Shown before the start button of the Jobs page, written by the trainings as
estimate.json beside actuals.json (`training.actuals`), which has the same keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from core.jobs.configs import JobConfig

#: bytes of a trained number: fp32 weight, gradient, and AdamW's two moments
TRAINED_BYTES = 16
#: bytes of activations per token, layer and unit of width that a layer keeps for its backward pass in 16 bit (34 in arXiv
#: 2205.05198 eq. 2, without the attention matrix, which scaled-dot-product attention does not keep)
ACTIVATION_BYTES_16 = 34
#: logits are made for this many (token, vocabulary) pairs at a time, in fp32, with their gradient
LOGITS_CHUNK = 2**27
#: what a process holds before the first weight: libraries, and on a GPU its context and kernels
RUNTIME_BYTES = {"cpu": 0.6e9, "cuda": 1.2e9}
#: padded tokens of one forward pass when the config does not say
MICRO_TOKENS = {"cpu": 1536, "cuda": 8192}
#: seconds until a process has loaded its libraries
START_S = {"cpu": 8.0, "cuda": 20.0}
#: seconds that one layer costs at every generated token or training pass whatever its size: dispatch and kernel launches
LAYER_OVERHEAD_S = {"cpu": 0.4e-3, "cuda": 0.8e-3}
#: share of a random completion's limit that is used when no earlier run says how long answers are
USED_OF_LIMIT = 0.6
#: a first run may take this many times longer or shorter than the formulas say; after earlier runs, than the slowest and the fastest
SPREAD, SPREAD_CALIBRATED = 2.5, 1.4


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A causal language model by its config.json. `num_parameters` includes embeddings; `intermediate` is the MLP's width."""

    num_parameters: int
    num_layers: int
    hidden: int
    intermediate: int
    vocab: int
    num_heads: int
    num_kv_heads: int
    head_dim: int

    def num_lora(self, rank: int) -> int:
        """Parameters of a LoRA of `rank` on all seven linear layers of a block: r * (in + out) each (arXiv 2106.09685)."""
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = (self.hidden + q) + 2 * (self.hidden + kv) + (q + self.hidden)
        return self.num_layers * rank * (attention + 3 * (self.hidden + self.intermediate))


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Where it runs: `flops` per second that a training reaches, memory `bandwidth` in bytes/s, `memory` in bytes (None: unknown)."""

    kind: str
    name: str
    flops: float
    bandwidth: float
    memory: float | None
    num_devices: int = 1


@dataclass(frozen=True, slots=True)
class TeacherFacts:
    """What judging costs: USD per million tokens; None for an endpoint without a known price, 0 for the offline teacher."""

    name: str
    is_offline: bool
    usd_per_mtok_in: float | None
    usd_per_mtok_out: float | None
    #: tokens of rubric and instructions around every completion, and of a verdict
    prompt_overhead: int = 900
    verdict_tokens: int = 180
    #: share of the questions that the cache answers
    cached_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything an estimate needs beside the config. `model` is None when the base's config is not on this machine (a hub name)."""

    model: ModelFacts | None
    device: DeviceFacts
    teacher: TeacherFacts
    #: prompts the job would read, and their mean length in tokens
    num_prompts: int
    prompt_tokens: float
    #: mean tokens of a reference answer (SFT) and of a sampled answer; None: unknown
    reference_tokens: float
    response_tokens: float | None
    #: rank of the adapter that is trained on or from
    lora_r: int = 16
    #: actual / estimated seconds of earlier runs of this kind on this machine: median, least, most; their number and their jobs
    time_factor: float = 1.0
    least_factor: float | None = None
    most_factor: float | None = None
    num_earlier: int = 0
    earlier_jobs: tuple[int, ...] = ()


@dataclass(slots=True)
class _Work:
    """What a training does, in the units that cost something."""

    samples: int = 0
    prompt: float = 0.0
    generated: float = 0.0
    trained: float = 0.0
    flops: float = 0.0
    passes: float = 0.0
    decode_steps: float = 0.0
    decode_rows: float = 1.0
    teacher_calls: float = 0.0


def estimate(kind: str, config: JobConfig, facts: Facts) -> dict[str, Any] | None:
    """The estimate of a job kind, or None for kinds that have none (they take seconds and no teacher)."""
    known = {"ppo": estimate_ppo, "grpo": estimate_grpo, "sft": estimate_sft, "evaluate": estimate_evaluate}
    return known[kind](config, facts) if kind in known else None


def estimate_ppo(config: JobConfig, facts: Facts) -> dict[str, Any]:
    """PPO on a LoRA adapter with the SFT adapter as reference on the same base.

    Samples N = num_rollouts * rollout_batch_size, or num_prompt_epochs passes over the prompts; tokens per sample s = prompt +
    response. FLOPs with P parameters of the base: 2P per token of prefill and decoding, 2P for the old log-probabilities and
    values, 2P for the reference, and per PPO epoch 4P (forward, and backward through activations only: the base is frozen), 6P
    with gradient checkpointing. Attention adds 4 * layers * width * s / 2 per token and pass. The teacher is asked once per
    finished sample.
    """
    batch, passes = _get(config, "rollout_batch_size", 1), _get(config, "num_prompt_epochs", 0)
    samples = int(
        batch * (math.ceil(passes * facts.num_prompts / batch) if passes and facts.num_prompts else _get(config, "num_rollouts", 1))
    )
    response = _response(config, facts)
    epochs = _get(config, "num_ppo_epochs", 1)
    work = _rollouts(facts, samples, batch, response, int(_get(config, "max_new_tokens", 256)))
    _learn(work, facts, samples, facts.prompt_tokens + response, epochs, measures=2, checkpointing=_checkpoints(config, facts))
    memory = _memory(config, facts, rows=batch, num_adapters=2, has_value_head=True)
    return _report("ppo", facts, work, memory)


def estimate_grpo(config: JobConfig, facts: Facts) -> dict[str, Any]:
    """GRPO: as PPO without a critic. Samples N = steps * completions per step; the reference costs a pass only when beta > 0;
    num_iterations passes over each group."""
    batch = _get(config, "rollout_batch_size", 0) or _get(config, "batch_size", 16)
    steps = _get(config, "num_rollouts", 0) or _get(config, "num_steps", 0) or _get(config, "max_steps", 1)
    samples = int(steps * batch)
    response = _response(config, facts)
    beta = _get(config, "beta", _get(config, "kl_coef", 0.04))
    work = _rollouts(facts, samples, int(batch), response, int(_get(config, "max_new_tokens", _get(config, "max_completion_length", 256))))
    epochs = _get(config, "num_iterations", 1)
    _learn(
        work, facts, samples, facts.prompt_tokens + response, epochs, measures=2 if beta else 1, checkpointing=_checkpoints(config, facts)
    )
    memory = _memory(config, facts, rows=int(batch), num_adapters=2 if beta else 1, has_value_head=False)
    return _report("grpo", facts, work, memory)


def estimate_sft(config: JobConfig, facts: Facts) -> dict[str, Any]:
    """SFT: 4P FLOPs per token with LoRA, 6P when all weights are trained, 2P more with gradient checkpointing. No teacher."""
    samples = min(facts.num_prompts, int(_get(config, "max_samples", 0)) or facts.num_prompts)
    length = min(facts.prompt_tokens + facts.reference_tokens, float(_get(config, "max_length", 512)))
    epochs = float(_get(config, "num_epochs", 1.0))
    is_full = bool(_get(config, "full", False) or _get(config, "is_full", False) or _get(config, "method", "lora") == "full")
    work = _Work(samples=samples, trained=samples * length * epochs)
    _learn(work, facts, samples, length, epochs, measures=0, checkpointing=_checkpoints(config, facts), is_full=is_full)
    work.passes = max(work.passes, samples * epochs / max(1, int(_get(config, "batch_size", 16))) * 2)
    rows = int(_get(config, "micro_batch_size", 0) or _get(config, "batch_size", 16))
    tokens = min(rows * length, float(rows * _get(config, "max_length", 512)))
    memory = _memory(config, facts, rows=0, num_adapters=1, has_value_head=False, train_tokens=tokens, is_full=is_full)
    return _report("sft", facts, work, memory)


def estimate_evaluate(config: JobConfig, facts: Facts) -> dict[str, Any]:
    """Evaluation: every version answers every prompt once, 2P FLOPs per token, and the teacher judges every answer."""
    prompts = min(facts.num_prompts, int(_get(config, "num_samples", 0)) or facts.num_prompts)
    samples = prompts * max(1, len(_get(config, "models", []) or [1]))
    work = _rollouts(facts, samples, 64, _response(config, facts), int(_get(config, "max_new_tokens", 256)))
    memory = _memory(config, facts, rows=min(64, prompts), num_adapters=1, has_value_head=False, trains=False)
    return _report("evaluate", facts, work, memory)


def _rollouts(facts: Facts, samples: int, batch: int, response: float, limit: int) -> _Work:
    """A batch decodes until its longest row has ended: the steps of a batch are taken as the limit or twice the mean, if less."""
    steps_per_batch = min(float(limit), 2 * response)
    work = _Work(samples=samples, prompt=samples * facts.prompt_tokens, generated=samples * response, teacher_calls=samples)
    work.decode_steps = math.ceil(samples / max(1, batch)) * steps_per_batch
    work.decode_rows = min(batch, samples)
    if facts.model is not None:
        work.flops += 2 * facts.model.num_parameters * (work.prompt + work.generated)
    return work


def _learn(
    work: _Work, facts: Facts, samples: int, length: float, epochs: float, *, measures: int, checkpointing: bool, is_full: bool = False
) -> None:
    work.trained = samples * length * epochs
    work.passes += (measures + 2 * epochs) * samples * length / MICRO_TOKENS[facts.device.kind]
    if facts.model is not None:
        per_token = (6 if is_full else 4) + (2 if checkpointing else 0)
        attention = 2 * facts.model.num_layers * facts.model.hidden * length
        passes = measures * 2 + epochs * per_token
        work.flops += samples * length * (passes * facts.model.num_parameters + passes / 2 * attention)


def _memory(
    config: JobConfig,
    facts: Facts,
    *,
    rows: int,
    num_adapters: int,
    has_value_head: bool,
    trains: bool = True,
    train_tokens: float | None = None,
    is_full: bool = False,
) -> dict[str, float] | None:
    """Peak memory in bytes by part, None without the model's config.

    weights       P * 4 (CPU, fp32) or P * 2 (GPU, bf16); 0.6 byte each for 4-bit weights
    adapters      LoRA parameters * 4 per adapter held (policy, reference), fp32
    optimizer     trained parameters * 12 more: fp32 gradient and AdamW's two moments; the value head (width + 1) counts as trained
    activations   tokens of a micro-batch * layers * width * 34 (bf16) or 68 (fp32); with checkpointing one such layer plus
                  2 (4) bytes * width per layer and token
    kv_cache      2 * layers * KV heads * head size * bytes * rows * (prompt + limit)
    logits        2 * 4 bytes * min(tokens * vocabulary, 2**27): the chunk and its gradient
    runtime       libraries and, on a GPU, its context
    peak          weights + adapters + optimizer + runtime + the larger of generation (kv_cache + one row of logits each) and
                  learning (activations + logits): they take turns
    """
    model, kind = facts.model, facts.device.kind
    if model is None:
        return None
    size = 4 if kind == "cpu" else 2
    trained = 0 if not trains else model.num_parameters if is_full else model.num_lora(int(_get(config, "lora_r", facts.lora_r)))
    if trains and has_value_head:
        trained += model.hidden + 1
    held = 0 if is_full else model.num_lora(int(_get(config, "lora_r", facts.lora_r))) * num_adapters
    tokens = train_tokens if train_tokens is not None else float(_get(config, "micro_batch_tokens", 0) or MICRO_TOKENS[kind])
    layer = tokens * model.hidden * ACTIVATION_BYTES_16 * size / 2
    kept = layer + tokens * model.num_layers * model.hidden * size if _checkpoints(config, facts) else layer * model.num_layers
    limit = float(_get(config, "max_new_tokens", 0) or _get(config, "max_completion_length", 0))
    part = {
        "weights": model.num_parameters * (0.6 if _get(config, "load_in_4bit", False) else size),
        "adapters": 4.0 * held,
        "optimizer": float(trained * (TRAINED_BYTES if is_full else TRAINED_BYTES - 4)),
        "activations": float(kept) if trains else 0.0,
        "kv_cache": 2.0 * model.num_layers * model.num_kv_heads * model.head_dim * size * rows * (facts.prompt_tokens + limit),
        "logits": 8.0 * min(tokens * model.vocab, LOGITS_CHUNK) if trains else 4.0 * rows * model.vocab,
        "runtime": RUNTIME_BYTES[kind],
    }
    generating = part["kv_cache"] + 4.0 * rows * model.vocab
    learning = part["activations"] + part["logits"] if trains else 0.0
    steady = part["weights"] + part["adapters"] + part["optimizer"] + part["runtime"]
    return {**part, "peak": steady + max(generating, learning)}


def seconds_of(facts: Facts, work: _Work) -> float:
    """Seconds before calibration: FLOPs / speed, or the time to read all weights at every decoding step where that is longer, plus
    a fixed time per layer and pass and the start of the process. 0 without the model's config: nothing is known then."""
    model, device = facts.model, facts.device
    if model is None:
        return 0.0
    size = 4 if device.kind == "cpu" else 2
    reading = work.decode_steps * model.num_parameters * size / device.bandwidth
    overhead = (work.decode_steps + work.passes) * model.num_layers * LAYER_OVERHEAD_S[device.kind]
    return START_S[device.kind] + (work.flops / device.flops + reading + overhead) / max(1, device.num_devices)


def _report(kind: str, facts: Facts, work: _Work, memory: dict[str, float] | None) -> dict[str, Any]:
    seconds = seconds_of(facts, work)
    spread = SPREAD_CALIBRATED if facts.num_earlier else SPREAD
    calls = work.teacher_calls * (1 - facts.teacher.cached_share)
    tokens_in = calls * (facts.teacher.prompt_overhead + facts.prompt_tokens + (work.generated / work.samples if work.samples else 0))
    tokens_out = calls * facts.teacher.verdict_tokens
    is_known = facts.model is not None
    available = facts.device.memory
    return {
        "kind": kind,
        "num_samples": work.samples,
        "tokens": {
            "prompt": round(work.prompt),
            "generated": round(work.generated),
            "trained": round(work.trained),
            "teacher_prompt": 0 if facts.teacher.is_offline else round(tokens_in),
            "teacher_completion": 0 if facts.teacher.is_offline else round(tokens_out),
        },
        "teacher": {
            "name": facts.teacher.name,
            "num_calls": round(calls),
            "usd": usd(facts.teacher, tokens_in, tokens_out) if calls else 0.0,
        },
        "seconds": seconds * facts.time_factor if is_known else None,
        "seconds_low": seconds * (facts.least_factor or facts.time_factor) / spread if is_known else None,
        "seconds_high": seconds * (facts.most_factor or facts.time_factor) * spread if is_known else None,
        "seconds_uncalibrated": seconds if is_known else None,
        "device": {"kind": facts.device.kind, "name": facts.device.name, "num": facts.device.num_devices, "memory": available},
        "device_hours": seconds * facts.time_factor * facts.device.num_devices / 3600 if is_known else None,
        "memory": memory,
        "fits": None if memory is None or available is None else memory["peak"] <= available,
        "calibration": {"factor": facts.time_factor, "num_runs": facts.num_earlier, "jobs": list(facts.earlier_jobs)},
    }


def usd(teacher: TeacherFacts, tokens_in: float, tokens_out: float) -> float | None:
    """Price of these tokens; 0 for the offline teacher, None when the price is not known."""
    if teacher.is_offline:
        return 0.0
    if teacher.usd_per_mtok_in is None or teacher.usd_per_mtok_out is None:
        return None
    return (tokens_in * teacher.usd_per_mtok_in + tokens_out * teacher.usd_per_mtok_out) / 1e6


def _response(config: JobConfig, facts: Facts) -> float:
    limit = float(_get(config, "max_new_tokens", 0) or _get(config, "max_completion_length", 256))
    return min(limit, facts.response_tokens if facts.response_tokens is not None else USED_OF_LIMIT * limit)


def _checkpoints(config: JobConfig, facts: Facts) -> bool:
    chosen = _get(config, "gradient_checkpointing", "auto")
    return facts.device.kind == "cuda" if chosen in ("auto", None) else chosen in (True, "on")


def _get(config: JobConfig, name: str, default: Any) -> Any:
    return getattr(config, name, default)
