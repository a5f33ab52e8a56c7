"""The Ask page: empty state, a question, an example, both languages, nothing rendered as markup."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.home import Home, current_home
from training.index import run_index
from training.run import Run


def build(folder: str = "") -> None:
    home = current_home()
    directory = home.run_dir(1)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"folder": folder}))
    run_index(Run(directory, 0, home))


def shown(screen: AppTest) -> str:
    """Everything a person can read on the page."""
    blocks = [*screen.markdown, *screen.text, *screen.caption, *screen.subheader, *screen.warning, *screen.info, *screen.error]
    return "\n".join(str(block.value) for block in blocks) + "\n".join(str(block.proto.body) for block in screen.get("html"))


def test_without_an_index_the_page_says_what_to_do(home: Home, open_page: Callable[..., AppTest]) -> None:
    screen = open_page("clinician", "ask")
    assert not screen.exception
    assert "Jobs page" in screen.info[0].value
    assert not screen.text_area


@pytest.mark.parametrize(
    ("language", "question", "expected"),
    [("zh", "急性青光眼有哪些危险信号？", "立即拨打120"), ("en", "danger signs of a burn", "Call 120")],
)
def test_a_question_is_answered_with_its_passages(
    home: Home, open_page: Callable[..., AppTest], language: str, question: str, expected: str
) -> None:
    build()
    screen = open_page("clinician", "ask", language=language)
    screen.text_area(key="ask_question").set_value(question)
    screen.button[0].click().run()
    assert not screen.exception
    text = shown(screen)
    assert expected in text
    assert "<mark>" in text
    assert ("来源：" if language == "zh" else "Source:") in text
    assert "ask." not in text.replace("ask.py", ""), "a missing word shows as its key"


def test_an_example_asks_at_once(home: Home, open_page: Callable[..., AppTest]) -> None:
    build()
    screen = open_page("engineer", "ask")
    screen.button(key="ask_example_1").click().run()
    assert not screen.exception
    assert screen.text_area(key="ask_question").value == "Which danger signs of a burn need an ambulance?"
    assert "airway and eyes in danger" in shown(screen)


def test_an_unanswerable_question_is_called_so(home: Home, open_page: Callable[..., AppTest]) -> None:
    build()
    screen = open_page("product", "ask")
    screen.text_area(key="ask_question").set_value("What is the capital of France?")
    screen.button[0].click().run()
    assert "no clear answer" in screen.warning[0].value


def test_documents_and_questions_are_never_markup(home: Home, open_page: Callable[..., AppTest], tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> <img src=x onerror=alert(2)> burn. Cool the burn <b>now</b>."
    (tmp_path / "evil.txt").write_text(f"<u>Burn</u> :red[title]\n\n{evil}\n\nSource: <i>nobody</i>", encoding="utf-8")
    build(str(tmp_path))
    screen = open_page("clinician", "ask")
    screen.text_area(key="ask_question").set_value("burn <script>alert(3)</script>")
    screen.button[0].click().run()
    assert not screen.exception
    bodies = "\n".join(str(block.proto.body) for block in screen.get("html"))
    assert "&lt;script&gt;" in bodies
    for tag in ("<script", "<img", "<b>", "<u>", "<i>"):
        assert tag not in bodies
    assert not any("evil" in str(m.value) or "Burn" in str(m.value) for m in screen.markdown)
