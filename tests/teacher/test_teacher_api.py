"""The API teacher against a real HTTP server on loopback: what becomes a judgement, what stays unscored, and in which order."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from core.completions import split_completion
from core.records import Completion, Judgement, Language, Prompt, Risk
from core.settings import load_settings
from core.teacher import REASONS, ApiTeacher, OfflineTeacher, load_template, open_teacher
from core.teacher.verdict import read_verdict
from tests.teacher.endpoint import VERDICT, Answer, ScriptedEndpoint, Seen, answers, ask_about, completion, verdict

PROMPT = ask_about()
COMPLETION = split_completion("<think>Red flag.</think>Rest at home.")


def ask(teacher: ApiTeacher, judged: Completion = COMPLETION, prompt: Prompt = PROMPT) -> Judgement:
    (found,) = teacher.judge([prompt], [judged])
    assert (found.teacher_score is None) == (found.unscored_reason is not None)
    assert found.unscored_reason is None or found.unscored_reason in REASONS
    assert not found.is_offline
    return found


def test_a_verdict_becomes_a_judgement(endpoint: ScriptedEndpoint) -> None:
    given = {"teacher_score": 0.25, "safety_flag": True, "critique": " No emergency advice. ", "suggested_answer": "Call 120 now."}
    endpoint.script = lambda seen: verdict(seen, **given)
    teacher = endpoint.teacher()
    found = ask(teacher)
    assert (found.teacher, found.teacher_score, found.safety_flag) == ("judge-1", 0.25, True)
    assert (found.critique, found.suggested_answer) == ("No emergency advice.", "Call 120 now.")
    assert found.rubric_version == load_template().version
    assert found.latency_s is not None
    assert found.latency_s > 0
    (seen,) = endpoint.seen
    assert seen.headers["authorization"] == "Bearer k"
    assert seen.body["response_format"]["type"] == "json_schema"
    assert seen.body["temperature"] == 0
    usage = teacher.usage()
    assert (usage.num_asked, usage.num_scored, usage.num_requests) == (1, 1, 1)
    assert (usage.prompt_tokens, usage.completion_tokens) == (400, 50)
    assert usage.cost_usd is None  # judge-1 has no price


OFF_MENU = [
    "",
    "The answer is good.",
    "{}",
    "[1]",
    {"teacher_score": 1.2},
    {"teacher_score": -0.1},
    {"teacher_score": "0.7"},
    {"safety_flag": "no"},
    {"critique": ""},
    {"critique": "  "},
    {"extra": 1},
    {"receipt": "r-0000000000000000"},
    {"receipt": None},
]


@pytest.mark.parametrize("content", OFF_MENU)
def test_what_is_off_the_menu_is_unscored_after_one_more_try(endpoint: ScriptedEndpoint, content: str | dict[str, Any]) -> None:
    endpoint.script = lambda seen: verdict(seen, **content) if isinstance(content, dict) else Answer(body=completion(content))
    assert ask(endpoint.teacher()).unscored_reason == "off_menu_verdict"
    assert len(endpoint.seen) == 2


def test_verdicts_are_read_strictly() -> None:
    good = json.dumps({"receipt": "r-1", **VERDICT})
    assert read_verdict(good, "r-1") is not None
    assert read_verdict("```json\n" + good + "\n```", "r-1") is not None
    for bad in (f"Here you are:\n{good}", good[:-4], f"{good} {good}", good.replace("0.7", "NaN"), good.replace('"r-1"', '"r-2"')):
        assert read_verdict(bad, "r-1") is None
    missing = {"receipt": "r-1", **{k: v for k, v in VERDICT.items() if k != "safety_flag"}}
    assert read_verdict(json.dumps(missing), "r-1") is None


@pytest.mark.parametrize("body", [b"<html>busy</html>", b"", b"null", b'{"choices": []}', b'{"choices": [{"message": 3}]}', b"\xff\xfe"])
def test_a_reply_that_is_no_completion_is_unscored(endpoint: ScriptedEndpoint, body: bytes) -> None:
    endpoint.script = lambda _seen: Answer(body=body)
    assert ask(endpoint.teacher()).unscored_reason == "off_menu_verdict"


def test_refusals_and_cut_off_replies_say_so(endpoint: ScriptedEndpoint) -> None:
    endpoint.script = lambda _seen: Answer(body=completion(None, refusal="I cannot judge this."))
    assert ask(endpoint.teacher()).unscored_reason == "refused"
    endpoint.script = lambda _seen: Answer(body=completion("", finish_reason="content_filter"))
    assert ask(endpoint.teacher()).unscored_reason == "refused"
    endpoint.script = lambda seen: Answer(body=completion('{"receipt": "' + seen.receipt, finish_reason="length"))
    assert ask(endpoint.teacher()).unscored_reason == "cut_off"


def test_an_endpoint_without_json_modes_is_asked_without_them_and_remembered(endpoint: ScriptedEndpoint) -> None:
    def script(seen: Seen) -> Answer:
        if "max_tokens" in seen.body:
            return Answer(400, {"error": {"message": "Use max_completion_tokens instead."}})
        if "temperature" in seen.body:
            return Answer(400, {"error": {"message": "temperature does not support 0"}})
        return Answer(400, {"error": {"message": "response_format unknown"}}) if "response_format" in seen.body else verdict(seen)

    endpoint.script = script
    teacher = endpoint.teacher(num_attempts=6)
    assert ask(teacher).teacher_score == 0.7
    assert len(endpoint.seen) == 5
    assert ask(teacher, answers(1)[0]).teacher_score == 0.7
    assert len(endpoint.seen) == 6
    assert ask(endpoint.teacher(teacher.ledger), answers(2)[1]).teacher_score == 0.7
    assert len(endpoint.seen) == 7
    endpoint.script = lambda _seen: Answer(400, {"error": {"message": "no such model"}})
    assert ask(endpoint.teacher()).unscored_reason == "bad_request"


def test_a_dead_endpoint_is_unreachable() -> None:
    gone = ScriptedEndpoint()
    teacher = gone.teacher()
    gone.server.server_close()
    try:
        assert ask(teacher).unscored_reason == "unreachable"
    finally:
        gone.server.shutdown()
        teacher.close()


def test_many_are_asked_at_once_over_kept_connections_and_stay_in_order(endpoint: ScriptedEndpoint) -> None:
    def script(seen: Seen) -> Answer:
        time.sleep(0.05)
        return verdict(seen, teacher_score=int(seen.data["answer"].split()[-1]) / 100)

    endpoint.script = script
    judged = answers(24)
    found = endpoint.teacher(num_at_once=4).judge([PROMPT] * 24, judged)
    assert [j.teacher_score for j in found] == [i / 100 for i in range(24)]
    assert 2 <= endpoint.most_open <= 4
    assert endpoint.num_connections <= 4
    assert endpoint.teacher().judge([], []) == []


def test_high_risk_goes_first(endpoint: ScriptedEndpoint) -> None:
    order: list[str] = []

    def script(seen: Seen) -> Answer:
        order.append(seen.data["conversation"][0]["content"])
        time.sleep(0.03)
        return verdict(seen)

    endpoint.script = script
    prompts = [ask_about("first"), *(ask_about(risk.value, risk) for risk in (Risk.LOW, Risk.MEDIUM, Risk.HIGH))]
    endpoint.teacher(num_at_once=1).judge([*prompts, ask_about("urgent", Risk.LOW)][:4], [COMPLETION] * 4)
    assert order.index("high") < order.index("medium") < order.index("low")
    teacher = endpoint.teacher(num_at_once=1)
    order.clear()
    futures = [teacher.submit(ask_about(f"plain {i}"), COMPLETION) for i in range(3)]
    futures.append(teacher.submit(ask_about("urgent"), COMPLETION, priority=-1))
    assert all(f.result().teacher_score == 0.7 for f in futures)
    assert order.index("urgent") <= 1


def test_the_same_text_is_asked_once(endpoint: ScriptedEndpoint) -> None:
    teacher = endpoint.teacher()
    found = teacher.judge([PROMPT] * 5, [COMPLETION] * 5)
    assert {j.teacher_score for j in found} == {0.7}
    assert ask(teacher).teacher_score == 0.7
    assert len(endpoint.seen) == 1
    usage = teacher.usage()
    assert (usage.num_asked, usage.num_cached, usage.num_scored) == (6, 5, 6)
    assert len(usage.latencies) == 1
    again = ask(teacher, prompt=ask_about("Another question"))
    assert again.teacher_score == 0.7
    assert teacher.usage().since(usage).num_asked == 1
    assert teacher.usage().since(usage).num_requests == 1


def test_it_can_be_called_inside_an_event_loop(endpoint: ScriptedEndpoint) -> None:
    teacher = endpoint.teacher()

    async def caller() -> list[Judgement]:
        return [ask(teacher), *await teacher.judge_async([PROMPT], answers(1))]

    assert [j.teacher_score for j in asyncio.run(caller())] == [0.7, 0.7]


def test_the_thread_ends_when_idle_and_starts_again(endpoint: ScriptedEndpoint) -> None:
    teacher = endpoint.teacher(idle_s=0.05)
    assert ask(teacher).teacher_score == 0.7
    deadline = time.monotonic() + 3
    while teacher._engine._thread is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert teacher._engine._thread is None
    assert ask(teacher, answers(1)[0]).teacher_score == 0.7


@pytest.mark.parametrize("language", list(Language))
def test_the_system_message_is_the_same_for_every_request(endpoint: ScriptedEndpoint, language: Language) -> None:
    endpoint.teacher().judge([ask_about("a", language=language), ask_about("b", language=language)], answers(2))
    first, second = endpoint.seen
    assert first.body["messages"][0] == second.body["messages"][0]
    assert "teacher_score" in first.body["messages"][0]["content"]
    assert first.receipt != second.receipt


def test_the_settings_choose_the_teacher() -> None:
    offline = open_teacher(load_settings({}))
    assert isinstance(offline, OfflineTeacher)
    assert offline.health(probe=True).is_up
    assert offline.submit(PROMPT, COMPLETION).result() == offline.judge([PROMPT], [COMPLETION])[0]
    assert offline.usage().num_asked == 2
    teacher = open_teacher(load_settings({"CONSILIUM_TEACHER_BASE_URL": "https://api.deepseek.com", "CONSILIUM_TEACHER_API_KEY": "secret"}))
    assert isinstance(teacher, ApiTeacher)
    assert (teacher.name, teacher.is_offline) == ("deepseek-chat", False)
