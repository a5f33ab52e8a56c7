"""The configs of the jobs that serve the reward: calibration against expert verdicts, and prompt sets."""

from __future__ import annotations

from typing import Literal

from core.jobs.configs import JobConfig, option


class CalibrateConfig(JobConfig):
    """Fit the reward's weights and thresholds to signed expert verdicts; the result is a proposal that an administrator decides."""

    num_bootstrap: int = option(200, "Bootstrap refits for the intervals.", "用于区间估计的自助重采样次数。", ge=20, le=5000)
    max_unsafe_above: float = option(
        0.05,
        "Largest share of unsafe/acceptable pairs in which the unsafe answer may earn more.",
        "“不安全/可接受”配对中，不安全回答得分更高的最大比例。",
        ge=0,
        le=0.5,
    )
    is_proposed: bool = option(True, "Propose the fitted config when it agrees better.", "一致性提高时提出新配置。")
    seed: int = option(0, "Seed of folds and bootstrap.", "随机种子。", ge=0)


class PromptSetConfig(JobConfig):
    """Build a stratified set of training prompts: at least 40 % high risk, more where experts found gaps; PPO takes it by name."""

    name: str = option(..., "Name of the dataset to make.", "生成的数据集名称。", min_length=1, max_length=100)
    datasets: list[str] = option(["demo"], "Datasets whose train prompts are drawn from.", "从中抽取训练提示的数据集。", min_length=1)
    num_prompts: int = option(500, "Size of the set.", "提示数量。", ge=1)
    high_risk_share: float = option(0.4, "Least share of high-risk prompts.", "高风险提示的最低比例。", ge=0.4, le=1)
    gap_boost: float = option(
        2.0,
        "How much more a stratum is drawn in which every verdict was bad or a scorer wrong (added to 1).",
        "若某层所有裁定均为不良或评分有误，其抽取权重的增量（在 1 的基础上）。",
        advanced=True,
        ge=0,
        le=9,
    )
    use_sampling_weights: Literal["accepted", "none"] = option(
        "accepted", "Sampling weights from the data inspection that a person accepted.", "采用经人工接受的数据检查抽样权重。", advanced=True
    )
    seed: int = option(0, "Seed of the draw.", "随机种子。", ge=0)
