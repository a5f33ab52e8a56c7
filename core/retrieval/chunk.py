"""Documents and their chunks: sentence-based pieces that remember title, section, page and exact offsets.

Invariants: `document.text[chunk.start : chunk.end] == chunk.text`; no chunk is longer than the limit; every sentence that
fits the limit lies whole in at least one chunk; a longer one is cut, at a comma where there is one. Pure; called by the
index job and the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from core.completions import sentences
from core.retrieval.tokens import units

CHUNK_TOKENS = 256
CHUNK_OVERLAP = 64
#: Longest chunk in characters, in the mode that counts them.
CHUNK_CHARACTERS = 300
#: A new section starts a new chunk once the current one holds this share of the limit; shorter ones travel together.
SECTION_SHARE = 4
Unit = Literal["token", "character"]
COMMAS = ",，、;:：）)"


@dataclass(frozen=True, slots=True)
class Section:
    """Characters [start, end) of the document under one heading and on one page (None where the format has no pages)."""

    title: str
    start: int
    end: int
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A readable document. `file` is its path inside the indexed folder; `source` says where its facts come from."""

    file: str
    title: str
    text: str
    sections: tuple[Section, ...] = ()
    source: str = ""
    #: as written in the document (ISO date or year); empty when it does not say
    date: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Characters [start, end) of a document, with what a reader needs in order to find the place again."""

    file: str
    title: str
    section: str
    source: str
    date: str
    text: str
    start: int
    end: int
    page: int | None = None


def as_row(chunk: Chunk) -> dict[str, str | int | None]:
    """The fields of a chunk by name (`dataclasses.asdict` costs more than indexing it)."""
    return {name: getattr(chunk, name) for name in Chunk.__slots__}


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    tokens: int
    section: int


def chunk_document(
    document: Document, chunk_tokens: int = CHUNK_TOKENS, chunk_overlap: int = CHUNK_OVERLAP, *, unit: Unit = "token"
) -> list[Chunk]:
    """Cut a document into chunks of at most `chunk_tokens` units sharing up to `chunk_overlap`.

    A unit is a token (CJK character, word, number) or a character (whatever it is, white space between sentences too). The
    overlap is made of whole sentences of one section. Raises ValueError when it is not smaller than the limit.
    """
    if not 0 <= chunk_overlap < chunk_tokens:
        raise ValueError("the overlap must be smaller than the chunk")
    sections = document.sections or (Section("", 0, len(document.text)),)
    chunks: list[Chunk] = []
    current: list[_Piece] = []
    for piece in _pieces(document.text, sections, chunk_tokens, unit):
        size = _size(current, unit)
        is_full = _size([*current, piece], unit) > chunk_tokens
        is_new_section = bool(current) and piece.section != current[-1].section
        if current and (is_full or (is_new_section and size >= chunk_tokens // SECTION_SHARE)):
            chunks.append(_chunk(document, sections, current))
            current = [] if is_new_section else _tail(current, piece, chunk_overlap, chunk_tokens, unit)
        current.append(piece)
    if current:
        chunks.append(_chunk(document, sections, current))
    return chunks


def _size(pieces: list[_Piece], unit: Unit) -> int:
    if unit == "character":
        return pieces[-1].end - pieces[0].start if pieces else 0
    return sum(piece.tokens for piece in pieces)


def _pieces(text: str, sections: tuple[Section, ...], limit: int, unit: Unit) -> Iterator[_Piece]:
    """Sentences of each section in order; one longer than `limit` units comes in several pieces."""
    for number, section in enumerate(sections):
        for sentence in sentences(text[section.start : section.end]):
            start, end = section.start + sentence.start, section.start + sentence.end
            spans = units(sentence.text) if unit == "token" else [(i, i + 1) for i in range(len(sentence.text))]
            while len(spans) > limit:
                cut = _cut(text, start, spans, limit)
                stop = start + spans[cut][0]
                yield _piece(text, start, stop, cut, number)
                offset = spans[cut][0]
                spans = [(a - offset, b - offset) for a, b in spans[cut:]]
                start = stop
            yield _piece(text, start, end, len(spans), number)


def _cut(text: str, start: int, spans: list[tuple[int, int]], limit: int) -> int:
    """How many of the first `limit` units to keep: up to the last comma in the second half, else up to the last space there,
    else all of them."""
    for marks in (COMMAS, " \n"):
        for index in range(limit, limit // 2, -1):
            # where characters are counted, the mark is the unit before the cut; where tokens are, it lies between two of them
            if any(mark in marks for mark in text[start + spans[index - 1][0] : start + spans[index][0]]):
                return index
    return limit


def _piece(text: str, start: int, end: int, tokens: int, section: int) -> _Piece:
    while end > start and text[end - 1].isspace():
        end -= 1
    return _Piece(start, end, tokens, section)


def _tail(pieces: list[_Piece], following: _Piece, overlap: int, limit: int, unit: Unit) -> list[_Piece]:
    """The last whole pieces of one section that fit in the overlap and leave room for `following`; never all of `pieces`, so
    that every chunk advances."""
    kept: list[_Piece] = []
    for piece in reversed(pieces[1:]):
        wider = [piece, *kept]
        if piece.section != pieces[-1].section or _size(wider, unit) > overlap or _size([*wider, following], unit) > limit:
            break
        kept = wider
    return kept


def _chunk(document: Document, sections: tuple[Section, ...], pieces: list[_Piece]) -> Chunk:
    """A chunk that spans several short sections is named after the one that fills most of it."""
    sizes: dict[int, int] = {}
    for piece in pieces:
        sizes[piece.section] = sizes.get(piece.section, 0) + piece.tokens
    section = sections[max(sizes, key=lambda number: sizes[number])]
    start, end = pieces[0].start, pieces[-1].end
    return Chunk(
        document.file, document.title, section.title, document.source, document.date, document.text[start:end], start, end, section.page
    )
