"""Asking: passages whatever the model does, quoted or cited answers, "unknown", and a rewriting that never delays the search."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from core.ask import ask, check_question, note_text
from core.demo_world import load_world, prompts
from core.errors import NotFound, UserError
from core.home import Home, open_home
from core.models import register_version
from core.retrieval.calibration import Calibration
from core.retrieval.support import THRESHOLD
from core.search_plans import set_calibration
from core.settings import ROOT
from db import tables as t
from db.engine import read_session, write_session
from tests import factories as f
from tests.bench import fake_endpoint
from tests.bench.fake_endpoint import FakeEndpoint, serving
from tests.serving.conftest import free_port

QUESTION = "急性青光眼有哪些危险信号？"
ENGLISH = "Which danger signs of a burn need an ambulance?"


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with serving() as made:
        yield made


def external(endpoint: FakeEndpoint, name: str, *, is_toy: bool = False) -> None:
    with write_session() as session:
        row = register_version(session, name=name, kind="external", is_toy=is_toy)
        row.endpoint_url, row.endpoint_model = endpoint.base, name


def with_settings(home: Home, **values: object) -> None:
    open_home(home.settings.model_copy(update=values))


def keys(result: object) -> set[str]:
    return {key for key, _ in result.notes}  # type: ignore[attr-defined]


def test_without_any_model_the_passages_answer(indexed: Home) -> None:
    result = ask(QUESTION, user_id=None)
    assert result.answer_kind == "extractive"
    assert keys(result) == {"ask.note_no_model"}
    assert result.model is None
    assert result.is_toy is False
    assert "立即拨打120" in result.answer
    top = result.contexts[0]
    assert (top.rank, top.title[:5], top.doors) == (1, "急性青光眼", ("glossary",))
    assert top.source.startswith("NICE NG81")
    assert top.date == "2025-01-12"


def test_every_quoted_line_stands_in_the_passage_it_cites(indexed: Home) -> None:
    for question in (QUESTION, ENGLISH, "Can a patient on warfarin take aspirin?", "孕妇感冒可以吃什么药"):
        result = ask(question, user_id=None)
        assert result.answer_kind == "extractive"
        for line in result.answer.split("\n"):
            text, _, number = line.rpartition(" [")
            assert text in result.contexts[int(number[:-1]) - 1].text


def test_a_quoted_answer_never_mixes_in_another_disease(indexed: Home) -> None:
    result = ask(QUESTION, user_id=None)
    cited = {int(line.rpartition("[")[2][:-1]) for line in result.answer.split("\n")}
    assert {result.contexts[n - 1].title[:5] for n in cited} == {"急性青光眼"}


@pytest.mark.parametrize("question", ["今天北京天气怎么样", "What is the capital of France?", "How do I bake sourdough bread?", "？？？"])
def test_what_the_guidelines_do_not_hold_is_unknown(indexed: Home, question: str) -> None:
    result = ask(question, user_id=None)
    assert result.answer_kind == "unknown"
    assert result.support < 0.3
    assert "[" not in result.answer


def test_a_calibration_counts_for_the_plan_it_was_measured_with_and_says_its_rates(indexed: Home) -> None:
    measured = {"false_answer": 0.1, "false_unknown": 0.07, "num": 57}
    strict = Calibration(("coverage",), (0.0,), (1.0,), (1.0,), 0.0, 0.99, 57, {"plan": {}, "rates": measured})
    set_calibration("guidelines", strict, reason="measured", by=None)
    result = ask(QUESTION, user_id=None)
    assert (result.answer_kind, result.threshold, result.rates) == ("unknown", 0.99, measured)
    other = ask(QUESTION, user_id=None, plan={"spelling": False})
    assert (other.answer_kind, other.threshold, other.rates) == ("extractive", THRESHOLD, {}), "signs of another search mean something else"
    mine = ask(QUESTION, user_id=None, plan={"min_support": 0.2})
    assert (mine.answer_kind, mine.threshold, mine.rates) == ("extractive", 0.2, {}), "nobody measured that threshold"


def test_the_right_guideline_is_found_for_the_demo_prompts(indexed: Home) -> None:
    """Over held-out demo prompts whose condition has a guideline in their language: first in 9 of 10, in five in 99 of 100."""
    titles = {}
    for path in (ROOT / "assets" / "demo" / "guidelines").iterdir():
        titles[path.stem] = path.name
    firsts, fives, supported, num = 0, 0, 0, 0
    for prompt in prompts(load_world(), 0):
        condition = prompt.meta["condition"]
        if prompt.split not in ("test", "gold") or condition not in titles:
            continue
        result = ask(prompt.text, user_id=None, with_rewrite=False, with_answer=False)
        files = [c.file for c in result.contexts]
        text = " ".join(c.text for c in result.contexts if c.file == titles[condition])
        if prompt.language.value == "zh" and not any("一" <= c <= "龥" for c in text):
            continue  # its guideline is written in the other language
        if prompt.language.value == "en" and any("一" <= c <= "龥" for c in text):
            continue
        if not text:
            continue
        num += 1
        firsts += files[0] == titles[condition]
        fives += titles[condition] in files
        supported += result.support >= 0.3
    assert num > 60
    assert firsts / num > 0.9
    assert fives / num > 0.98
    assert supported / num > 0.9


def test_a_model_that_is_down_costs_a_note_not_the_passages(indexed: Home) -> None:
    with write_session() as session:
        f.version(session, name="served", status="serving")
    with_settings(indexed, model_server_port=free_port(), ask_budget_ms=10_000)
    started = time.perf_counter()
    result = ask(QUESTION, user_id=None)
    assert time.perf_counter() - started < 9, "a refused connection is known at once"
    assert result.answer_kind == "extractive"
    assert len(result.contexts) == 5
    assert keys(result) == {"ask.note_rewrite_failed", "ask.note_answer_failed"}
    sentences = [note_text(note, "zh") for note in result.notes]
    assert all("bench." not in s and s.endswith("。") for s in sentences)


def test_a_rewriting_joins_the_search_and_says_so(indexed: Home, endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = "<think>红旗征象</think>视力骤降和频繁呕吐都要立即拨打120 [1]。"
    monkeypatch.setitem(fake_endpoint.ANSWERS, "good", answer)
    external(endpoint, "good")
    with_settings(indexed, ask_budget_ms=5000)
    result = ask(QUESTION, user_id=None, model="good")
    assert result.pseudo_doc == "红旗征象 视力骤降和频繁呕吐都要立即拨打120 [1]。"
    assert any("pseudo_doc" in c.doors for c in result.contexts)
    assert result.answer_kind == "model"
    assert result.answer == "视力骤降和频繁呕吐都要立即拨打120 [1]。"
    assert result.contexts[0].title.startswith("急性青光眼")
    prompt = endpoint.calls[-1]["messages"]
    assert "[1]" in prompt[1]["content"]
    assert QUESTION in prompt[1]["content"]


def test_a_slow_rewriting_is_cut_off_at_the_budget(indexed: Home, endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fake_endpoint.ANSWERS, "slow-1", "青光眼 " * 300)
    external(endpoint, "slow-1")
    with_settings(indexed, ask_budget_ms=300)
    result = ask(QUESTION, user_id=None, model="slow-1", with_answer=False)
    assert result.timings_ms["rewrite"] < 600
    assert 0 < len(result.pseudo_doc) < 200, "what came within the budget is used"
    with_settings(indexed, ask_budget_ms=1)
    result = ask(QUESTION, user_id=None, model="slow-1", with_answer=False)
    assert result.pseudo_doc == ""
    assert keys(result) == {"ask.note_rewrite_late"}
    assert "1" in note_text(result.notes[0], "en")
    deadline = time.monotonic() + 5
    while endpoint.num_closed < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert endpoint.num_closed >= 1, "the stream that came too late must be closed, so that its row is freed"


@pytest.mark.parametrize("answer", ["Take two tablets and rest.", "立即就医 [9]。", "<think>only thoughts"])
def test_a_model_answer_without_a_valid_citation_is_not_shown(
    indexed: Home, endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setitem(fake_endpoint.ANSWERS, "loose", answer)
    external(endpoint, "loose")
    result = ask(QUESTION, user_id=None, model="loose", with_rewrite=False)
    assert result.answer_kind == "extractive"
    assert keys(result) == {"ask.note_answer_uncited"}


def test_the_toy_is_never_asked_for_an_answer(indexed: Home, endpoint: FakeEndpoint) -> None:
    external(endpoint, "toy", is_toy=True)
    result = ask(QUESTION, user_id=None, model="toy", with_rewrite=False)
    assert result.answer_kind == "extractive"
    assert keys(result) == {"ask.note_answer_toy"}
    assert endpoint.calls == []


def test_what_was_asked_is_remembered(indexed: Home) -> None:
    with write_session() as session:
        user_id = f.user(session).id
    result = ask(f"  {ENGLISH}\n", user_id=user_id)
    with read_session() as session:
        event = session.get_one(t.AskEvent, result.event_id)
    assert (event.query, event.user_id, event.answer) == (ENGLISH, user_id, result.answer)
    assert [c["rank"] for c in event.contexts] == [1, 2, 3, 4, 5]
    assert event.timings_ms["total"] >= event.timings_ms["search"]


@pytest.mark.parametrize(("question", "code"), [(" \n", "ask.empty_question"), ("痛" * 2001, "ask.long_question")])
def test_questions_that_cannot_be_asked(question: str, code: str) -> None:
    with pytest.raises(UserError) as caught:
        check_question(question)
    assert caught.value.code == code


def test_without_an_index_the_next_step_is_said(home: Home) -> None:
    with pytest.raises(NotFound) as caught:
        ask(QUESTION, user_id=None)
    assert caught.value.code == "ask.no_index"


def test_asking_imports_no_torch() -> None:
    code = (
        "import sys, core.ask, core.retrieval.index, core.model_server; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_a_rewriting_about_something_else_is_dropped(indexed: Home, endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fake_endpoint.ANSWERS, "stray", "1. 症状：手抖饥饿出汗半天，可能为低血糖。2. 药物：伪麻黄碱。")
    external(endpoint, "stray")
    with_settings(indexed, ask_budget_ms=5000)
    result = ask("头痛怎么办", user_id=None, model="stray", with_answer=False)
    assert result.pseudo_doc == ""
    assert keys(result) == {"ask.note_rewrite_astray"}
    assert not any("pseudo_doc" in c.doors for c in result.contexts)


def test_a_misspelt_question_is_judged_as_it_was_meant(indexed: Home) -> None:
    wrong = ask("tuberclosis danger signs", user_id=None)
    assert wrong.corrections == (("tuberclosis", "tuberculosis"),)
    assert wrong.answer_kind == "extractive"
    assert wrong.contexts[0].file == "tuberculosis.md"
    assert wrong.support == ask("tuberculosis danger signs", user_id=None).support
