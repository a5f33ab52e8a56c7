"""Targets: everything that reads what a model, a person or a disk wrote. Each holds what it read against what must be true of it."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select

from app import guard
from core import audit
from core.completions import sentences, split_completion
from core.deidentify.detect import find
from core.errors import UserError
from core.expansion import gguf, runs_yaml, schema
from core.home import open_home
from core.jobs.files import Metrics, downsampled, tail
from core.retrieval.documents import decode, parse_text
from core.retrieval.lines import Unreadable
from core.settings import Settings, load_settings
from core.teacher.verdict import read_reply, read_verdict
from db import tables as t
from db.engine import write_session

WORDS = [
    *("lex:", "vec:", "hyde:", "<think>", "</think>", "<|im_end|>", "</s>", '"query"', '"output"', '"language"', "\n", "\\ud800", "NaN"),
    *("model:", "dataset:", "training:", "lora:", "base:", "output:", "name:", "!!binary", "&a", "*a", "<<:", "2001-99-99", "0b", "1e999"),
    *("receipt", "teacher_score", "safety_flag", "critique", "suggested_answer", "```json", "choices", "message", "content"),
    *("GGUF", "general.architecture", "step", "loss", "[", "]", "{", "}", "//[", "@", "身份证", "。", "1. ", "Dr. "),
]
YAML = (
    b"model:\n  base: demo-base\n  output: x\ndataset:\n  name: d\n  max_samples: 10\ntraining:\n  batch_size: 2\n  learning_rate: 2e-4\n"
)
VERDICT = b'{"receipt": "r", "teacher_score": 0.5, "safety_flag": false, "critique": "fine", "suggested_answer": null}'
SETTINGS = Settings()
ENTRY = (1, "import", "dataset", "1", None, "{}", "", "2026-01-02 03:04:05.000006", None, None, 2, audit.GENESIS, "0" * 64)


def _tiny_gguf() -> bytes:
    """Version 3, no tensors, two metadata fields: a text and a number."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 2)
    return head + text("general.architecture") + struct.pack("<I", 8) + text("qwen3") + text("q.n") + struct.pack("<II", 4, 7) + b"\0" * 32


SEEDS: dict[str, list[bytes]] = {
    "expansion_answer": ["<think>why</think>\nlex: a b\nvec: 发烧怎么办\nhyde: rest<|im_end|>".encode(), b"lex:\nnothing"],
    "expansion_rows": [b'{"query": "q", "output": [["lex", "a"], ["hyde", "b"]], "language": "en"}\n{"query": 1}\n', b"\xef\xbb\xbf{}"],
    "think": ["<think>想一想。</think>答。 Dr. No. 3.5 mg!".encode(), b"</think>x", b"<think>"],
    "gguf": [_tiny_gguf()],
    "training_yaml": [YAML, b"model: {base: a, base: b}", b"- 1"],
    "settings_toml": [b'port = 1\nlanguage = "en"\nallowed_hosts = ["a"]\n'],
    "verdict": [VERDICT, b"```json\n" + VERDICT + b"\n```"],
    "reply": [b'{"choices": [{"message": {"content": "{}"}, "finish_reason": "length"}]}'],
    "audit_rows": [json.dumps([ENTRY]).encode()],
    "metrics": [b'{"step": 1, "loss": 0.5}\n{"step": 0, "loss": NaN}\n\r50%\r'],
    "text_document": ["---\ntitle: a\n---\n# 一\n来源：x\n\nText.\n".encode()],
    "identifiers": ["患者张三，电话１３８００１３８０００, id 11010519491231002X, a@b.cn".encode()],
    "origin": [b"localhost:80\nhttp://localhost:80\nsame-origin\nnavigate", b"[::1\nhttp://[\n\n"],
}


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def expansion_answer(data: bytes) -> None:
    found = schema.parse_output(_text(data))
    assert all("\n" not in line.text and line.text == line.text.strip() for line in found.lines)
    again = schema.parse_output(schema.render(found.lines))
    assert schema.TEMPLATE.search(schema.render(found.lines)) or again.lines == found.lines
    assert len(found.lines) == len(found.numbers)


def expansion_rows(data: bytes) -> None:
    rows, wrong = schema.check_text(_text(data))
    for row in rows:
        again = schema.check_row(json.loads(json.dumps(row.as_json())), row.number)
        assert again == row, (again, row)
    for problem in wrong:
        str(problem.error("f"))


def think(data: bytes) -> None:
    text = _text(data)
    found = split_completion(text)
    assert found.answer in text.replace("<think>", "") or "<think>" in text
    for part in (found.thinking, found.answer):
        cut = sentences(part)
        assert all(part[one.start : one.end] == one.text for one in cut)
        kept = "".join(one.text for one in cut)
        assert "".join(kept.split()) == "".join(part.split())


def verdict(data: bytes) -> None:
    found = read_verdict(_text(data), "r")
    assert found is None or 0 <= found.teacher_score <= 1


def reply(data: bytes) -> None:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return
    found, reason = read_reply(body, "r")
    assert (found is None) != (reason is None)


def audit_rows(data: bytes) -> None:
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(ENTRY) for row in rows):
        return
    for raw, broken in audit.check(tuple(row) for row in rows):
        # nobody guesses a SHA-256: an entry that passes is one whose own hash fits
        assert broken is not None or len(raw[12]) == 64


def text_document(data: bytes) -> None:
    try:
        document = parse_text(decode(data), "n", is_markdown=data[:1] == b"#")
    except Unreadable:
        return
    assert all(0 <= s.start <= s.end <= len(document.text) for s in document.sections)


def identifiers(data: bytes) -> None:
    text = _text(data)
    found = find(text)
    assert all(0 <= f.start < f.end <= len(text) for f in found)
    assert all(a.end <= b.start for a, b in itertools.pairwise(found))


def origin(data: bytes) -> None:
    """The door's reading of Host, Origin and Sec-Fetch headers and of the cookie; whatever they hold, a refusal at worst."""
    values = [*data.split(b"\n"), b"", b"", b"", b""]
    names = (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"cookie", b"authorization")
    headers = [(name, value.strip()) for name, value in zip(names, values, strict=False) if value.strip()]
    for kind, method in (("http", "POST"), ("http", "GET"), ("websocket", "")):
        scope = {"type": kind, "method": method, "path": "/api/me", "headers": headers, "query_string": b""}
        found = guard.Headers(scope=scope)
        refused = guard._check_origin(scope, found, SETTINGS)
        assert refused is None or refused[0] in (400, 403)
        guard._token(found, "/api/me", SETTINGS)


def prepare(folder: Path) -> dict[str, Callable[[bytes], None]]:
    """The targets; those that read files do so in `folder`."""
    open_home(load_settings(), with_migration=True)
    with write_session() as session:  # the base that the seeds name, so that a config can also be accepted
        if session.scalar(select(t.ModelVersion.id)) is None:
            session.add(t.ModelVersion(name="demo-base", kind="base"))
    files = folder / "files"
    files.mkdir(exist_ok=True)

    def from_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
        def target(data: bytes) -> None:
            (files / name).write_bytes(data)
            read(files / name)

        return target

    def read_metrics(path: Path) -> None:
        text = tail(path, 20).text
        assert "\r" not in text.replace("\r\n", "")
        metrics = Metrics(path)
        metrics.read()
        for points in metrics.series.values():
            assert all(a[0] < b[0] for a, b in itertools.pairwise(points))
            downsampled(points, 10)

    def read_toml(path: Path) -> None:
        load_settings({"CONSILIUM_HOME": str(folder / "home")}, path)

    def read_rows(path: Path) -> None:
        try:
            schema.check_file(path)
        except UserError:
            expansion_rows(path.read_bytes())

    return {
        "expansion_answer": expansion_answer,
        "expansion_rows": from_file("rows.jsonl", read_rows),
        "think": think,
        "gguf": from_file("model.gguf", gguf.metadata),
        "training_yaml": from_file(
            "sft.yaml", lambda path: runs_yaml.read(path, "sft", accelerate=path if path.stat().st_size % 4 == 0 else None)
        ),
        "settings_toml": from_file("consilium.toml", read_toml),
        "verdict": verdict,
        "reply": reply,
        "audit_rows": audit_rows,
        "metrics": from_file("metrics.jsonl", read_metrics),
        "text_document": text_document,
        "identifiers": identifiers,
        "origin": origin,
    }
