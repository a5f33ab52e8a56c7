"""The committed demo guidelines: what the generator writes, readable in every format, each saying that it is a demo."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from core.demo_world import GUIDELINES, load_world
from training.demo_guidelines import latin_runs, write

PATHS = sorted(GUIDELINES.iterdir())


def text_of(path: Path) -> str:
    if path.suffix == ".pdf":
        import pymupdf

        with pymupdf.open(path) as document:
            return "\n".join(page.get_text() for page in document)
    return path.read_text("utf-8")


def is_chinese(text: str) -> bool:
    return sum("\u4e00" <= c <= "\u9fff" for c in text) > len(text) / 4


def test_about_sixty_documents_in_three_formats_and_two_languages() -> None:
    assert 55 <= len(PATHS) <= 70
    formats = Counter(path.suffix for path in PATHS)
    assert set(formats) == {".md", ".txt", ".pdf"}
    assert formats[".pdf"] >= 4
    assert sum(path.stat().st_size for path in PATHS) < 2_000_000
    zh = sum(is_chinese(text_of(path)) for path in PATHS) / len(PATHS)
    assert 0.4 <= zh <= 0.6
    assert len({is_chinese(text_of(path)) for path in PATHS if path.suffix == ".pdf"}) == 2


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_document_has_all_its_parts_and_its_length(path: Path) -> None:
    text = text_of(path)
    chinese = is_chinese(text)
    parts = (
        ["演示文档", "最近审阅", "适用人群", "危险信号", "处理要点", "注意避免", "资料来源", "120"]
        if chinese
        else ["DEMO DOCUMENT", "Last reviewed", "Who it is for", "Danger signs", "What to do", "What not to do", "Sources", "120"]
    )
    assert [part for part in parts if part not in text] == []
    assert "\ufffd" not in text
    length = len("".join(text.split())) if chinese else len(text.split())
    assert (300 <= length <= 760) if chinese else (180 <= length <= 420)


def test_the_committed_documents_are_what_the_generator_writes(tmp_path: Path) -> None:
    written = write(tmp_path / "guidelines")
    assert sorted(path.name for path in written) == [path.name for path in PATHS]
    for path in PATHS:
        assert text_of(tmp_path / "guidelines" / path.name) == text_of(path), path.name


def test_pdf_text_holds_the_facts_of_its_condition() -> None:
    world = load_world()
    found = [path for path in PATHS if path.suffix == ".pdf" and path.stem in world.conditions]
    assert found
    for path in found:
        text, condition = "".join(text_of(path).split()), world.conditions[path.stem]
        say = "zh" if is_chinese(text) else "en"
        assert all("".join(flag.sign.of(say).split()).lower() in text.lower() for flag in condition.red_flags)


def test_latin_runs() -> None:
    assert latin_runs("拨打120或前往") == [("拨打", False), ("120", True), ("或前往", False)]
    assert latin_runs("") == []
