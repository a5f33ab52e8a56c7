"""What configs are made of: the base class, one field with help in both languages, and the fields that several kinds share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from core.rewards import FAILURE_SCORE


def option(default: Any, en: str, zh: str, *, advanced: bool = False, source: str = "", **limits: Any) -> Any:
    """A config field; `advanced` ones are folded away in forms. Use `...` as default for a required field. `source`: what it may name
    (core.jobs.views.choices), so that a form offers the names; anything else can still be typed."""
    return Field(default, description=en, json_schema_extra={"zh": zh, "advanced": advanced, "source": source}, **limits)


class JobConfig(BaseModel):
    """Base of all configs: unknown keys are refused so that a typing error cannot pass silently."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


def num_processes() -> Any:
    """The field every training has that can run on several devices of one machine."""
    return option(
        1,
        "Processes (one per GPU) that share each update; above 1 the job runs under accelerate launch.",
        "共同完成每次更新的进程数（每块 GPU 一个）；大于 1 时通过 accelerate launch 启动。",
        advanced=True,
        ge=1,
        le=64,
    )


def checkpointing() -> Any:
    """Recompute activations in the backward pass: less memory, about a fifth slower."""
    return option(
        "auto",
        "Recompute activations to save memory: auto (on a GPU only), on, off.",
        "以重算激活换取显存：auto（仅在 GPU 上）、on、off。",
        advanced=True,
    )


def max_unscored() -> Any:
    """When the teacher has left so much open that one number per rollout would no longer mean one thing."""
    return option(
        0.1,
        "A rollout goes over to rules only when the teacher leaves more than this share of its finished answers unscored.",
        "教师未评分的比例超过该值时，整轮改为仅用规则。",
        advanced=True,
        ge=0,
        lt=1,
    )


def teacher_wait_minutes() -> Any:
    """Patience with a teacher that is down."""
    return option(
        10.0,
        "How long to wait for a teacher that is down while rules alone cannot stand in yet (too few answers with both scores).",
        "教师不可用且尚不能以规则代替（双评分样本不足）时的最长等待（分钟）。",
        advanced=True,
        ge=0,
    )


def failure_score() -> Any:
    """A fixed price, so that silence never pays."""
    return option(FAILURE_SCORE, "Score of an answer that is empty or never ends.", "空回答或未结束回答的固定得分。", advanced=True, le=0)


def lora_r(default: int = 16) -> Any:
    """Rank of the adapter."""
    return option(default, "LoRA rank.", "LoRA 秩。", ge=1)


def lora_alpha(default: int = 32) -> Any:
    """Scale of the adapter; what is learned counts alpha / rank times."""
    return option(default, "LoRA scale.", "LoRA 缩放。", advanced=True, ge=1)


def sft_engine() -> Any:
    """Who runs supervised fine-tuning."""
    return option(
        "trl",
        "trl's SFTTrainer, or our own loop, which is faster for small models on a CPU.",
        "使用 trl 的 SFTTrainer，或自带的精简循环（CPU 上训练小模型更快）。",
        advanced=True,
    )


def micro_batch_size() -> Any:
    """Gradients are summed over micro-batches, so its size changes memory and time, not the result."""
    return option(
        0,
        "Rows per forward pass; smaller saves memory, same result; 0 means all at once.",
        "每次前向的行数；越小越省显存，结果不变；0 表示一次完成。",
        advanced=True,
        ge=0,
    )


def save_steps(default: int) -> Any:
    """How much is lost at most when a job is killed."""
    return option(default, "Write a checkpoint every N updates.", "每 N 步保存检查点。", advanced=True, ge=1)
