"""Reading guideline files: encodings, facts, headings, PDF pages, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pymupdf
import pytest

from core.errors import UserError
from core.i18n import error_text
from core.retrieval.chunk import Document
from core.retrieval.documents import Problem, read_folder

MARKDOWN = """# 青光眼：识别与处理

## 最近审阅

2025-01-12

## 危险信号

- **视力骤降**：立即拨打120。

## 资料来源

- NICE NG81, 2017
- NHS, Glaucoma
"""
PLAIN = """Scald burn: first steps

Last reviewed: 2025-02-20

Danger signs

- Burn on the face: call 120.

Sources

- NHS, Burns and scalds
"""


def read(folder: Path) -> dict[str, Document | Problem]:
    return {item.file: item for item in read_folder(folder)}


def pdf(path: Path, pages: list[list[str]], **save: object) -> None:
    with pymupdf.open() as document:
        for lines in pages:
            page = document.new_page()
            for number, line in enumerate(lines):
                page.insert_text((72, 72 + 40 * number), line)
        document.save(path, **save)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_markdown_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "eye.md").write_bytes(MARKDOWN.encode(encoding))
    [document] = read(tmp_path).values()
    assert isinstance(document, Document)
    assert (document.file, document.title, document.date) == ("sub/eye.md", "青光眼：识别与处理", "2025-01-12")
    assert document.source == "NICE NG81, 2017; NHS, Glaucoma"
    assert [s.title for s in document.sections] == ["", "危险信号"], "sources and dates are facts, not text to search"
    danger = document.sections[-1]
    assert "视力骤降：立即拨打120。" in document.text[danger.start : danger.end]


def test_plain_text_headings(tmp_path: Path) -> None:
    (tmp_path / "burn.txt").write_text(PLAIN, encoding="utf-8")
    [document] = read(tmp_path).values()
    assert isinstance(document, Document)
    assert (document.title, document.date, document.source) == ("Scald burn: first steps", "2025-02-20", "NHS, Burns and scalds")
    assert [s.title for s in document.sections] == ["", "Danger signs"]


def test_pdf_keeps_its_pages(tmp_path: Path) -> None:
    pdf(tmp_path / "a.pdf", [["Angina: first steps", "Danger signs", "Chest pain over 15 minutes: call 120."], ["Keep aspirin away."]])
    [document] = read(tmp_path).values()
    assert isinstance(document, Document)
    assert document.title == "Angina: first steps"
    assert [(s.title, s.page) for s in document.sections] == [("", 1), ("Danger signs", 1), ("Danger signs", 2)]
    last = document.sections[-1]
    assert document.text[last.start : last.end].strip() == "Keep aspirin away."


def test_unreadable_files_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("Rest and drink.", encoding="utf-8")
    (tmp_path / "empty.md").write_text(" \n")
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 no more")
    pdf(tmp_path / "scan.pdf", [[]])
    pdf(tmp_path / "locked.pdf", [["secret"]], encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="x", owner_pw="y")
    (tmp_path / "ignored.csv").write_bytes(b"x")
    (tmp_path / ".hidden.txt").write_text("x")
    found = read(tmp_path)
    codes = {name: item.code for name, item in found.items() if isinstance(item, Problem)}
    assert codes == {
        "empty.md": "ask.doc_empty",
        "binary.txt": "ask.doc_encoding",
        "broken.pdf": "ask.doc_broken_pdf",
        "scan.pdf": "ask.doc_no_text",
        "locked.pdf": "ask.doc_locked_pdf",
    }
    assert isinstance(found["good.txt"], Document)
    for item in found.values():
        if isinstance(item, Problem):
            assert item.file in error_text(UserError(item.code, **item.params), "zh")
