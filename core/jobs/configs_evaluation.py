"""Configs of the jobs that measure and apply versions: evaluate and predict."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from core.jobs.configs import JobConfig, option

HeldOut = Literal["dev", "test", "gold", "red_team"]


class EvaluateConfig(JobConfig):
    """Compare model versions on held-out prompts with the very reward that PPO uses."""

    name: str = option("sft-vs-rl", "Name of the report.", "报告名称。", min_length=1)
    models: list[str] = option(
        ..., "Model versions to compare, first one is the baseline.", "要比较的模型版本，第一个为基线。", min_length=1
    )
    dataset: str = option("demo", "Dataset whose prompts are answered.", "使用的数据集。")
    splits: list[HeldOut] = option(
        ["test"], "Held-out splits, reported together and apart.", "评测集（可多选，合并并分别报告）。", min_length=1
    )
    num_samples: int = option(0, "At most this many prompts of each split; 0 means all.", "每个评测集最多使用多少条；0 表示全部。", ge=0)
    temperature: float = option(1.0, "Sampling temperature; 0 is greedy.", "采样温度；0 为贪心。", ge=0, le=2)
    max_new_tokens: int = option(160, "Longest completion in tokens.", "回答最大词元数。", ge=1)
    with_facts: bool = option(
        True, "Hold the answers against the active guideline index too.", "同时与启用的指南索引核对回答。", advanced=True
    )
    seed: int = option(0, "Seed of sampling.", "随机种子。", ge=0)

    @model_validator(mode="before")
    @classmethod
    def _one_split(cls, values: Any) -> Any:
        """Jobs and schedules of the first release name one split."""
        if isinstance(values, dict) and "split" in values and "splits" not in values:
            return {**{k: v for k, v in values.items() if k != "split"}, "splits": [values["split"]]}
        return values


class PredictConfig(JobConfig):
    """Let a model version answer a file of questions, with safety notices beside every answer."""

    path: str = option(..., "File with questions (CSV or JSONL).", "问题文件（CSV 或 JSONL）。", min_length=1)
    model: str = option(..., "Model version that answers.", "回答问题的模型版本。", min_length=1)
    column: str = option("", "Column with the question; empty means recognised.", "问题所在的列；留空自动识别。")
    temperature: float = option(0.2, "Sampling temperature; 0 is greedy.", "采样温度；0 为贪心。", ge=0, le=2)
    max_new_tokens: int = option(512, "Longest completion in tokens.", "回答最大词元数。", ge=1)
    with_teacher: bool = option(False, "Ask the teacher about every answer too.", "同时请教师模型评判每个回答。", advanced=True)
    batch_size: int = option(32, "Questions answered at once.", "批大小。", advanced=True, ge=1)
    seed: int = option(0, "Seed of sampling.", "随机种子。", ge=0)
