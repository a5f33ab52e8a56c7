"""Reading a folder of guideline documents: txt, md and pdf. A file that cannot be read is reported by name, never fatal.

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
from core.retrieval.tokens import CJK

SUFFIXES = (".txt", ".md", ".pdf")
MAX_BYTES = 100 * 1024 * 1024
#: Larger than any prose: more control characters than this share means that the bytes are not text.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
FACT = re.compile(
    r"^[\s>*_\-–—]*(?P<name>sources?|来源|出处|资料来源|date|updated|last updated|日期|更新日期|更新|title|标题)[\s*_]*[:：][\s*_]*"
    r"(?P<value>.+?)[\s*_]*$",
    re.IGNORECASE | re.MULTILINE,
)
SOURCE_NAMES = {"source", "sources", "来源", "出处", "资料来源"}
TITLE_NAMES = {"title", "标题"}
HEADING = re.compile(r"^(?P<marks>#{1,6})\s+(?P<title>.+?)\s*#*$")
MARKUP = re.compile(r"\*\*|__|`|!?\[(?P<label>[^\]]*)\]\([^)]*\)")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file was left out. `code` names its sentence in assets/i18n/ask.toml."""

    file: str
    code: str
    params: dict[str, Any]


class _Unreadable(Exception):
    def __init__(self, code: str, **params: Any) -> None:
        self.code, self.params = code, params
        super().__init__(code)


def find_files(folder: Path) -> list[Path]:
    """Every txt, md and pdf below `folder`, hidden ones left out, in a fixed order."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def read_folder(folder: Path) -> Iterator[Document | Problem]:
    """Each file as a document, or as the problem that kept it out."""
    for path in find_files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            yield read_document(path, name)
        except _Unreadable as error:
            yield Problem(name, error.code, {"file": name, **error.params})
        except OSError as error:
            yield Problem(name, "ask.doc_unreadable", {"file": name, "reason": error.strerror or str(error)})


def read_document(path: Path, name: str) -> Document:
    """One file. Raises OSError, or an internal error that `read_folder` reports."""
    if path.stat().st_size > MAX_BYTES:
        raise _Unreadable("ask.doc_too_large", limit_mb=MAX_BYTES // 2**20)
    if path.suffix.lower() == ".pdf":
        return _read_pdf(path, name)
    return parse_text(decode(path.read_bytes()), name, is_markdown=path.suffix.lower() == ".md")


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
    raise _Unreadable("ask.doc_encoding")


def parse_text(raw: str, name: str, *, is_markdown: bool = False) -> Document:
    """A document from plain text or Markdown. Markup is taken out first; offsets belong to the cleaned text."""
    facts = _facts(raw)
    title, lines, heads = facts.get("title", ""), [], []
    offset = 0
    for line in _without_front_matter(raw).split("\n"):
        heading = HEADING.match(line) if is_markdown else None
        if heading:
            clean = _clean(heading["title"])
            if not title and heading["marks"] == "#":
                title = clean
            heads.append((offset, clean))
        else:
            clean = _clean(line) if is_markdown else line.rstrip()
        lines.append(clean)
        offset += len(clean) + 1
    text = "\n".join(lines)
    if not text.strip():
        raise _Unreadable("ask.doc_empty")
    if not title:
        title = next((line.strip() for line in lines if line.strip() and not FACT.match(line)), name)[:120]
    sections = _sections(heads, len(text))
    return Document(name, title, text, sections, facts.get("source", ""), facts.get("date", ""))


def _read_pdf(path: Path, name: str) -> Document:
    import pymupdf  # a heavy import that searching does not need

    pymupdf.TOOLS.mupdf_display_errors(False)
    try:
        pdf = pymupdf.open(path)
    except (RuntimeError, ValueError) as error:  # pymupdf's own errors derive from these
        raise _Unreadable("ask.doc_broken_pdf") from error
    with pdf:
        if pdf.needs_pass:
            raise _Unreadable("ask.doc_locked_pdf")
        parts, sections, offset = [], [], 0
        try:
            pages = ["\n".join(_paragraphs(page)) for page in pdf]
        except (RuntimeError, ValueError) as error:
            raise _Unreadable("ask.doc_broken_pdf") from error
        metadata = pdf.metadata or {}
    for number, page_text in enumerate(pages, start=1):
        parts.append(page_text)
        sections.append(Section("", offset, offset + len(page_text), number))
        offset += len(page_text) + 1
    text = "\n".join(parts)
    if not text.strip():
        raise _Unreadable("ask.doc_no_text")
    facts = _facts(text)
    first = next(line.strip() for line in text.split("\n") if line.strip())
    title = facts.get("title") or (metadata.get("title") or "").strip() or first
    return Document(name, title[:120], text, tuple(sections), facts.get("source", ""), facts.get("date", ""))


def _paragraphs(page: Any) -> Iterator[str]:
    """The text blocks of a PDF page, each as one line: broken lines joined, hyphens at line ends healed."""
    for block in page.get_text("blocks", sort=True):
        if block[6] != 0:  # an image
            continue
        joined = ""
        for line in str(block[4]).split("\n"):
            line = line.strip()
            if not joined or not line:
                joined += line
            elif joined.endswith("-") and line[0].islower():
                joined = joined[:-1] + line
            elif re.search(f"[{CJK}，。、；：）]$", joined) and re.match(f"[{CJK}（，。、；：]", line):
                joined += line
            else:
                joined += " " + line
        if joined:
            yield joined


def _facts(text: str) -> dict[str, str]:
    """Source, date and title lines; several sources are joined."""
    facts: dict[str, str] = {}
    for match in FACT.finditer(text):
        name, value = match["name"].lower(), _clean(match["value"]).strip("\"' ")
        if name in SOURCE_NAMES:
            facts["source"] = "; ".join(dict.fromkeys(filter(None, [facts.get("source", ""), value])))
        elif name in TITLE_NAMES:
            facts.setdefault("title", value)
        else:
            facts.setdefault("date", value)
    return facts


def _without_front_matter(raw: str) -> str:
    if raw.startswith("---\n"):
        _, found, rest = raw[4:].partition("\n---\n")
        return rest if found else raw
    return raw


def _sections(heads: list[tuple[int, str]], length: int) -> tuple[Section, ...]:
    """Sections from the offsets at which headings stand; the text before the first heading has no title."""
    starts = [(0, "")] * (not heads or heads[0][0] > 0) + heads
    ends = [start for start, _ in starts[1:]] + [length]
    return tuple(Section(title, start, end) for (start, title), end in zip(starts, ends, strict=True))


def _clean(line: str) -> str:
    return MARKUP.sub(lambda m: m["label"] or "", line).rstrip()
