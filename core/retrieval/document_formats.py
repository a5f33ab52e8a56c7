"""Word files and web pages as lines with headings; what is not the document (scripts, navigation, forms) stays out.

A web page is read from its <main> or its only <article> when it has one. Nothing is fetched and no entity is resolved. Called by
core.retrieval.documents.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from core.retrieval.lines import Line, Unreadable

#: a compressed file that unpacks to more than this is no document
MAX_UNPACKED = 500 * 1024 * 1024
HEADING_STYLE = re.compile(r"(heading|标题|überschrift)\s*\d*$", re.IGNORECASE)
TITLE_STYLE = re.compile(r"(title|标题|书名)$", re.IGNORECASE)
LIST_STYLE = re.compile(r"(list|列表|列出)", re.IGNORECASE)

NOT_TEXT = frozenset(
    re.findall(
        r"\w+",
        "script style nav noscript template svg iframe form button select input textarea object embed canvas audio video dialog menu",
    )
)
AROUND = frozenset({"header", "footer", "aside"})
BLOCKS = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote body br caption dd details div dl dt fieldset figcaption figure footer h1 h2 h3 h4 h5 h6 header "
        "hr li main ol p pre section summary table tbody thead tr ul",
    )
)
HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
CHARSET = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?([\w-]+)", re.IGNORECASE)
DATE_METAS = ("article:modified_time", "dcterms.modified", "last-modified", "date", "article:published_time", "dc.date")


def docx_lines(path: Path) -> tuple[list[Line], dict[str, str]]:
    """Paragraphs and table rows in order, with the page where Word noted its page breaks; and the title it was saved under."""
    import docx  # a heavy import that searching does not need
    from docx.opc.exceptions import PackageNotFoundError
    from docx.table import Table

    try:
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > MAX_UNPACKED:
                raise Unreadable("ask.doc_too_large", limit_mb=MAX_UNPACKED // 2**20)
        document = docx.Document(str(path))
        lines: list[Line] = []
        page = 1
        breaks = _page_breaks(document)
        for block in document.iter_inner_content():
            if isinstance(block, Table):
                lines += [Line(row, page=page) for row in _rows(block)]
                continue
            page += len(block._p.xpath(breaks))
            style = (block.style.name if block.style else "") or ""
            is_heading = bool(HEADING_STYLE.match(style) or TITLE_STYLE.match(style))
            mark = "- " if LIST_STYLE.match(style) and block.text.strip() else ""
            lines += [Line(mark + text.rstrip(), is_heading, page) for text in block.text.split("\n")]
        title = (document.core_properties.title or "").strip()
    except (
        PackageNotFoundError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,  # a part that is not the element it should be
        SyntaxError,
        NotImplementedError,
    ) as error:
        raise Unreadable("index.doc_broken_docx") from error  # lxml's errors are SyntaxErrors; a locked file is no zip
    if page == 1:  # nobody laid it out, so nobody knows its pages
        lines = [Line(line.text, line.is_heading) for line in lines]
    return lines, {"title": title} if title else {}


def _page_breaks(document: Any) -> str:
    """Where pages begin: as Word laid the text out last, or at hard breaks when it never did."""
    rendered = ".//w:lastRenderedPageBreak"
    return rendered if document.element.body.xpath(rendered) else './/w:br[@w:type="page"]'


def _rows(table: Any) -> Iterator[str]:
    """Cells joined by bars; a cell that spans columns is named once."""
    for row in table.rows:
        cells = [" ".join(cell.text.split()) for cell in row.cells]
        distinct = [cell for number, cell in enumerate(cells) if number == 0 or cell != cells[number - 1]]
        if any(distinct):
            yield " | ".join(distinct)


def html_lines(data: bytes, decode: Callable[[bytes], str]) -> tuple[list[Line], dict[str, str]]:
    """The blocks of a page as lines; title, date and address from its head. `decode` reads text that does not name its encoding."""
    import lxml.html
    from lxml import etree

    try:
        root = lxml.html.document_fromstring(_text(data, decode))
    except (etree.LxmlError, ValueError) as error:
        raise Unreadable("index.doc_broken_html") from error
    facts = _head(root)
    mains, articles = root.findall(".//main"), root.findall(".//article")
    body = mains[0] if mains else articles[0] if len(articles) == 1 else root.find("body")
    if body is None:
        raise Unreadable("ask.doc_empty")
    dropped = NOT_TEXT if mains or len(articles) == 1 else NOT_TEXT | AROUND
    return list(_blocks(body, dropped)), facts


def _text(data: bytes, decode: Callable[[bytes], str]) -> str:
    named = CHARSET.search(data[:4096])
    if named and named[1].lower() not in (b"utf-8", b"utf-16"):
        try:
            text = data.decode("gb18030" if named[1].lower() in (b"gb2312", b"gbk") else named[1].decode())
        except (LookupError, UnicodeError):  # idna and punycode are charsets to Python, and raise the wider one
            text = decode(data)
    else:
        text = decode(data)
    return re.sub(r"^\s*<\?xml[^>]*\?>", "", text)  # lxml refuses text that names an encoding


def _head(root: Any) -> dict[str, str]:
    facts: dict[str, str] = {}
    metas = {(m.get("name") or m.get("property") or "").lower(): (m.get("content") or "").strip() for m in root.iter("meta")}
    heading = root.find(".//h1")
    title = " ".join((heading if heading is not None else root).text_content().split()) if heading is not None else ""
    title = title or metas.get("og:title") or " ".join((root.findtext(".//title") or "").split())
    if title:
        facts["title"] = title[:120]
    date = next((metas[name] for name in DATE_METAS if metas.get(name)), "")
    if date:
        facts["date"] = date[:10]
    address = next((link.get("href") for link in root.iter("link") if link.get("rel") == "canonical"), "") or metas.get("og:url")
    if address:
        facts["source"] = address
    return facts


def _blocks(body: Any, dropped: frozenset[str]) -> Iterator[Line]:
    """A line per block. Walks without recursion: pages nest deeper than Python may call."""
    from lxml import etree

    words: list[str] = []
    depth_dropped = 0
    mark, is_heading, is_preformatted = "", False, False

    def line() -> Iterator[Line]:
        nonlocal mark
        text = "".join(words)
        words.clear()
        for row in text.split("\n") if is_preformatted else [" ".join(text.split())]:
            if row.strip():
                yield Line(mark + row.strip(" |"), is_heading)
                mark = ""

    for event, element in etree.iterwalk(body, events=("start", "end", "comment", "pi")):
        tag = element.tag if isinstance(element.tag, str) else ""
        if event == "start":
            if depth_dropped or tag in dropped or _is_hidden(element):
                depth_dropped += 1
                continue
            if tag in BLOCKS:
                yield from line()
                mark = "- " if tag == "li" else mark if tag == "p" else ""
                is_heading, is_preformatted = tag in HEADINGS, tag == "pre"
            if tag in ("td", "th") and words:
                words.append(" | ")
            words.append(element.text or "")
        elif event == "end":
            if depth_dropped:
                depth_dropped -= 1
            elif tag in BLOCKS:
                yield from line()
                is_heading = is_preformatted = False
        if event != "start" and element is not body and not depth_dropped:
            words.append(element.tail or "")
    yield from line()


def _is_hidden(element: Any) -> bool:
    style = (element.get("style") or "").replace(" ", "").lower()
    return (
        element.get("hidden") is not None
        or element.get("aria-hidden") == "true"
        or element.get("role") in ("navigation", "search", "banner", "contentinfo")
        or "display:none" in style
    )
