"""The config of the teacher's inspection of the data."""

from __future__ import annotations

from core.jobs.configs import JobConfig, option


class InspectDataConfig(JobConfig):
    """Let the teacher read gold and red-team items and propose red-team additions, sampling weights and better answers."""

    name: str = option(
        "inspection", "Name of the inspection; a second run of it adds only what is new.", "检查名称；再次运行只补充新内容。", min_length=1
    )
    dataset: str = option("demo", "Dataset whose items are read.", "要检查的数据集。")
    splits: list[str] = option(["gold", "red_team"], "Splits that are read.", "要检查的数据划分。", min_length=1)
    model: str = option(
        "", "Version whose stored answers are judged; empty means the references.", "评判该版本已有的回答；留空则评判参考答案。"
    )
    num_samples: int = option(0, "At most this many items; 0 means all.", "最多检查多少条；0 表示全部。", ge=0)
    low_score: float = option(
        0.4, "An answer scored at most this is proposed as a red-team case.", "得分不高于该值的问题建议加入红队集。", ge=0, le=1
    )
    seed: int = option(0, "Seed of the choice of items.", "抽样随机种子。", ge=0)
