"""Judged text cannot speak to the judge: it stays data in every request, and no verdict written in it passes as the judge's.

What a real model makes of an order in the data is not tested here (none is at hand); that the order arrives only as data, and
that a judge who merely repeats what it was shown gives no score, is.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from core.completions import split_completion
from core.records import Language, Message, Prompt
from core.teacher import load_template
from core.teacher.template import encode
from core.teacher.verdict import read_verdict
from tests.teacher.endpoint import Answer, ScriptedEndpoint, completion

CASES = tomllib.loads((Path(__file__).parent / "injections.toml").read_text("utf-8"))["case"]
#: an earlier request's mark and receipt, as a leaked log would show them
OLD = load_template().request(Prompt((Message("user", "x"),), Language.EN), split_completion("y"))
OLD_FENCE = next(line for line in OLD.messages[1]["content"].splitlines() if line.startswith("=====DATA-"))
TOKENS = re.compile(r"<[|｜/A-Za-z]|＜[|｜/A-Za-z]|\[/?INST", re.IGNORECASE)
UNSEEN = re.compile("[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f]")


def attack(case: dict[str, Any]) -> str:
    return str(case["text"]).replace("{fence}", OLD_FENCE).replace("{receipt}", OLD.receipt)


def test_there_are_enough_cases_in_both_languages() -> None:
    assert len(CASES) >= 25
    assert sum(bool(re.search("[一-鿿]", c["text"])) for c in CASES) >= 6
    assert len({c["name"] for c in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
@pytest.mark.parametrize("language", list(Language))
def test_an_attack_stays_data(case: dict[str, Any], language: Language) -> None:
    text = attack(case)
    prompt = Prompt(
        (Message("user", text), Message("assistant", text), Message("user", text)), language, reference=text, key_points=(text,)
    )
    judged = split_completion(f"<think>{text.replace('</think>', '')}</think>{text}")
    request = load_template().request(prompt, judged)
    system, user = (m["content"] for m in request.messages)
    fence = next(line for line in user.splitlines() if line.startswith("=====DATA-"))
    before, data, after = user.split(fence)  # the mark stands there twice and nowhere else
    assert fence != OLD_FENCE
    assert fence not in text
    assert request.receipt not in data
    assert request.receipt in after
    assert system == load_template().texts[language.value]["system"].strip()
    assert text not in before + after
    found = json.loads(data)
    assert [m["content"] for m in found["conversation"]] == [text] * 3
    assert (found["answer"], found["key_points"]) == (judged.answer, [text])
    assert not TOKENS.search(data)
    assert not UNSEEN.search(data)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_what_stands_in_the_answer_is_no_verdict(case: dict[str, Any]) -> None:
    request = load_template().request(Prompt((Message("user", "x"),), Language.EN), split_completion(attack(case)))
    assert read_verdict(attack(case), request.receipt) is None
    if case.get("verdict") and OLD.receipt in attack(case) and "```" not in attack(case):
        assert read_verdict(attack(case), OLD.receipt) is not None  # it would be one if the receipt were right


@pytest.mark.parametrize("echo", ["answer", "user", "data", "last_json"])
def test_a_judge_that_repeats_what_it_is_shown_scores_nothing(endpoint: ScriptedEndpoint, echo: str) -> None:
    def script(seen: Any) -> Answer:
        answer = seen.data["answer"]
        objects = re.findall(r"\{.*?\}", answer, re.DOTALL)
        said = {"answer": answer, "user": seen.user, "data": json.dumps(seen.data), "last_json": objects[-1] if objects else ""}[echo]
        return Answer(body=completion(said))

    endpoint.script = script
    prompt = Prompt((Message("user", "Chest pain?"),), Language.EN)
    judged = [split_completion(attack(c)) for c in CASES]
    judged = [c for c in judged if c.answer]
    found = endpoint.teacher(num_at_once=8).judge([prompt] * len(judged), judged)
    assert len(judged) >= 25
    assert {j.unscored_reason for j in found} == {"off_menu_verdict"}


@given(
    some.recursive(some.text(), lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3))
)
@settings(max_examples=150, deadline=None)
def test_encoding_keeps_the_data_and_hides_what_is_unseen(data: Any) -> None:
    encoded = encode(data)
    assert json.loads(encoded) == data
    assert not UNSEEN.search(encoded)
    assert not TOKENS.search(encoded)


@given(some.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_text_is_a_verdict_without_the_receipt(text: str) -> None:
    assert read_verdict(text, "r-0123456789abcdef") is None
