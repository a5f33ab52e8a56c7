"""Reading a folder of documents: txt, md, pdf, docx and html. A file that cannot be read is reported by name, never fatal.

Text files may be UTF-8 (with or without mark), UTF-16 with mark, or GB18030. Lines such as "Source: ..." or "来源：..." and
"Date: ..." give a document its source and date; headings give sections; PDF pages keep their numbers. Called by the index job.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.retrieval.chunk import Document, Section
from core.retrieval.document_formats import docx_lines, html_lines
from core.retrieval.lines import Line, Unreadable
from core.retrieval.tokens import CJK

SUFFIXES = (".txt", ".md", ".pdf", ".docx", ".html", ".htm")
#: documents in a form that we do not read: named in the result, so that nobody believes them indexed
OTHER_SUFFIXES = (".doc", ".rtf", ".odt", ".ppt", ".pptx", ".xls", ".xlsx", ".epub", ".wps", ".xml")
MAX_BYTES = 100 * 1024 * 1024
#: Larger than any prose: more control characters than this share means that the bytes are not text.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
SOURCE_NAMES = frozenset({"source", "sources", "reference", "references", "来源", "出处", "资料来源", "参考资料", "参考文献"})
DATE_NAMES = frozenset({"date", "updated", "last updated", "last reviewed", "日期", "更新", "更新日期", "最近更新", "最近审阅"})
TITLE_NAMES = frozenset({"title", "标题"})
FACT = re.compile(rf"^({'|'.join(SOURCE_NAMES | DATE_NAMES | TITLE_NAMES)})[ *_]*[:：][ *_]*(.+)$", re.IGNORECASE)
HEADING = re.compile(r"^(#{1,6})\s+(.+?)\s*#*$")
BULLET = re.compile(r"^\s*(?:[-*•·]|\d{1,2}[.)、])\s*")
MARKUP = re.compile(r"\*\*|__|`|!?\[(?P<label>[^\]]*)\]\([^)]*\)")
MAX_HEADING = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file was left out. `code` names its sentence in assets/i18n."""

    file: str
    code: str
    params: dict[str, Any]


def find_files(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Every readable file below `folder`, hidden ones and Word's lock files left out, in a fixed order."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in suffixes and not p.name.startswith("~$"))
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def other_files(folder: Path) -> list[Problem]:
    """Documents in a form that is not read."""
    names = [path.relative_to(folder).as_posix() for path in find_files(folder, OTHER_SUFFIXES)]
    return [Problem(name, "index.doc_other_form", {"file": name}) for name in names]


def read_folder(folder: Path) -> Iterator[Document | Problem]:
    """Each file as a document, or as the problem that kept it out."""
    for path in find_files(folder):
        yield read_file(path, path.relative_to(folder).as_posix())


def read_file(path: Path, name: str) -> Document | Problem:
    """One file as the document `name`, or as the problem that kept it out."""
    try:
        return read_document(path, name)
    except Unreadable as error:
        return Problem(name, error.code, {"file": name, **error.params})
    except OSError as error:
        return Problem(name, "ask.doc_unreadable", {"file": name, "reason": error.strerror or str(error)})


def read_document(path: Path, name: str) -> Document:
    """One file. Raises OSError, or an internal error that `read_folder` reports."""
    if path.stat().st_size > MAX_BYTES:
        raise Unreadable("ask.doc_too_large", limit_mb=MAX_BYTES // 2**20)
    match path.suffix.lower():
        case ".pdf":
            return _read_pdf(path, name)
        case ".docx":
            return _assemble(name, *docx_lines(path))
        case ".html" | ".htm":
            return _assemble(name, *html_lines(path.read_bytes(), decode))
        case suffix:
            return parse_text(decode(path.read_bytes()), name, is_markdown=suffix == ".md")


def decode(data: bytes) -> str:
    """Bytes of a text file in one of the encodings such files are found in."""
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ["utf-16"] if is_utf16 else ["utf-8-sig", "gb18030"]:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not CONTROL.search(text):
            return text.replace("\r\n", "\n").replace("\r", "\n")
    raise Unreadable("ask.doc_encoding")


def parse_text(raw: str, name: str, *, is_markdown: bool = False) -> Document:
    """A document from plain text or Markdown. Markup is taken out first; offsets belong to the cleaned text."""
    facts: dict[str, str] = {}
    if raw.startswith("---\n") and "\n---\n" in raw[4:]:  # front matter
        front, _, raw = raw[4:].partition("\n---\n")
        for line in front.split("\n"):
            _take_fact(line, facts)
    rows = raw.split("\n")
    if is_markdown:
        lines = [Line(_clean(m[2]), is_heading=True) if (m := HEADING.match(row)) else Line(_clean(row)) for row in rows]
    else:
        around = ["", *rows, ""]
        lines = [
            Line(row.rstrip(), is_heading=not above.strip() and not below.strip() and _looks_like_heading(row))
            for above, row, below in zip(around, rows, around[2:], strict=False)
        ]
    return _assemble(name, lines, facts)


def _read_pdf(path: Path, name: str) -> Document:
    import pymupdf  # a heavy import that searching does not need

    pymupdf.TOOLS.mupdf_display_errors(False)
    try:
        with pymupdf.open(path) as pdf:
            if pdf.needs_pass:
                raise Unreadable("ask.doc_locked_pdf")
            lines = [
                Line(text, is_heading=_looks_like_heading(text), page=number)
                for number, page in enumerate(pdf, start=1)
                for text in _paragraphs(page)
            ]
            title = str((pdf.metadata or {}).get("title") or "").strip()
    except (RuntimeError, ValueError) as error:  # pymupdf's own errors derive from these
        raise Unreadable("ask.doc_broken_pdf") from error
    if not lines:
        raise Unreadable("ask.doc_no_text")
    return _assemble(name, lines, {"title": title} if title else {})


def _paragraphs(page: Any) -> Iterator[str]:
    """The lines of a PDF page as they were meant: broken lines joined, hyphens at line ends healed, bullets apart."""
    for block in page.get_text("blocks", sort=True):
        if block[6] != 0:  # an image
            continue
        joined = ""
        for line in str(block[4]).split("\n"):
            line = line.strip()
            if joined and BULLET.match(line):
                yield joined
                joined = line
            elif not joined or not line:
                joined += line
            elif joined.endswith("-") and line[0].islower():
                joined = joined[:-1] + line
            elif re.search(f"[{CJK}，。、；：）]$", joined) and re.match(f"[{CJK}（，。、；：]", line):
                joined += line
            else:
                joined += " " + line
        if joined:
            yield joined


def _assemble(name: str, lines: list[Line], facts: dict[str, str]) -> Document:
    """Lines to text, headings to sections, and the sections that only name sources or a date to facts."""
    starts: list[tuple[int, str, int | None]] = []  # offset, section title, page
    offset, section = 0, ""
    title = facts.get("title", "")
    for number, line in enumerate(lines):
        if not title and line.text.strip() and not FACT.match(line.text):
            title = line.text.strip()[:120]
        is_title = line.is_heading and line.text.strip() == title
        if line.is_heading:
            section = "" if is_title else line.text.strip()
        if number == 0 or line.is_heading or line.page != lines[number - 1].page:
            starts.append((offset, section, line.page))
        if section.lower() in SOURCE_NAMES | DATE_NAMES and not line.is_heading:
            _take_fact(f"{section}: {BULLET.sub('', line.text)}", facts)
        else:
            _take_fact(line.text, facts)
        offset += len(line.text) + 1
    text = "\n".join(line.text for line in lines)
    if not text.strip():
        raise Unreadable("ask.doc_empty")
    ends = [start for start, _, _ in starts[1:]] + [len(text)]
    sections = tuple(
        Section(heading, start, end, page)
        for (start, heading, page), end in zip(starts, ends, strict=True)
        if heading.lower() not in SOURCE_NAMES | DATE_NAMES
    )
    return Document(name, title or name, text, sections, facts.get("source", ""), facts.get("date", ""))


def _take_fact(line: str, facts: dict[str, str]) -> None:
    match = FACT.match(line.strip(" \t>*_-–—"))
    if match is None:
        return
    name, value = match[1].lower(), _clean(match[2]).strip("*_\"' ")
    if name in SOURCE_NAMES:
        facts["source"] = "; ".join(dict.fromkeys(filter(None, [facts.get("source", ""), value])))
    else:
        facts.setdefault("title" if name in TITLE_NAMES else "date", value)


def _looks_like_heading(line: str) -> bool:
    """A short line by itself that neither ends like a sentence nor begins like a list."""
    line = line.strip()
    return 0 < len(line) <= MAX_HEADING and line[-1] not in ".。!！?？,，;；:：" and not BULLET.match(line) and not FACT.match(line)


def _clean(line: str) -> str:
    return MARKUP.sub(lambda m: m["label"] or "", line).rstrip()
