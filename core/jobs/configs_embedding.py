"""The configs of the jobs that train the models of retrieval: embeddings and rerankers."""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from core.jobs.fields import JobConfig, option

#: a narrower vector holds nothing
MIN_WIDTH = 8


class PairsConfig(JobConfig):
    """Where question-passage pairs come from, and how many are kept aside."""

    name: str = option(..., "Name of the model to make.", "生成的模型名称。", min_length=1, max_length=100)
    with_feedback: bool = option(
        False,
        "Also learn from the team's own clicks and verdicts on answered questions.",
        "同时使用团队自己的点击与裁定记录。",
    )
    pairs: str = option(
        "",
        "A folder in BEIR form with train_pairs.jsonl, or a jsonl file of query, positive and (optional) negative; empty with feedback.",
        "BEIR 格式目录（含 train_pairs.jsonl），或由 query、positive 与可选 negative 组成的 jsonl 文件；仅用反馈时留空。",
        validate_default=True,
    )
    index: str = option("", "Search index that feedback belongs to; empty means guidelines.", "反馈所属的检索索引；留空为 guidelines。")
    max_pairs: int = option(0, "At most this many pairs; 0 means all.", "最多使用多少对；0 表示全部。", ge=0)
    eval_share: float = option(0.1, "Share of the questions kept aside to measure on.", "留出用于评测的问题比例。", gt=0, le=0.5)
    max_eval: int = option(300, "At most this many questions are kept aside.", "最多留出多少个问题。", advanced=True, ge=10)
    seed: int = option(0, "Seed of the split, of weights and of the order.", "划分、权重与顺序的随机种子。", ge=0)
    save_steps: int = option(50, "Updates between checkpoints.", "保存检查点的间隔步数。", advanced=True, ge=1)

    @field_validator("pairs")
    @classmethod
    def _has_a_source(cls, value: str, info: ValidationInfo) -> str:
        if not value and not info.data.get("with_feedback"):
            raise PydanticCustomError("missing", "name a file or folder of pairs, or learn from feedback")
        return value


class EmbeddingConfig(PairsConfig):
    """Train an embedding: from scratch (static), or from MiniLM or an earlier one; multiple negatives ranking loss."""

    base: str = option(
        "static",
        "static (from scratch, any language, no torch to search), minilm-en (English), or an embedding model of ours.",
        "static（从零训练，任意语言，检索时无需 torch）、minilm-en（英文），或已有的本地向量模型。",
        min_length=1,
    )
    loss: Literal["mnr", "cached_mnr"] = option(
        "mnr",
        "Multiple negatives ranking loss; the cached variant takes large batches in little memory.",
        "多负例排序损失；cached 变体可在小内存下使用大批量。",
    )
    num_epochs: float = option(3.0, "Passes over the pairs.", "训练轮数。", gt=0, le=100)
    batch_size: int = option(256, "Pairs per update; each is a negative for all others.", "每次更新的样本对数（互为负例）。", ge=2)
    learning_rate: float = option(
        0.0,
        "Learning rate; 0 means 0.02 for static and 2e-5 for a transformer.",
        "学习率；0 表示 static 用 0.02、transformer 用 2e-5。",
        ge=0,
    )
    num_hard_negatives: int = option(
        0, "Hard negatives per pair, mined with the live retriever.", "每对样本的难负例数（由当前检索器挖掘）。", ge=0, le=8
    )
    num_rounds: int = option(
        1,
        "Rounds of training; hard negatives are mined anew before each.",
        "训练回合数；每回合前重新挖掘难负例。",
        advanced=True,
        ge=1,
        le=10,
    )
    matryoshka: list[int] = option(
        [], "Also train these shorter widths (Matryoshka).", "同时训练这些较短的维度（Matryoshka）。", advanced=True
    )
    dimension: int = option(256, "Width of a static embedding.", "static 向量维度。", advanced=True, ge=8, le=1024)
    max_tokens: int = option(120_000, "Tokens that a static embedding knows.", "static 词表大小。", advanced=True, ge=100)
    num_self_pairs: int = option(
        -1,
        "Pairs made of the two halves of a passage, for a static embedding; -1 means one per passage, 0 none.",
        "由段落前后两半构成的自监督样本对（static）；-1 表示每段一对，0 表示不用。",
        advanced=True,
        ge=-1,
    )
    max_length: int = option(128, "Longest text in a transformer's tokens.", "transformer 的最大词元数。", advanced=True, ge=16, le=512)

    @field_validator("matryoshka")
    @classmethod
    def _widths_fit(cls, value: list[int]) -> list[int]:
        if any(width < MIN_WIDTH for width in value):
            raise PydanticCustomError("greater_than_equal", "a width should be {ge} at least", {"ge": MIN_WIDTH})
        return value


class RerankerConfig(PairsConfig):
    """Train a reranker on what the present search puts first: learned signals (any language), or a cross-encoder (English)."""

    form: Literal["features", "cross"] = option(
        "features",
        "features: signals and a small network, milliseconds; cross: a cross-encoder from MiniLM, slower.",
        "features：信号加小型网络，毫秒级；cross：由 MiniLM 训练的交叉编码器，较慢。",
    )
    base: str = option(
        "minilm-en", "What a cross-encoder starts from: minilm-en, or a reranker of ours.", "交叉编码器的起点：minilm-en 或已有重排模型。"
    )
    embedding: str = option(
        "",
        "A static embedding as one of the signals; empty trains one on the same pairs.",
        "作为信号之一的 static 向量模型；留空则用同一数据训练。",
    )
    depth: int = option(30, "Candidates per question.", "每个问题的候选数。", ge=2, le=100)
    loss: Literal["listwise", "bce"] = option("listwise", "Loss of a cross-encoder.", "交叉编码器的损失。", advanced=True)
    num_negatives: int = option(4, "Candidates beside the right one, for a cross-encoder.", "交叉编码器每题的负例数。", ge=1, le=30)
    num_epochs: float = option(1.0, "Passes over the questions, for a cross-encoder.", "交叉编码器的训练轮数。", gt=0, le=50)
    batch_size: int = option(8, "Questions per update, for a cross-encoder.", "交叉编码器每次更新的问题数。", ge=1)
    learning_rate: float = option(5e-5, "Learning rate of a cross-encoder.", "交叉编码器的学习率。", gt=0)
    max_length: int = option(128, "Longest pair in tokens, for a cross-encoder.", "交叉编码器的最大词元数。", advanced=True, ge=16, le=512)
    num_networks: int = option(3, "Networks that are averaged, for features.", "features 中取平均的网络数。", advanced=True, ge=1, le=10)
    num_hidden: int = option(32, "Hidden units of such a network.", "每个网络的隐藏单元数。", advanced=True, ge=2, le=256)
