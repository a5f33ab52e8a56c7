"""One raw row to one validated item, or to the reason why not. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.completions import split_completion
from core.datasets import content_hash
from core.importing.readers import RawRow, RowError
from core.importing.recognise import as_messages
from core.records import Completion, Judgement, Language, Message, Risk, Split

MAX_TEXT = 100_000
CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
LETTER = re.compile(r"[A-Za-z]")
#: half of a character, as JSON inside a cell may write it: no text, and nothing that can be stored
HALF = re.compile("[\ud800-\udfff]")
#: Chat-template marks left over in exported files; they would otherwise reach the model as text.
TEMPLATE_MARK = re.compile(r"<\|(?:eot_id|im_end|im_start|endoftext|end_of_text|begin_of_text)\|>")
RISKS = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "低": "low",
    "中": "medium",
    "高": "high",
    "1": "low",
    "2": "medium",
    "3": "high",
}
SPLITS = {"train": "train", "training": "train", "dev": "dev", "valid": "dev", "validation": "dev", "val": "dev", "test": "test"} | {
    "gold": "gold",
    "red_team": "red_team",
    "redteam": "red_team",
}
TRUE = {"true", "1", "yes", "是", "unsafe"}
FALSE = {"false", "0", "no", "否", "safe", ""}


@dataclass(slots=True)
class Item:
    """A validated row, ready to be stored. `split` is None until the splitter has spoken."""

    row: int
    line: int | None
    messages: tuple[Message, ...]
    language: Language
    risk: Risk | None
    split: Split | None
    category: str = "general"
    source: str = ""
    external_id: str | None = None
    reference: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    completions: list[Completion] = field(default_factory=list)
    pair: tuple[str, str] | None = None
    judgement: Judgement | None = None
    is_conflict: bool = False
    #: last user turn, and SHA-256 of the normalised messages
    text: str = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = next((m.content for m in reversed(self.messages) if m.role == "user"), "")
        self.digest = content_hash([[m.role, m.content] for m in self.messages])


class _Bad(Exception):
    def __init__(self, code: str, **params: Any) -> None:
        self.code, self.params = code, params
        super().__init__(code)


def detect_language(text: str) -> Language:
    """Chinese when at least a fifth of the letters are CJK characters."""
    num_cjk, num_latin = len(CJK.findall(text)), len(LETTER.findall(text))
    return Language.ZH if num_cjk and num_cjk * 4 >= num_latin else Language.EN


def convert(raw: RawRow, kind: str, mapping: Mapping[str, str]) -> Item | RowError:
    """Validate one row for its kind. Every refusal names the field and the reason."""
    try:
        return _convert(raw, kind, mapping)
    except _Bad as bad:
        return RowError(raw.row, raw.line, bad.code, bad.params)


def _convert(raw: RawRow, kind: str, mapping: Mapping[str, str]) -> Item:
    def get(name: str) -> Any:
        value = raw.values.get(mapping[name]) if name in mapping else None
        return None if isinstance(value, str) and not value.strip() else value

    messages, final_answer = _messages(get, kind)
    text = next(m.content for m in reversed(messages) if m.role == "user")
    item = Item(
        row=raw.row,
        line=raw.line,
        messages=messages,
        language=_choice(
            get("language"), {"en": "en", "zh": "zh", "english": "en", "chinese": "zh", "zh-cn": "zh", "中文": "zh"}, "language", Language
        )
        or detect_language(text),
        risk=_choice(get("risk"), RISKS, "risk", Risk),
        split=_choice(get("split"), SPLITS, "split", Split),
        category=_text(get("category"), "category", limit=200) or "general",
        source=_text(get("source"), "source", limit=2000),
        external_id=_text(get("external_id"), "external_id", limit=500) or None,
        reference=_text(get("reference"), "reference") or None,
        meta={key: _strings(get(key), key) for key in ("key_points", "forbidden") if get(key) is not None},
    )
    if title := _text(get("title"), "title", limit=2000):
        item.meta["title"] = title
    if kind in {"gold", "red_team"}:
        item.split = Split(kind)
    if final_answer:
        item.completions.append(split_completion(final_answer))
    if kind in {"completions", "judgements", "conflicts"}:
        item.completions += [split_completion(c) for c in _strings(get("completion"), "completion")]
        if not item.completions:
            raise _Bad("row_missing", field="completion")
    if kind == "preferences":
        item.pair = (_answer(get("chosen"), "chosen"), _answer(get("rejected"), "rejected"))
        if item.pair[0].strip() == item.pair[1].strip():
            raise _Bad("row_same_pair")
    if kind == "judgements" or (kind == "conflicts" and get("teacher_score") is not None):
        item.judgement = _judgement(get)
    item.is_conflict = kind == "conflicts"
    return item


def _messages(get: Any, kind: str) -> tuple[tuple[Message, ...], str]:
    """The prompt as messages, and the assistant's last turn when the chat ends with one."""
    value = get("messages")
    if value is None and kind == "preferences" and get("prompt") is None:
        value = get("chosen")  # a chat on both sides, as preference sets are often published
    if value is None:
        text = _text(get("prompt"), "prompt")
        if not text:
            raise _Bad("row_missing", field="prompt")
        return (Message("user", text),), ""
    turns = as_messages(value)
    if turns is None:
        raise _Bad("row_bad_messages")
    final = turns.pop()["content"] if turns[-1]["role"] == "assistant" else ""
    _check_whole(final, "messages")
    turns = [{"role": m["role"], "content": _text(m["content"], "messages")} for m in turns]
    if not turns or turns[-1]["role"] != "user" or not turns[-1]["content"]:
        raise _Bad("row_no_user_turn")
    return tuple(Message(m["role"], m["content"]) for m in turns), "" if kind == "preferences" else final


def _text(value: Any, name: str, limit: int = MAX_TEXT) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        raise _Bad("row_not_text", field=name, found=type(value).__name__)
    text = TEMPLATE_MARK.sub("", str(value)).replace("\x00", "").strip()
    _check_whole(text, name)
    if len(text) > limit:
        raise _Bad("row_too_long", field=name, length=len(text), limit=limit)
    return text


def _check_whole(text: str, name: str) -> None:
    if HALF.search(text):
        raise _Bad("row_half_character", field=name)


def _answer(value: Any, name: str) -> str:
    turns = as_messages(value) if not isinstance(value, str) else None
    text = turns[-1]["content"] if turns else _text(value, name)
    if not text:
        raise _Bad("row_missing", field=name)
    _check_whole(text, name)
    return text


def _strings(value: Any, name: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = [value]
    texts = [_text(v, name) for v in (value if isinstance(value, list) else [value])]
    return [v for v in texts if v]


def _choice(value: Any, menu: Mapping[str, str], name: str, kind: type[Any]) -> Any:
    if value is None:
        return None
    key = str(value).strip().lower()
    if key not in menu:
        raise _Bad("row_off_menu", field=name, found=key[:60], known=", ".join(sorted(set(menu.values()))))
    return kind(menu[key])


def _judgement(get: Any) -> Judgement:
    try:
        score = float(get("teacher_score"))
    except (TypeError, ValueError):
        raise _Bad("row_bad_score", found=str(get("teacher_score"))[:60]) from None
    if not 0 <= score <= 1:
        raise _Bad("row_bad_score", found=score)
    flag = str(get("safety_flag")).strip().lower() if get("safety_flag") is not None else ""
    if flag not in TRUE | FALSE:
        raise _Bad("row_off_menu", field="safety_flag", found=flag[:60], known="true, false")
    return Judgement(
        teacher=_text(get("teacher"), "teacher", limit=200) or "imported",
        rubric_version="imported",
        teacher_score=score,
        safety_flag=None if get("safety_flag") is None else flag in TRUE,
        critique=_text(get("critique"), "critique"),
        suggested_answer=_text(get("suggested_answer"), "suggested_answer") or None,
    )
