"""What a file holds: kind of dataset and which column means what, recognised from file name and column names. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

#: Our fields and the names under which public and pipeline files carry them, most specific first.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "chat", "dialogue"),
    "prompt": (
        "prompt",
        "question",
        "query",
        "ask",
        "instruction",
        "input_text",
        "question_text",
        "user",
        "input",
        "text",
        "问题",
        "提问",
        "患者提问",
    ),
    "completion": ("completion", "completions", "response", "responses", "model_answer", "generated", "output_text", "模型回答"),
    "chosen": ("chosen", "preferred", "better"),
    "rejected": ("rejected", "dispreferred", "worse"),
    "reference": (
        "reference",
        "reference_answer",
        "answer",
        "gold_answer",
        "best_answer",
        "target",
        "output",
        "expected",
        "参考答案",
        "回答",
        "答案",
        "医生回答",
    ),
    "title": ("title", "标题"),
    "category": ("category", "department", "topic", "label", "科室", "类别", "分类"),
    "risk": ("risk", "risk_level", "severity", "风险", "风险等级"),
    "language": ("language", "lang", "语言"),
    "split": ("split", "subset", "划分"),
    "source": ("source", "url", "origin", "来源"),
    "external_id": ("external_id", "id", "_id", "qid", "uid", "编号"),
    "key_points": ("key_points", "keypoints", "must_have"),
    "forbidden": ("forbidden", "must_not"),
    "teacher_score": ("teacher_score", "score", "judge_score"),
    "safety_flag": ("safety_flag", "unsafe", "is_unsafe"),
    "critique": ("critique", "rationale", "comment"),
    "suggested_answer": ("suggested_answer", "suggestion", "advice"),
    "teacher": ("teacher", "judge", "teacher_model"),
}
FIELDS = tuple(SYNONYMS)
KINDS = ("prompts", "completions", "messages", "preferences", "gold", "red_team", "judgements", "conflicts")

#: The pipeline's own file names.
BY_FILE_NAME = {
    "training_prompts": "prompts",
    "teacher_judgements": "judgements",
    "teacher_judgments": "judgements",
    "teacher_conflicts": "conflicts",
    "gold_set": "gold",
    "red_team": "red_team",
}

#: What each kind cannot do without (one alternative must be complete).
REQUIRED: dict[str, tuple[tuple[str, ...], ...]] = {
    "prompts": (("prompt",), ("messages",)),
    "gold": (("prompt",), ("messages",)),
    "red_team": (("prompt",), ("messages",)),
    "completions": (("prompt", "completion"), ("messages", "completion")),
    "messages": (("messages",),),
    "preferences": (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
    "judgements": (("prompt", "completion", "teacher_score"), ("messages", "completion", "teacher_score")),
    "conflicts": (("prompt", "completion"), ("messages", "completion")),
}


def recognise_mapping(columns: Iterable[str]) -> dict[str, str]:
    """Our field -> column, each column used once; exact names first, then known other names."""
    names = list(columns)
    by_key = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in reversed(names)}
    mapping: dict[str, str] = {}
    for field in FIELDS:
        for synonym in SYNONYMS[field]:
            column = by_key.get(synonym)
            if column is not None and column not in mapping.values():
                mapping[field] = column
                break
    return mapping


def recognise_kind(file_name: str, mapping: Mapping[str, str], first_rows: Iterable[Mapping[str, Any]] = ()) -> str:
    """The kind of dataset. Pipeline file names win; otherwise the columns decide."""
    stem = file_name.rsplit("/", 1)[-1].lower()
    for known, kind in BY_FILE_NAME.items():
        if stem.startswith(known):
            return kind
    if "chosen" in mapping and "rejected" in mapping:
        return "preferences"
    if "teacher_score" in mapping and "completion" in mapping:
        return "judgements"
    if "messages" in mapping:
        return "messages"
    if "completion" in mapping:
        return "completions"
    return "prompts"


def missing_fields(kind: str, mapping: Mapping[str, str]) -> list[str]:
    """Fields that must still be mapped, for the alternative that lacks fewest; empty when the mapping is complete."""
    return min(([f for f in fields if f not in mapping] for fields in REQUIRED[kind]), key=len)


def as_messages(value: Any) -> list[dict[str, str]] | None:
    """A chat as a list of {role, content}, accepting JSON text and the from/value form; None when it is not one."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, list) or not value:
        return None
    roles = {"human": "user", "gpt": "assistant", "bot": "assistant", "doctor": "assistant", "patient": "user"}
    found = []
    for turn in value:
        if not isinstance(turn, dict):
            return None
        role = str(turn.get("role", turn.get("from", ""))).lower()
        content = turn.get("content", turn.get("value"))
        role = roles.get(role, role)
        if role not in {"system", "user", "assistant"} or not isinstance(content, str):
            return None
        found.append({"role": role, "content": content})
    return found
