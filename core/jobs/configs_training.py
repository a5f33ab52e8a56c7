"""The configs of the trainings that run on trl: supervised fine-tuning, GRPO, and preferences (DPO, KTO).

Kept apart from `core.jobs.configs` for length only; the rules are the same: every field with default, limits and help in both
languages. `num_processes` above 1 makes `core.jobs.tasks` start the script under `accelerate launch`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from core.jobs import fields as f
from core.jobs.fields import JobConfig, option


class SFTConfig(JobConfig):
    """Supervised fine-tuning on prompts with reference answers: a LoRA adapter or all weights; loss on the answer only."""

    name: str = option(..., "Name of the model version to make.", "生成的模型版本名称。", min_length=1)
    base_model: str = option(
        "demo-base", "Model version, local folder or hub name to start from.", "起始模型：版本名、本地目录或 Hub 名称。"
    )
    dataset: str = option("demo", "Dataset with reference answers (train split).", "带参考答案的数据集（训练集）。")
    method: Literal["lora", "full"] = option(
        "lora", "Train a LoRA adapter, or all weights (a model of its own).", "训练 LoRA 适配器，或训练全部参数（独立模型）。"
    )
    num_epochs: float = option(1.0, "Passes over the data.", "训练轮数。", gt=0)
    learning_rate: float = option(
        2e-3,
        "Peak learning rate. The default suits the demo's toy; for real models 1e-4 to 2e-4 with LoRA, 1e-5 with all weights.",
        "最大学习率。默认值适合演示用小模型；真实模型 LoRA 建议 1e-4 至 2e-4，全参数建议 1e-5。",
        gt=0,
    )
    batch_size: int = option(
        16,
        "Samples per update, all processes together; with packing, packed rows.",
        "每次更新的样本数（所有进程合计）；打包时为打包行数。",
        ge=1,
    )
    lora_r: int = f.lora_r()
    lora_alpha: int = f.lora_alpha()
    max_length: int = option(
        512, "Longest sample (with packing: length of a row) in tokens.", "样本（打包时为每行）最大词元数。", advanced=True, ge=16
    )
    max_samples: int = option(0, "Use at most this many samples; 0 means all.", "最多使用的样本数；0 表示全部。", advanced=True, ge=0)
    engine: Literal["trl", "compact"] = f.sft_engine()
    packing: bool = option(
        False,
        "Put several samples in one row without padding; they do not see each other (engine trl).",
        "将多个样本无填充地拼入一行，彼此不可见（仅 trl 引擎）。",
        advanced=True,
    )
    micro_batch_size: int = f.micro_batch_size()
    gradient_checkpointing: Literal["auto", "on", "off"] = f.checkpointing()
    save_steps: int = f.save_steps(50)
    num_processes: int = f.num_processes()
    seed: int = option(0, "Seed of weights, data order and dropout.", "随机种子。", ge=0)

    @field_validator("packing")
    @classmethod
    def _packing_needs_trl(cls, value: bool, info: ValidationInfo) -> bool:
        return bool(_needs_trl(value, value, info))

    @field_validator("micro_batch_size")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        return _divides(value, info, "batch_size")

    @field_validator("num_processes")
    @classmethod
    def _shares(cls, value: int, info: ValidationInfo) -> int:
        return int(_needs_trl(_shares(value, info, "batch_size"), value > 1, info))


class GRPOConfig(JobConfig):
    """GRPO from an SFT adapter with the very reward that PPO uses; no critic, a group of answers per prompt instead."""

    name: str = option(..., "Name of the model version to make.", "生成的模型版本名称。", min_length=1)
    sft_model: str = option("demo-sft", "SFT version: start and frozen reference.", "SFT 版本：起点与冻结参考。")
    dataset: str = option("demo", "Dataset whose train prompts are used.", "使用的数据集（训练集提示）。")
    num_rollouts: int = option(24, "Rollout and update rounds.", "采样与更新的轮数。", ge=1)
    rollout_batch_size: int = option(64, "Completions per rollout.", "每轮采样的回答数。", ge=2)
    num_generations: int = option(
        8, "Completions per prompt: the group whose mean is the baseline.", "每个提示的回答数：组内均值作为基线。", ge=2
    )
    num_iterations: int = option(2, "Passes over each rollout.", "每轮数据的训练遍数。", ge=1)
    mini_batch_size: int = option(32, "Completions per update.", "每次更新的回答数。", ge=1)
    micro_batch_size: int = f.micro_batch_size()
    learning_rate: float = option(2e-3, "Learning rate of the adapter.", "适配器学习率。", gt=0)
    beta: float = option(0.02, "Weight of the KL to the reference in the loss.", "损失中对参考模型 KL 的权重。", gt=0)
    epsilon: float = option(0.2, "Policy clip range.", "策略裁剪范围。", advanced=True, gt=0)
    loss_type: Literal["dapo", "dr_grpo", "bnpo", "grpo"] = option(
        "dapo",
        "How token losses are averaged; dapo: over all tokens of the update.",
        "词元损失的平均方式；dapo 为对全部词元平均。",
        advanced=True,
    )
    max_new_tokens: int = option(160, "Longest completion in tokens.", "回答最大词元数。", ge=1)
    temperature: float = option(1.0, "Sampling temperature during rollouts.", "采样温度。", advanced=True, gt=0)
    failure_score: float = f.failure_score()
    max_unscored: float = f.max_unscored()
    teacher_wait_minutes: float = f.teacher_wait_minutes()
    sample_steps: int = option(4, "Write a table of samples every N rollouts.", "每 N 轮写出样本表。", advanced=True, ge=1)
    decay: bool = option(True, "Lower the learning rate linearly to a fifth.", "学习率线性降至五分之一。", advanced=True)
    gradient_checkpointing: Literal["auto", "on", "off"] = f.checkpointing()
    save_steps: int = option(4, "Write a checkpoint every N rollouts.", "每 N 轮保存检查点。", advanced=True, ge=1)
    num_processes: int = f.num_processes()
    seed: int = option(0, "Seed of sampling and data order.", "随机种子。", ge=0)

    @field_validator("num_generations", "mini_batch_size")
    @classmethod
    def _fits_the_rollout(cls, value: int, info: ValidationInfo) -> int:
        return _divides(value, info, "rollout_batch_size")

    @field_validator("micro_batch_size")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        return _divides(value, info, "mini_batch_size")

    @field_validator("num_processes")
    @classmethod
    def _shares(cls, value: int, info: ValidationInfo) -> int:
        return _shares(value, info, "mini_batch_size")


class PreferencesConfig(JobConfig):
    """Learn from clinicians' choices: DPO from pairs (rewritten answers, blind votes), KTO from single good and bad answers."""

    name: str = option(..., "Name of the model version to make.", "生成的模型版本名称。", min_length=1)
    sft_model: str = option("demo-sft", "Version to start from; frozen, it is the reference too.", "起点版本；冻结后同时作为参考。")
    method: Literal["dpo", "kto"] = option(
        "dpo", "dpo: pairs of a better and a worse answer; kto: single answers, good or bad.", "dpo：成对优劣回答；kto：单条好/差回答。"
    )
    dataset: str = option("", "Only pairs whose prompts are in this dataset; empty means all.", "只用该数据集中的提示；留空表示全部。")
    sources: list[Literal["adjudication", "vote", "imported"]] = option(
        ["adjudication", "vote", "imported"], "Where pairs may come from.", "偏好数据的来源。", min_length=1
    )
    min_pairs: int = option(
        20, "Refuse to train on fewer pairs (kto: answers) than this.", "少于该数量时拒绝训练（kto 为回答数）。", advanced=True, ge=2
    )
    num_epochs: float = option(1.0, "Passes over the data.", "训练轮数。", gt=0)
    learning_rate: float = option(2e-4, "Peak learning rate.", "最大学习率。", gt=0)
    batch_size: int = option(8, "Pairs (kto: answers) per update.", "每次更新的对数（kto 为回答数）。", ge=2)
    micro_batch_size: int = option(
        0,
        "Pairs per forward pass; smaller saves memory; 0 means all at once.",
        "每次前向的对数；越小越省显存；0 表示一次完成。",
        advanced=True,
        ge=0,
    )
    beta: float = option(0.1, "How strongly the reference is held on to.", "对参考模型的约束强度。", gt=0)
    max_length: int = option(
        1024,
        "Longest prompt with answer in tokens; longer ones are left out.",
        "提示与回答的最大词元数；超出者不用。",
        advanced=True,
        ge=16,
    )
    gradient_checkpointing: Literal["auto", "on", "off"] = f.checkpointing()
    save_steps: int = f.save_steps(50)
    num_processes: int = f.num_processes()
    seed: int = option(0, "Seed of the data order.", "随机种子。", ge=0)

    @field_validator("micro_batch_size")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        if value == 1 and info.data.get("method") == "kto":  # its KL is estimated from mismatched answers within the micro-batch
            raise PydanticCustomError("greater_than_equal", "kto needs two answers per forward pass", {"ge": 2})
        return _divides(value, info, "batch_size")

    @field_validator("num_processes")
    @classmethod
    def _shares(cls, value: int, info: ValidationInfo) -> int:
        return _shares(value, info, "batch_size")


def _divides(value: int, info: ValidationInfo, of: str) -> int:
    """0, or a whole divisor of the field `of`."""
    whole = info.data.get(of, 0)
    if value and whole % value:
        raise PydanticCustomError("not_a_divisor", "{value} does not divide {expected}", {"value": value, "expected": f"{of} = {whole}"})
    return value


def _shares(value: int, info: ValidationInfo, of: str) -> int:
    """Every process gets the same whole number of whole micro-batches."""
    whole, micro = info.data.get(of, 0), info.data.get("micro_batch_size", 0) or 1
    if whole % (value * micro):
        raise PydanticCustomError("not_a_divisor", "{value} does not divide {expected}", {"value": value, "expected": f"{of} = {whole}"})
    return value


def _needs_trl(value: Any, is_used: bool, info: ValidationInfo) -> Any:
    if is_used and info.data.get("engine") == "compact":
        raise PydanticCustomError("needs_engine", "needs engine {expected}", {"expected": "trl"})
    return value
