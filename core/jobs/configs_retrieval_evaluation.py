"""Configs of the jobs that measure retrieval and let it learn from use."""

from __future__ import annotations

from typing import Literal

from core.jobs.configs import JobConfig, option


class EvaluateRetrievalConfig(JobConfig):
    """Measure every stage of retrieval on judged questions and choose the default plan."""

    name: str = option("ladder", "Name of the report.", "报告名称。", min_length=1)
    index: str = option(
        "", "Index to measure; empty builds one from the set's own corpus.", "要评测的索引；留空则用数据集自带语料临时建立索引。"
    )
    data: str = option(
        "",
        "Folder in BEIR form (corpus.jsonl, queries.jsonl, qrels.tsv); empty means the team's own judged questions.",
        "BEIR 格式的目录（corpus.jsonl、queries.jsonl、qrels.tsv）；留空使用团队自己标注的问题。",
    )
    encoder: str = option(
        "", "Encoder for the dense leg of a built index; empty means none.", "临时索引使用的向量模型；留空表示不建向量通道。"
    )
    reranker: str = option("", "Reranker to try; empty means none.", "要评测的重排序模型；留空表示不使用。")
    questions: str = option(
        "",
        "Pseudo-questions of a built index: a question writer's name, or train_pairs for the set's own training questions.",
        "临时索引的伪问题来源：出题模型名称，或 train_pairs 使用数据集自带的训练问题。",
    )
    num_questions: int = option(5, "Pseudo-questions per chunk.", "每个分块的伪问题数量。", advanced=True, ge=1, le=80)
    min_grade: float = option(1.0, "Judgements below this grade are not relevant.", "低于该等级的标注视为不相关。", advanced=True, gt=0)
    limit: int = option(0, "At most this many questions; 0 means all.", "最多使用多少个问题；0 表示全部。", ge=0)
    chunk_tokens: int = option(256, "Longest chunk of a built index in tokens.", "临时索引的分块最大词元数。", advanced=True, ge=32)
    use_plan: bool = option(False, "Make the chosen plan the default of the index when it is done.", "完成后将选出的方案设为索引默认方案。")
    seed: int = option(0, "Seed of the intervals.", "置信区间的随机种子。", advanced=True, ge=0)


class LearnRetrievalConfig(JobConfig):
    """Learn from what people clicked and judged: new pseudo-questions, a rerank model; swapped in only on a significant gain."""

    index: str = option("guidelines", "Index that learns.", "要学习的索引。", min_length=1)
    data: str = option(
        "",
        "Frozen set in BEIR form that decides; empty means the team's judged questions, every second one held out.",
        "用于裁决的固定评测集（BEIR 格式）；留空使用团队标注问题，其中一半保留不参与学习。",
    )
    days: int = option(0, "Look back so many days; 0 means everything that was logged.", "回看天数；0 表示全部日志。", ge=0)
    writer: str = option(
        "",
        "Question writer for documents that were missed; empty enters the questions people asked.",
        "为漏检文档出题的模型；留空则使用用户原问题。",
    )
    num_questions: int = option(3, "Pseudo-questions per missed document.", "每个漏检文档新增的伪问题数。", advanced=True, ge=1, le=20)
    with_reranker: bool = option(
        False, "Train the reranker for one epoch on confident positives too.", "同时用可信正例训练重排序模型一轮。"
    )
    min_gain: float = option(
        0.0,
        "Least relative gain on the frozen set; the interval must lie above zero in any case.",
        "固定评测集上的最小相对增益；置信区间下限始终须大于 0。",
        advanced=True,
        ge=0,
        lt=1,
    )
    metric: Literal["ndcg@10", "recall@10", "mrr@10"] = option("recall@10", "Metric that decides.", "裁决指标。", advanced=True)
    activate: bool = option(True, "Switch to what was accepted; otherwise it waits as a trial.", "达标后自动启用；否则保留为待试验版本。")
    seed: int = option(0, "Seed of the intervals.", "随机种子。", advanced=True, ge=0)
