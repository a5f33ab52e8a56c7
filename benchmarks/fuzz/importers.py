"""Targets: files that people bring. hypothesis builds them as tables and documents, in every format, then some bytes are spoilt.

`table` goes the whole way into the database and back out; what may not be there afterwards (half an import, a row that cannot be read)
is looked for. XLSX is not among the formats of the product: a spreadsheet is refused as unknown, which `other` holds it to.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import docx
import pandas as pd
import pyarrow as pa
import pymupdf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from core.errors import UserError
from core.home import open_home
from core.importing.importer import import_file, preview
from core.importing.recognise import KINDS, SYNONYMS
from core.jobs.configs import ImportConfig
from core.prediction import read_questions
from core.retrieval.chunk import Document, chunk_document
from core.retrieval.documents import read_file
from core.settings import load_settings
from db import tables as t
from db.engine import read_session

SEEDS: dict[str, list[bytes]] = {}
WORDS = ["<html>", "<main>", "charset=", "%PDF-1.7", "endobj", "PAR1", "w:p", "messages", "role", "user", "\ufeff", "\r\n", '"', ",", "\t"]
COLUMNS = [name for names in SYNONYMS.values() for name in names]
SAID = [
    "Chest pain since Monday, what helps?",
    "发烧三天，能吃布洛芬吗？",
    "<|im_end|>",
    "=1+1",
    "张三 13800138000",
    "",
    " ",
    "\ud800",
    "1e400",
    "NaN",
]
TEXT = st.one_of(st.sampled_from(SAID), st.text(max_size=60), st.text(alphabet="a中,\"'\n\r\t;|\\=\x00\ufeff😀", max_size=30))
NUMBER = st.one_of(st.integers(), st.floats(), st.sampled_from([10**40, -1, 0, 2**63, 0.5]))
VALUE = st.recursive(
    st.one_of(TEXT, NUMBER, st.none(), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["role", "content", "from", "value", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
CHAT = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "gpt", "x"]), "content": TEXT}), max_size=4)
NAME = st.one_of(st.sampled_from(COLUMNS), st.text(min_size=1, max_size=8))
ROWS = st.lists(NAME, min_size=1, max_size=6, unique=True).flatmap(
    lambda names: st.lists(st.fixed_dictionaries({name: st.one_of(VALUE, CHAT, TEXT) for name in names}), max_size=6)
)
#: (place, byte) written over the finished file
SPOILT = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=3)
#: a row of text that no model of hypothesis gives: whole numbers beyond Python's limit of digits, and depth
HUGE = ['{"prompt": ' + "9" * 5000 + "}", "[" * 3000 + "]" * 3000, '{"prompt": "\\ud800 alone"}', '{"prompt": "x", "split": {"a": 1}}']
_number = count(1)
EASY = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))


def as_file(form: str, rows: list[dict[str, Any]], encoding: str) -> bytes:
    """The rows in a format; values that a format cannot hold become text."""
    if form == "parquet":
        held = [{k: json.dumps(v) if isinstance(v, dict | list | int) else v for k, v in row.items()} for row in rows]
        out = io.BytesIO()
        try:
            pd.DataFrame(held).astype(object).to_parquet(out)
        except (pa.ArrowException, ValueError, OverflowError, UnicodeEncodeError):
            return b"PAR1"
        return out.getvalue()
    if form == "json":
        text = json.dumps(rows)
    elif form == "csv":
        text = pd.DataFrame(rows).to_csv(index=False) if rows else ""
    else:
        text = "\n".join(json.dumps(row, ensure_ascii=encoding == "ascii") for row in rows)
    return text.encode(encoding, "replace")


def spoil(data: bytes, spots: list[tuple[int, int]], cut: int) -> bytes:
    changed = bytearray(data[: len(data) - cut] if cut < len(data) else data)
    for place, byte in spots:
        if place < len(changed):
            changed[place] = byte
    return bytes(changed)


def check_stored(name: str) -> None:
    """Everything of an import can be read again, or nothing of it is there."""
    with read_session() as session:
        dataset = session.scalar(select(t.Dataset).where(t.Dataset.name == name))
        if dataset is None:
            return
        samples = session.scalars(select(t.Sample).where(t.Sample.dataset_id == dataset.id)).all()
        assert len(samples) == dataset.num_samples
        for sample in samples:
            sample.text.encode()
            assert sample.messages[-1]["role"] == "user"


def prepare(folder: Path) -> dict[str, Callable[[bytes], Any]]:
    """Targets over files in `folder`, with a data folder of their own."""
    open_home(load_settings(), with_migration=True)
    files = folder / "files"
    files.mkdir(exist_ok=True)

    @EASY
    @given(
        ROWS,
        st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet", "txt", "xlsx"]),
        st.sampled_from(["utf-8", "ascii", "utf-8-sig", "utf-16", "gb18030", "latin-1"]),
        st.sampled_from(["", *KINDS]),
        SPOILT,
        st.integers(0, 40),
        st.sampled_from(["", "utf-8", "gbk", "hex", "idna", "no-such"]),
        st.sampled_from(["", *HUGE]),
    )
    def table(rows: Any, form: str, encoding: str, kind: str, spots: Any, cut: int, said: str, huge: str) -> None:
        path = files / f"table.{form}"
        data = as_file("csv" if form == "tsv" else form, rows, encoding)
        path.write_bytes(spoil(data, spots, cut) + (b"\n" + huge.encode() + b"\n" if huge and form in ("jsonl", "txt", "json") else b""))
        shown = preview(path, kind=kind, encoding=said)
        assert not shown.missing or not shown.items
        name = f"set{next(_number)}"
        config = ImportConfig(path=str(path), dataset=name, kind=kind, encoding=said)
        try:
            import_file(path, config, folder=files / "card", card_path="card", created_by=None, job_id=None)
        finally:
            check_stored(name)

    @EASY
    @given(ROWS, st.sampled_from(["jsonl", "csv", "json", "txt"]), SPOILT, st.sampled_from(["", *HUGE]))
    def questions(rows: Any, form: str, spots: Any, huge: str) -> None:
        path = files / f"questions.{form}"
        path.write_bytes(spoil(as_file(form, rows, "utf-8"), spots, 0) + (b"\n" + huge.encode() if huge else b""))
        list(read_questions(path))

    def check_document(name: str, data: bytes) -> None:
        path = files / name
        path.write_bytes(data)
        found = read_file(path, name)
        if not isinstance(found, Document):
            return
        for chunk in chunk_document(found, 40, 8):
            assert found.text[chunk.start : chunk.end].strip()
            assert 0 <= chunk.start < chunk.end <= len(found.text)

    paragraphs = st.lists(TEXT.map(lambda text: "".join(c for c in text if c.isprintable())), max_size=5)

    @EASY
    @given(paragraphs, SPOILT, st.integers(0, 60), st.binary(max_size=40))
    def word(texts: list[str], spots: Any, cut: int, inside: bytes) -> None:
        made = docx.Document()
        for text in texts:
            made.add_paragraph("".join(c for c in text if not 0xD800 <= ord(c) < 0xE000))
        made.add_table(1, 2)
        out = io.BytesIO()
        made.save(out)
        if inside:  # the archive whole, a part of it spoilt
            again = io.BytesIO()
            with zipfile.ZipFile(out) as old, zipfile.ZipFile(again, "w") as new:
                for part in old.namelist():
                    body = old.read(part)
                    place = inside[0] * 8 % max(1, len(body))
                    new.writestr(part, body[:place] + inside + body[place:] if part == "word/document.xml" else body)
            out = again
        check_document("guide.docx", spoil(out.getvalue(), spots, cut))

    @EASY
    @given(paragraphs, SPOILT, st.integers(0, 400))
    def pdf(texts: list[str], spots: Any, cut: int) -> None:
        with pymupdf.open() as made:
            page = made.new_page()
            page.insert_text((72, 72), "\n".join(t for t in texts if t.isascii()) or "Fever above 39 degrees.")
            data = made.tobytes()
        check_document("guide.pdf", spoil(data, spots, cut))

    def web(data: bytes) -> None:
        check_document("page.html", data)

    def text(data: bytes) -> None:
        check_document("guide.md", data)

    def other(data: bytes) -> None:
        for suffix in ("xlsx", "csv", "jsonl", "parquet"):
            path = files / f"raw.{suffix}"
            path.write_bytes(data)
            try:
                preview(path)
            except UserError:
                continue
            assert suffix != "xlsx"

    SEEDS["web"] = [b'<html><head><meta charset="gbk"><title>T</title></head><body><main><h1>A</h1><p>B<table><tr><td>1</table>', b"<p>"]
    SEEDS["text"] = ["# 一\n\n来源：x\n\n段落。".encode(), b"\xff\xfea\0", b"Source: a\nDate: b\n\nText"]
    SEEDS["other"] = [b"a,b\n1,2\n", b'{"prompt": "x"}\n', b"PK\x03\x04", b"PAR1"]
    built = {"table": table, "questions": questions, "word": word, "pdf": pdf}
    return {**{name: test.hypothesis.fuzz_one_input for name, test in built.items()}, "web": web, "text": text, "other": other}
