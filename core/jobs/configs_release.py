"""The configs of release jobs: writing a package, and watching the serving version."""

from __future__ import annotations

from typing import Literal

from core.jobs.configs import JobConfig, option


class PackageConfig(JobConfig):
    """Write a release package of a version: weights, reward rules, evaluation, pipeline and model card, with a hash of every file."""

    model: str = option(..., "Model version to release.", "要发布的模型版本。", min_length=1)
    name: str = option(..., "Name of the release, such as v1.0-rl.", "发布名称，例如 v1.0-rl。", min_length=1)
    out: str = option(
        "",
        "Folder to write the package into; empty means models/rl in the data folder.",
        "发布包写入的目录；留空为数据目录下的 models/rl。",
    )
    with_base: bool = option(
        False, "Include base model and tokenizer, so that the package runs anywhere.", "包含基础模型与分词器，使发布包可独立运行。"
    )


class WatchConfig(JobConfig):
    """Ask the red-team prompts of the serving version and of the one before it; propose a roll-back when the new one is worse."""

    dataset: str = option("demo", "Dataset whose red-team prompts are asked.", "使用其红队提示的数据集。")
    num_samples: int = option(0, "At most this many prompts per look; 0 means all.", "每次最多使用多少条；0 表示全部。", ge=0)
    through: Literal["server", "weights"] = option(
        "server",
        "Ask through the model server, as people do, or load the weights here.",
        "通过模型服务提问（与用户一致），或在任务中直接加载权重。",
    )
    temperature: float = option(
        1.0, "Sampling temperature; 0 would ask the same thing at every look.", "采样温度；为 0 时每次结果相同。", gt=0, le=2
    )
    max_new_tokens: int = option(160, "Longest completion in tokens.", "回答最大词元数。", ge=1)
    error_rate: float = option(
        0.05,
        "Chance of a false proposal over all looks at one promotion, however often it is run.",
        "对同一次上线的所有观察中误报一次的概率上限（与运行次数无关）。",
        advanced=True,
        gt=0,
        lt=1,
    )
