"""The config of the review plan's job: the weekly draw."""

from __future__ import annotations

from typing import Literal

from core.jobs.configs import JobConfig, option


class DrawConfig(JobConfig):
    """Draw the week's cases: conflicts from every stratum, random controls, and blind repeats of older cases."""

    name: str = option("", "Name of the draw; empty means this week, as 2026-W47.", "抽样名称；留空为本周，如 2026-W47。")
    num_conflicts: int = option(
        32, "Conflicts, spread over kind, topic and model version.", "分歧病例数，按类型、主题与模型版本分层。", ge=0, le=200
    )
    num_controls: int = option(8, "Random answers without a conflict.", "无分歧回答的随机对照数。", ge=0, le=100)
    num_repeats_same: int = option(4, "Blind repeats for the same reviewer.", "由同一阅评人盲法重评的病例数。", ge=0, le=50)
    num_repeats_other: int = option(4, "Blind repeats for another reviewer.", "由另一阅评人盲法重评的病例数。", ge=0, le=50)
    overlap: int = option(2, "Readers per case, where there are that many.", "每例阅评人数（人手足够时）。", ge=1, le=3)
    assign: Literal["open", "named", "speciality"] = option(
        "open",
        "Who reads: anybody, named people in turn, or people whose speciality is the case's topic.",
        "由谁阅评：不限、轮流指定到人，或按专业与病例主题匹配。",
    )
    dataset: str = option("", "Only cases of this dataset; empty means all.", "仅该数据集的病例；留空表示全部。")
    repeat_after_days: int = option(
        28, "Repeat only what was decided this long ago.", "仅重评至少这么多天前裁决的病例。", advanced=True, ge=1
    )
    seed: int = option(0, "Seed; the week's name is mixed into it.", "随机种子；与周次名称共同使用。", ge=0)
