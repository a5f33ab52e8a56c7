"""The config of a batch comparison on the bench."""

from __future__ import annotations

from typing import Literal

from core.jobs.configs import JobConfig, option
from core.jobs.configs_evaluation import HeldOut


class CompareConfig(JobConfig):
    """Put a question set through two versions and list what the second one lost, worst first."""

    name: str = option(..., "Name of the comparison.", "对比名称。", min_length=1, max_length=200)
    first: str = option(..., "The older version.", "旧版本。", min_length=1)
    second: str = option(..., "The version that is held against it.", "与之比较的新版本。", min_length=1)
    first_with_evidence: bool = option(False, "Give the first guideline passages before the question.", "为旧版本附上指南段落。")
    second_with_evidence: bool = option(False, "Give the second guideline passages before the question.", "为新版本附上指南段落。")
    dataset: str = option("demo", "Dataset whose held-out questions are asked.", "使用的数据集（仅评测部分）。")
    splits: list[HeldOut] = option(["test"], "Held-out splits.", "评测集（可多选）。", min_length=1)
    language: Literal["", "en", "zh"] = option("", "Only questions in this language; empty means all.", "仅此语言的问题；留空为全部。")
    risk: Literal["", "low", "medium", "high"] = option("", "Only questions of this risk; empty means all.", "仅此风险等级；留空为全部。")
    num_samples: int = option(
        200, "At most this many questions, chosen by the seed; 0 means all.", "最多使用多少题（按种子抽取）；0 为全部。", ge=0
    )
    temperature: float = option(0.2, "Sampling temperature; 0 is greedy.", "采样温度；0 为贪心。", ge=0, le=2)
    max_new_tokens: int = option(512, "Longest completion in tokens.", "回答最大词元数。", ge=1)
    with_teacher: bool = option(False, "Ask the teacher about every answer too.", "同时请教师模型评判每个回答。")
    batch_size: int = option(32, "Questions answered at once.", "批大小。", advanced=True, ge=1)
    seed: int = option(7, "Seed of sampling and of the choice of questions.", "随机种子（采样与抽题）。", ge=0)
