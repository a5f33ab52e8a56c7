"""The Query expansion page: empty, one evaluation in figures, two models side by side; both languages; roles."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from core.expansion import prompts
from core.expansion.runs import Report, store
from core.expansion.schema import DEFAULT
from core.home import Home
from core.models import register_version
from core.records import VersionKind
from db import tables as t
from db.engine import read_session, write_session
from tests.expansion.test_compare import output
from training.expansion_evaluate import summed


def stored(home: Home) -> None:
    """An evaluation of two models on twelve queries."""
    deductions = [{"line": 1, "dimension": "entity", "points": -5.0, "reason": "reason_misses", "facts": {"rank": 40}}]
    dimensions = {"format": 30.0, "diversity": 20.0, "hyde": 0.0, "quality": 20.0, "entity": 10.0}
    more = {"deductions": deductions, "dimensions": dimensions, "recall_plain": 0.0, "recall_expanded": 1.0, "grounded": 0.5}
    sft, grpo = ([output(f"query {i}", 0.4 + gain * (i % 3), **more) for i in range(12)] for gain in (0.0, 0.1))
    models = {name: summed(outputs, 0.01, "base", 1.0) for name, outputs in (("my-sft", sft), ("my-grpo", grpo))}
    report: Report = {"name": "first", "source": "rows.jsonl", "corpus": "c", "queries_hash": "h", "settings": {}, "models": models}
    path = home.runs / "r.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    assert store(report, path, 0, home) == 1
    assert json.loads(path.read_text())["name"] == "first"


def words(screen: AppTest) -> str:
    blocks = [*screen.markdown, *screen.caption, *screen.subheader, *screen.info, *screen.error, *screen.header]
    tables = "\n".join(frame.value.to_string() for frame in screen.dataframe)
    return "\n".join(str(block.value) for block in blocks) + tables


def test_without_runs_the_page_says_where_to_begin(home: Home, open_page: Callable[..., AppTest]) -> None:
    screen = open_page("engineer", "expansion")
    assert not screen.exception
    assert "Begin with the small base" in words(screen)


@pytest.mark.parametrize(("language", "better", "heading"), [("en", "better", "Query expansion"), ("zh", "更好", "查询扩展")])
def test_two_models_stand_side_by_side(home: Home, open_page: Callable[..., AppTest], language: str, better: str, heading: str) -> None:
    stored(home)
    screen = open_page("product", "expansion", language=language)
    assert not screen.exception
    text = words(screen)
    assert heading in text
    assert better in text
    assert "+0.100" in text, "the paired difference"
    assert "expansion_training." not in text, "a missing word shows as its key"
    assert len(screen.code) == 13, "six gains, both outputs of each, and the shipped instruction"


def test_an_instruction_that_was_found_is_put_in_force_with_a_reason_and_taken_back(home: Home, open_page: Callable[..., AppTest]) -> None:
    with write_session() as session:
        register_version(session, name="my-expander", kind=VersionKind.EXTERNAL, task="expansion", manifest={"key_variable": ""})
    scores = {"before": 0.5, "after": 0.7, "difference": 0.2, "low": 0.1, "high": 0.3, "num_heldout": 24, "requests": 90, "data": "rows"}
    number = prompts.keep("Write good lines.", origin="search", model="my-expander", scores=scores, job_id=None)
    assert "Write good lines." in [block.value for block in open_page("product", "expansion").code], "everybody may read it"
    screen = open_page("engineer", "expansion")
    assert "+0.100" in words(screen)
    assert screen.button(key=f"xp_use_{number}").disabled, "not without a reason"
    screen.text_input(key=f"xp_reason_{number}").set_value("better on 24 queries").run()
    screen.button(key=f"xp_use_{number}").click().run()
    assert not screen.exception
    assert prompts.current("my-expander") == "Write good lines."
    assert prompts.current("another") == DEFAULT
    with read_session() as session:
        entry = session.query(t.AuditEntry).order_by(t.AuditEntry.id.desc()).first()
        assert entry is not None
        assert (entry.action, entry.reason) == ("apply_expansion_prompt", "better on 24 queries")
    screen.text_input(key="xp_reason_0").set_value("it rambles").run()
    screen.button(key="xp_use_0").click().run()
    assert prompts.current("my-expander") == DEFAULT


def test_clinicians_have_no_such_page(home: Home, open_page: Callable[..., AppTest]) -> None:
    screen = open_page("clinician", "expansion")
    assert screen.error or screen.exception
