"""The config of the job that makes a set of query expansions. Same rules as `core.jobs.configs`."""

from __future__ import annotations

from typing import Literal

from core.jobs.fields import JobConfig, option


class ExpansionDataConfig(JobConfig):
    """Rows from judged folders, from what people opened in Ask, or from a teacher model; stored as a set, split by family."""

    name: str = option(
        ..., "Name of the set that is made.", "要生成的数据集名称。", min_length=1, max_length=100, pattern=r"^[^/\\\s][^/\\]*$"
    )
    source: Literal["folder", "clicks", "teacher"] = option(
        "folder",
        "folder: training pairs of a folder in BEIR form; clicks: what people opened in Ask; teacher: a model version writes.",
        "folder：BEIR 格式目录中的训练对；clicks：问答中被打开的段落；teacher：由模型版本撰写。",
    )
    folder: str = option(
        "",
        "Folder with corpus, queries and train_pairs; for a teacher, the folder whose questions it expands.",
        "含 corpus、queries、train_pairs 的目录；使用教师模型时，取其中的问题。",
    )
    queries: str = option(
        "", "For a teacher: a text file with one query per line, instead of a folder.", "教师模型：每行一个查询的文本文件，可代替目录。"
    )
    teacher: str = option("", "Model version that writes the lines.", "撰写扩展行的模型版本。")
    limit: int = option(
        2000, "At most so many pairs or queries; 0 takes all.", "最多处理多少对或多少个查询；0 表示全部。", ge=0, le=1_000_000
    )
    use_grounding: bool = option(True, "Leave out rows whose lines do not find their own passage.", "去掉检索不到自身段落的条目。")
    augment: bool = option(True, "Add short wordings of long queries.", "为长查询补充简短问法。")
