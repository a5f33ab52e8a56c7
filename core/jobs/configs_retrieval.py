"""The config of the job that builds and updates search indexes."""

from __future__ import annotations

from typing import Literal

from core.jobs.configs import JobConfig, option


class IndexConfig(JobConfig):
    """Build a search index from a folder of documents, or bring one up to date with its folder."""

    name: str = option(
        "guidelines",
        "Name of the index; a new version of it becomes active when the job succeeds.",
        "索引名称；成功后启用新版本。",
        min_length=1,
    )
    action: Literal["build", "update"] = option(
        "build",
        "build: everything anew, as set below. update: only added, changed and deleted documents, with the settings the index has.",
        "build：按下列设置全部重建。update：仅处理新增、更改与删除的文档，沿用索引现有设置。",
    )
    folder: str = option(
        "",
        "Folder with txt, md, pdf, docx and html files; empty means the folder it was built from, or the demo guidelines.",
        "文档目录（txt、md、pdf、docx、html）；留空为构建时所用目录，或演示指南。",
    )
    encoder: str = option(
        "",
        "Embedding model for search by meaning (minilm-en, or one of yours); empty means lexical search only.",
        "用于语义检索的嵌入模型（minilm-en 或自有模型）；留空则仅词面检索。",
    )
    writer: str = option(
        "",
        "Question writer or model version that writes pseudo-questions; empty means none (update: the one it had).",
        "撰写伪问题的模型（问题生成模型或模型版本）；留空则不写（更新时沿用原有）。",
    )
    num_questions: int = option(5, "Pseudo-questions asked for per chunk; 0 means none.", "每个分块的伪问题数；0 表示不写。", ge=0, le=40)
    chunk_unit: Literal["token", "character"] = option(
        "token",
        "What the length of a chunk is counted in.",
        "分块长度的计量单位：token 词元，character 字符。",
        advanced=True,
    )
    chunk_tokens: int = option(256, "Longest chunk in tokens.", "分块最大词元数。", advanced=True, ge=32)
    chunk_overlap: int = option(64, "Tokens that neighbouring chunks share.", "相邻分块重叠词元数。", advanced=True, ge=0)
    chunk_characters: int = option(
        300, "Longest chunk in characters, where characters are counted.", "按字符计量时的分块最大字符数。", advanced=True, ge=50
    )
    similarity: float = option(
        0.9,
        "A chunk this similar to an earlier one of the same title, numbers and negations is left out; 1: only the same text; 0: none.",
        "与同标题、数字与否定词一致的分块相似度达到此值即略去；1 仅略去相同文本；0 不去重。",
        advanced=True,
        ge=0,
        le=1,
    )
    question_depth: int = option(
        10,
        "A pseudo-question is kept when its own chunk is among the first N found by it.",
        "以伪问题检索时其所属分块须在前 N 名内才保留。",
        advanced=True,
        ge=1,
        le=100,
    )
    prune_stats: str = option(
        "",
        "File with hits per entry (JSON, from the retrieval page): pseudo-questions that never or wrongly hit are dropped (update only).",
        "条目命中统计文件（JSON，由检索页导出）：剔除从未命中或误导的伪问题（仅更新时）。",
        advanced=True,
    )
    activate: bool = option(True, "Make the new version active when it is built.", "构建完成后启用新版本。", advanced=True)


class IndexMoveConfig(JobConfig):
    """Move an index to a search engine outside, or back into its own files; nothing is switched before both find the same."""

    name: str = option("guidelines", "Name of the index.", "索引名称。", min_length=1)
    to: Literal["milvus", "opensearch", "own"] = option(
        "milvus",
        "Where it is searched from then on; own: in its own files on this machine. Addresses are settings (docs/scaling.md).",
        "迁移后的检索位置；own 表示使用本机索引文件。服务地址见设置（docs/scaling.md）。",
    )
    num_questions: int = option(
        100,
        "Sample questions whose ten best must be the same in both.",
        "切换前比对的样例问题数，两边前十名须一致。",
        advanced=True,
        ge=10,
        le=2000,
    )
    activate: bool = option(True, "Let it answer from there when that is proven.", "比对一致后即启用。", advanced=True)
    reason: str = option("", "Reason, for the audit log.", "原因，记入审计日志。", advanced=True)
