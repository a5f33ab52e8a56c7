"""Evidence passages: placed, hashed, never remembered as a question."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import func, select

from core.errors import NotFound, UserError
from core.evidence import passages
from core.home import Home
from db import tables as t
from db.engine import read_session


def test_passages_say_where_they_stand_and_leave_no_trace(indexed: Home) -> None:
    found = passages("急性青光眼有哪些危险信号？", language="zh", top_k=3)
    assert len(found) == 3
    top = found[0]
    assert top.title.startswith("急性青光眼")
    assert (top.index_name, top.index_version, top.date) == ("guidelines", 1, "2025-01-12")
    assert top.source.startswith("NICE NG81")
    assert top.doors == ("glossary",), "the question names a term of the glossary"
    assert top.content_hash == hashlib.sha256(top.text.encode()).hexdigest()
    with read_session() as session:
        assert session.scalar(select(func.count()).select_from(t.AskEvent)) == 0


def test_a_long_text_is_searched_too_and_an_empty_one_is_refused(indexed: Home) -> None:
    assert passages("青光眼" * 1000)[0].title.startswith("急性青光眼")
    with pytest.raises(UserError, match=r"ask\.empty_question"):
        passages(" \n")


def test_without_an_index_the_next_step_is_said(home: Home) -> None:
    with pytest.raises(NotFound, match=r"ask\.no_index"):
        passages("青光眼")
