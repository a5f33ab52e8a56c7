"""The configs of the query-expansion trainings: a small base, SFT, GRPO, and the evaluation of what came out.

Same rules as `core.jobs.configs`: every field with default, limits and help in both languages. Defaults suit the small base that is
trained here on a CPU; what the field uses for real models stands in assets/expansion/configs/*.yaml.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from core.jobs import fields as f
from core.jobs.configs_embedding import PairsConfig
from core.jobs.configs_training import _divides, _shares
from core.jobs.fields import JobConfig, option

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
#: less than this holds nothing (docs/benchmarks_expansion_training.md)
LEAST_BETA = 0.001
ALL_PROJECTIONS: list[Projection] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def data_field() -> Any:
    return option(
        ...,
        "Rows of query and lex/vec/hyde lines: the name of an expansion set, or a jsonl file.",
        "由查询与 lex/vec/hyde 行组成的数据：扩展数据集名称，或 jsonl 文件。",
        source="expansion_sets",
        min_length=1,
    )


def corpus_field() -> Any:
    return option(
        "",
        "Folder in BEIR form (corpus, queries or train_pairs, qrels) for the retrieval-grounded part of the reward; empty leaves it out.",
        "BEIR 格式目录（corpus、queries 或 train_pairs、qrels），用于奖励中的检索依据项；留空则不计该项。",
    )


class ExpansionBaseConfig(JobConfig):
    """Train a small causal language model with its own tokenizer from scratch: a base for query expansion, in minutes on a CPU."""

    name: str = option("expansion-base", "Name of the model version to make.", "生成的模型版本名称。", min_length=1)
    data: str = data_field()
    corpora: str = option(
        "",
        "Folders in BEIR form whose passages are read, too, with commas between them; empty reads the rows alone.",
        "另外读取其段落的 BEIR 格式目录，以逗号分隔；留空则只读取数据行。",
    )
    num_passages: int = option(4000, "Passages read, of all corpora together.", "读取的段落总数。", ge=0)
    num_epochs: float = option(1.0, "Passes over the texts.", "训练轮数。", gt=0)
    vocab_size: int = option(6000, "Size of the tokenizer.", "分词器词表大小。", ge=400)
    hidden_size: int = option(256, "Width of the model.", "模型宽度。", advanced=True, ge=32, multiple_of=32)
    num_layers: int = option(3, "Number of layers.", "层数。", advanced=True, ge=1)
    init_std: float = option(0.06, "Standard deviation of the initial weights.", "初始权重标准差。", advanced=True, gt=0)
    learning_rate: float = option(2e-3, "Peak learning rate.", "最大学习率。", advanced=True, gt=0)
    tokens_per_batch: int = option(2048, "Tokens per update.", "每次更新的词元数。", advanced=True, ge=64)
    seed: int = option(0, "Seed of weights and data order.", "随机种子。", ge=0)


class ExpansionTermsConfig(PairsConfig):
    """Train a term model from (query, passage) pairs: which words of a query matter, and which words its answers use."""

    exclude: str = option(
        "",
        "A jsonl file of questions (text or query) that must never be trained on, such as the queries of a test set.",
        "绝不能用于训练的问题（jsonl，字段 text 或 query），例如测试集的查询。",
    )
    num_epochs: float = option(3.0, "Passes over the pairs for the words of answers.", "学习答案用词时的训练轮数。", gt=0, le=100)
    own_epochs: float = option(
        8.0, "Passes over the pairs for the weights of the query's words.", "学习查询词权重时的训练轮数。", gt=0, le=100
    )
    num_tried: int = option(1000, "Questions kept aside on which ways of writing lines are tried.", "用于试选写法的留出问题数。", ge=20)
    refit: bool = option(
        True,
        "Once the way of writing is chosen, learn again from all pairs, those kept aside included (the figures stay those of before).",
        "选定写法后，用全部问答对（含留出部分）重新学习；所报指标仍为重新学习之前的结果。",
        advanced=True,
    )
    width: int = option(64, "Width of the map from queries to words.", "查询到词的映射宽度。", advanced=True, ge=4)
    learning_rate: float = option(0.01, "Peak learning rate of the map.", "映射的最大学习率。", advanced=True, gt=0)
    own_rate: float = option(0.03, "Peak learning rate of the weights.", "词权重的最大学习率。", advanced=True, gt=0)
    own_decay: float = option(0.1, "How strongly weights are held near 1.", "词权重向 1 收缩的强度。", advanced=True, ge=0)
    dropout: float = option(0.1, "Share of a query's words left out at random.", "随机略去的查询词比例。", advanced=True, ge=0, lt=1)
    sparsity: float = option(0.0003, "Price of every predicted word.", "预测词的稀疏惩罚。", advanced=True, ge=0)
    batch_size: int = option(128, "Questions per update of the weights.", "词权重每次更新的问题数。", advanced=True, ge=2)
    term_batch_size: int = option(64, "Questions per update of the map.", "映射每次更新的问题数。", advanced=True, ge=2)
    max_eval: int = option(1000, "At most this many questions are kept aside.", "最多留出多少个问题。", advanced=True, ge=10)


class ExpansionSFTConfig(JobConfig):
    """Query expansion, first stage: learn the lex/vec/hyde lines from rows (LoRA r16 on all projections)."""

    name: str = option(..., "Name of the model version to make.", "生成的模型版本名称。", min_length=1)
    base_model: str = option(
        "expansion-base",
        "Model version, local folder or hub name to start from.",
        "起始模型：版本名、本地目录或 Hub 名称。",
        source="expansion_versions",
        min_length=1,
    )
    data: str = data_field()
    num_epochs: float = option(5.0, "Passes over the rows.", "训练轮数。", gt=0)
    learning_rate: float = option(
        2e-3,
        "Peak learning rate. The default suits the small base; for real models 2e-4.",
        "最大学习率。默认值适合小模型；真实模型建议 2e-4。",
        gt=0,
    )
    batch_size: int = option(16, "Rows per update, all processes together.", "每次更新的样本数（所有进程合计）。", ge=1)
    lora_r: int = f.lora_r()
    lora_alpha: int = f.lora_alpha()
    target_modules: list[Projection] = option(
        ALL_PROJECTIONS, "Projections that get an adapter.", "加适配器的投影层。", advanced=True, min_length=1
    )
    max_length: int = option(512, "Longest row in tokens; longer ones are left out.", "样本最大词元数，超出者不用。", advanced=True, ge=32)
    max_samples: int = option(0, "Use at most this many rows; 0 means all.", "最多使用的样本数；0 表示全部。", advanced=True, ge=0)
    engine: Literal["trl", "compact"] = f.sft_engine()
    micro_batch_size: int = f.micro_batch_size()
    gradient_checkpointing: Literal["auto", "on", "off"] = f.checkpointing()
    save_steps: int = f.save_steps(100)
    num_processes: int = f.num_processes()
    seed: int = option(0, "Seed of weights and data order.", "随机种子。", ge=0)

    @field_validator("micro_batch_size")
    @classmethod
    def _fits(cls, value: int, info: ValidationInfo) -> int:
        return _divides(value, info, "batch_size")

    @field_validator("num_processes")
    @classmethod
    def _is_shared(cls, value: int, info: ValidationInfo) -> int:
        if value > 1 and info.data.get("engine") == "compact":
            raise PydanticCustomError("needs_engine", "needs engine {expected}", {"expected": "trl"})
        return _shares(value, info, "batch_size")


class ExpansionGRPOConfig(JobConfig):
    """Query expansion, second stage: GRPO with the expansion reward on top of the merged SFT (LoRA r4 on q and v, KL to the SFT)."""

    name: str = option(..., "Name of the model version to make.", "生成的模型版本名称。", min_length=1)
    sft_model: str = option(
        ..., "SFT version: start and frozen reference.", "SFT 版本：起点与冻结参考。", source="expansion_versions", min_length=1
    )
    data: str = data_field()
    corpus: str = corpus_field()
    num_steps: int = option(200, "Updates.", "更新步数。", ge=1)
    batch_size: int = option(16, "Completions per update, all processes together.", "每次更新的回答数（所有进程合计）。", ge=2)
    num_generations: int = option(
        4, "Completions per query: the group whose mean is the baseline.", "每个查询的回答数：组内均值作为基线。", ge=2
    )
    beta: float = option(
        0.04,
        "Weight of the KL to the SFT. At least 0.001: without it nothing holds the model to what SFT taught, and the reward can be gamed.",
        "对 SFT 参考的 KL 权重。不小于 0.001：否则没有任何约束使模型保留 SFT 所学，奖励会被钻空子。",
    )
    learning_rate: float = option(
        2e-3,
        "Learning rate of the adapter. The default suits the small base; for real models 5e-7 to 5e-6.",
        "适配器学习率。默认值适合小模型；真实模型建议 5e-7 至 5e-6。",
        gt=0,
    )
    lora_r: int = f.lora_r(4)
    lora_alpha: int = f.lora_alpha(8)
    target_modules: list[Projection] = option(
        ["q_proj", "v_proj"], "Projections that get an adapter.", "加适配器的投影层。", advanced=True, min_length=1
    )
    max_new_tokens: int = option(200, "Longest completion in tokens.", "回答最大词元数。", ge=8)
    temperature: float = option(1.0, "Sampling temperature.", "采样温度。", advanced=True, gt=0)
    max_samples: int = option(1000, "Use at most this many queries; 0 means all.", "最多使用的查询数；0 表示全部。", advanced=True, ge=0)
    max_grad_norm: float = option(0.5, "Gradients are clipped to this norm.", "梯度裁剪的范数上限。", advanced=True, gt=0)
    micro_batch_size: int = f.micro_batch_size()
    gradient_checkpointing: Literal["auto", "on", "off"] = f.checkpointing()
    sample_steps: int = option(25, "Write a table of samples every N updates.", "每 N 步写出样本表。", advanced=True, ge=1)
    save_steps: int = f.save_steps(50)
    num_processes: int = f.num_processes()
    seed: int = option(0, "Seed of sampling and data order.", "随机种子。", ge=0)

    @field_validator("beta")
    @classmethod
    def _holds_on(cls, value: float) -> float:
        if value < LEAST_BETA:
            raise PydanticCustomError("beta_must_hold", "beta must be at least {ge}", {"ge": LEAST_BETA})
        return value

    @field_validator("num_generations")
    @classmethod
    def _is_a_group(cls, value: int, info: ValidationInfo) -> int:
        return _divides(value, info, "batch_size")

    @field_validator("micro_batch_size")
    @classmethod
    def _fits(cls, value: int, info: ValidationInfo) -> int:
        return _divides(value, info, "batch_size")

    @field_validator("num_processes")
    @classmethod
    def _is_shared(cls, value: int, info: ValidationInfo) -> int:
        return _shares(value, info, "batch_size")


class ExpansionEvaluateConfig(JobConfig):
    """Let expansion models answer a file of queries and score every output; or score outputs that exist."""

    name: str = option(..., "Name of the evaluation.", "评测名称。", min_length=1, max_length=100)
    models: list[Annotated[str, Field(min_length=1)]] = option(
        [],
        "Model versions that expand; empty scores the existing outputs alone.",
        "参与扩展的模型版本；留空则只为已有输出评分。",
        source="expansion_versions",
    )
    queries: str = option(
        ...,
        "Queries: an expansion set or jsonl of rows (its test split, else all), or a text file with one query per line.",
        "查询：扩展数据集或 jsonl（取测试划分，否则全部），或每行一个查询的文本文件。",
        source="expansion_sets",
        min_length=1,
    )
    outputs: str = option(
        "",
        "Score only: a jsonl file of query and output that already exist.",
        "仅评分：已有的 query 与 output 的 jsonl 文件。",
    )
    corpus: str = corpus_field()
    encoder: str = option(
        "",
        "Encoder of vec and hyde lines when retrieval is measured (minilm-en or a vector model of ours); empty: lex lines alone.",
        "评测检索时 vec 与 hyde 行使用的向量模型（minilm-en 或本地模型）；留空则只用 lex 行。",
        advanced=True,
    )
    num_queries: int = option(200, "At most this many queries; 0 means all.", "最多使用的查询数；0 表示全部。", ge=0)
    max_new_tokens: int = option(200, "Longest completion in tokens.", "回答最大词元数。", advanced=True, ge=8)
    temperature: float = option(0.0, "Sampling temperature; 0 is greedy.", "采样温度；0 为贪心。", advanced=True, ge=0, le=2)
    batch_size: int = option(32, "Queries answered at once.", "批大小。", advanced=True, ge=1)
    verbose: bool = option(True, "Keep every deduction of every output in the report.", "在报告中保留每条输出的每项扣分。", advanced=True)
    seed: int = option(0, "Seed of sampling and of the intervals.", "采样与区间的随机种子。", ge=0)

    @field_validator("outputs")
    @classmethod
    def _has_something(cls, value: str, info: ValidationInfo) -> str:
        if not value and not info.data.get("models"):
            raise PydanticCustomError("missing", "name a model, or a file of outputs")
        return value
