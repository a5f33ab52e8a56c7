"""The config of the job that trains a question writer."""

from __future__ import annotations

from core.jobs.configs import option
from core.jobs.configs_embedding import PairsConfig


class Doc2QueryConfig(PairsConfig):
    """Train a writer of pseudo-questions (doc2query): from scratch in minutes on one core, or from a Hugging Face model."""

    base: str = option(
        "copying",
        "copying (our own small model from scratch, any language), or a Hugging Face seq2seq or causal model by folder or name.",
        "copying（从零训练的小模型，任意语言），或 Hugging Face 的 seq2seq、因果语言模型（目录或名称）。",
        min_length=1,
    )
    exclude: str = option(
        "",
        "A jsonl file of questions (text or query) that must never be trained on, such as the queries of a test set.",
        "绝不能用于训练的问题（jsonl，字段 text 或 query），例如测试集的查询。",
    )
    min_grade: float = option(1.0, "Learn only from passages judged at least this relevant.", "只从相关度不低于该值的段落学习。", gt=0)
    num_epochs: float = option(4.0, "Passes over the pairs.", "训练轮数。", gt=0, le=100)
    learning_rate: float = option(
        0.0,
        "Peak learning rate; 0 means 2e-3 from scratch and 1e-4 for a base.",
        "最大学习率；0 表示从零训练用 2e-3、已有模型用 1e-4。",
        ge=0,
    )
    num_spans: int = option(
        4000,
        "Before the pairs, learn to copy from this many random spans of the set's own passages (from scratch only).",
        "在学习问答对之前，先用该数量的段落随机片段学习复制（仅从零训练）。",
        ge=0,
    )
    num_questions: int = option(5, "Questions per passage when the writer is tried out.", "试写时每段的问题数。", ge=1, le=40)
    num_tried: int = option(
        6000, "Passages on which the writer is tried out after training; 0 skips that.", "训练后用于试写评测的段落数；0 表示跳过。", ge=0
    )
    max_source: int = option(
        96, "The writer reads this many first pieces of a passage.", "读取段落开头的单元数。", advanced=True, ge=8, le=1024
    )
    max_target: int = option(24, "Longest question in pieces.", "问题最大长度（单元数）。", advanced=True, ge=4, le=128)
    vocabulary: int = option(
        3000, "Pieces that can be written without being copied (from scratch only).", "词表大小（仅从零训练）。", advanced=True, ge=50
    )
    width: int = option(96, "Width of the model (from scratch only).", "模型宽度（仅从零训练）。", advanced=True, ge=16, multiple_of=16)
    encoder_layers: int = option(2, "Layers that read (from scratch only).", "编码器层数（仅从零训练）。", advanced=True, ge=1)
    decoder_layers: int = option(1, "Layers that write (from scratch only).", "解码器层数（仅从零训练）。", advanced=True, ge=1)
    dropout: float = option(0.1, "Dropout (from scratch only).", "随机失活（仅从零训练）。", advanced=True, ge=0, lt=1)
    tokens_per_batch: int = option(3000, "Tokens per update.", "每次更新的词元数。", advanced=True, ge=64)
    save_steps: int = option(200, "Updates between checkpoints.", "保存检查点的间隔步数。", advanced=True, ge=1)
