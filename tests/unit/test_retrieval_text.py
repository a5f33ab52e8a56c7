"""Tokens, chunks and the text stream: properties over arbitrary Chinese and English text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.completions import sentences
from core.retrieval.chunk import Document, Section, chunk_document
from core.retrieval.tokens import count, highlights, query_tokens, singles, stem, tokenise, units
from core.serving.text import TextStream

WORDS = [
    "头痛",
    "发热三天",
    "胸痛伴大汗",
    "chest pain",
    "120/80 mmHg",
    "Dr. Li",
    "3.5 mg",
    "，",
    "、",
    "。",
    "！",
    ". ",
    "? ",
    "\n",
    "\n\n",
    "- ",
    "  ",
]
PROSE = st.lists(st.sampled_from(WORDS), max_size=120).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("胸痛两天", ["胸痛", "痛两", "两天"]),
        ("痛", ["痛"]),
        ("BP 180/110 mmHg", ["bp", "180", "110", "mmhg"]),
        ("服用３．５ｍｇ", ["服用", "3.5", "mg"]),
        ("patient's swelling, stopped; diseases", ["patient", "swell", "stop", "diseas"]),
        ("维生素C", ["维生", "生素", "c"]),
        ("，。!? \n", []),
    ],
)
def test_tokens_of_both_languages(text: str, expected: list[str]) -> None:
    assert tokenise(text) == expected


@pytest.mark.parametrize(
    "family",
    [("cause", "causes", "caused", "causing"), ("bleed", "bleeding", "bleeds"), ("allergy", "allergies"), ("diagnose", "diagnosed")],
)
def test_forms_of_a_word_meet(family: tuple[str, ...]) -> None:
    assert len({stem(word) for word in family}) == 1


@pytest.mark.parametrize("word", ["virus", "diagnosis", "gas", "bring", "red", "心肌"])
def test_words_that_only_look_inflected_stay_apart_from_nonsense(word: str) -> None:
    assert len(stem(word)) >= min(len(word), 3)


def test_a_question_is_reduced_to_its_subject() -> None:
    assert query_tokens("胸痛怎么办？") == ["胸痛"]
    assert query_tokens("What should I do about chest pain?") == ["about", "chest", "pain"]
    assert query_tokens("怎么办") == ["怎么", "么办"], "when nothing is left, the question itself is searched"


@given(PROSE)
def test_both_views_hold_the_same_words(text: str) -> None:
    latin = [t for t in tokenise(text) if t.isascii()]
    assert [t for t in singles(text) if t.isascii()] == latin


@given(PROSE, PROSE)
def test_highlights_are_ordered_apart_and_inside(text: str, question: str) -> None:
    spans = highlights(text, query_tokens(question))
    assert all(0 <= a < b <= len(text) for a, b in spans)
    assert all(left[1] < right[0] for left, right in pairwise(spans))


@settings(max_examples=200)
@given(PROSE, st.integers(4, 60), st.data())
def test_chunks(text: str, limit: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, limit - 1))
    cut = data.draw(st.integers(0, len(text)))
    sections = (Section("one", 0, cut), Section("two", cut, len(text), page=2))
    chunks = chunk_document(Document("a.md", "A", text, sections), limit, overlap)
    for chunk in chunks:
        assert text[chunk.start : chunk.end] == chunk.text, "offsets are exact"
        assert count(chunk.text) <= limit
        assert chunk.text.strip(), "no empty chunk"
    for section in sections:
        for sentence in sentences(text[section.start : section.end]):
            start, end = section.start + sentence.start, section.start + sentence.end
            if count(sentence.text) <= limit:
                assert any(c.start <= start and end <= c.end for c in chunks), f"{sentence.text!r} is in no chunk"
            else:  # cut, but every word of it is somewhere
                for a, b in units(sentence.text):
                    assert any(c.start <= start + a and start + b <= c.end for c in chunks)
    starts = [c.start for c in chunks]
    assert starts == sorted(set(starts)), "every chunk begins later than the one before"


def test_a_section_names_its_chunk_and_short_ones_travel_together() -> None:
    text = "Short.\n" + "Danger sign here. " * 30 + "\n" + "What to do now. " * 30
    danger = text.index("Danger")
    todo = text.index("What")
    sections = (Section("", 0, danger), Section("Danger signs", danger, todo), Section("What to do", todo, len(text), page=3))
    chunks = chunk_document(Document("a.pdf", "A", text, sections), 100, 20)
    assert [c.section for c in chunks] == ["Danger signs", "What to do", "What to do"]
    assert [c.page for c in chunks] == [None, 3, 3]
    assert chunks[0].text.startswith("Short.")


def test_an_overlap_as_long_as_the_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        chunk_document(Document("a", "A", "x"), 32, 32)


@given(st.text(max_size=60))
def test_streamed_bytes_join_to_the_text(text: str) -> None:
    data = text.encode("utf-8", "ignore")
    stream = TextStream(lambda ids: bytes(ids).decode("utf-8", "replace"))
    pieces = [stream.push(byte) for byte in data]
    pieces.append(stream.finish())
    expected = data.decode()
    assert "".join(pieces) == expected.rstrip("\ufffd") + "\ufffd" * (len("".join(pieces)) - len(expected.rstrip("\ufffd")))
    assert all("\ufffd" not in piece or "\ufffd" in expected for piece in pieces)
