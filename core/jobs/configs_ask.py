"""The config of the job that calibrates when the answer is "unknown"."""

from __future__ import annotations

from core.jobs.configs import JobConfig, option


class CalibrateAskConfig(JobConfig):
    """Measure on judged questions below which support an index shall answer "unknown"."""

    index: str = option("guidelines", "Name of the search index.", "检索索引的名称。", min_length=1)
    folder: str = option(
        "",
        "Judged questions in BEIR form (queries.jsonl, qrels.tsv naming documents of the index); empty means those shipped for it.",
        "BEIR 格式的已判定问题（queries.jsonl、qrels.tsv，文档名须与索引一致）；留空则使用随附的问题。",
    )
    max_false_answer: float = option(
        0.10,
        "Share of unanswerable questions that may be answered nevertheless.",
        "允许对无依据问题作答的最大比例。",
        gt=0,
        lt=1,
    )
    max_false_unknown: float = option(
        0.50,
        "Put in force only if at most this share of the answerable questions is called unknown.",
        "仅当有依据的问题被判为“无依据”的比例不超过此值时才启用。",
        gt=0,
        le=1,
    )
    limit: int = option(1000, "At most so many questions.", "最多使用的问题数。", advanced=True, ge=20)
