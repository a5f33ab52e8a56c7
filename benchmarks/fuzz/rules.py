"""Targets: the rules on arbitrary text, and the files the rules are read from.

Text is made of the lexicons' own words among anything else, so that matches, negations and gaps really happen. Every score is in its
range or carries a reason, every span lies in the text, the same text scores the same twice, and no text makes a pattern run away.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.completions import split_completion
from core.conflicts import detect
from core.content import WORD
from core.lexicons import FILES, FOLDER, canonical, load_lexicons
from core.records import Judgement, Language, Message, Prompt, RuleScore
from core.reward_features import features
from core.rewards import combine
from core.rules import score_rules
from core.scoring import FIRST_CONFIG

LEXICONS = load_lexicons()
SEEDS: dict[str, list[bytes]] = {"lexicon": [b"\0\0"], "raw": ["胸口痛，没有出冷汗。马上去急诊".encode(), b"no chest pain. aspirin 3 mg"]}
EASY = settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))


def _phrases(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [p for inner in value.values() for p in _phrases(inner)]
    if isinstance(value, list):
        return [p for inner in value for p in _phrases(inner)]
    return [re.sub(r"[\\\[\](){}?*+|^$]|\.\.", " ", value)[:40]] if isinstance(value, str) else []


PHRASES = sorted({p for name in FILES for p in _phrases(tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8")))})
WORDS = [p for p in PHRASES if 1 < len(p) < 12][:400]
GLUE = st.sampled_from(
    [" ", "，", "。", "\n", ", ", ". ", "；", " no ", "没有", "不", "<think>", "</think>", "1. ", "- ", "？", "mg", "!", ""]
)
TEXT = st.lists(st.one_of(st.sampled_from(PHRASES), GLUE, st.text(max_size=12)), max_size=40).map("".join)
JUDGEMENT = st.one_of(
    st.none(), st.builds(lambda score, flag: Judgement("t", "r", teacher_score=score, safety_flag=flag), st.floats(0, 1), st.booleans())
)


def check_scores(prompt: Prompt, text: str, judgement: Judgement | None, *, expected: bool) -> None:
    completion = split_completion(text)
    rules = score_rules(prompt, completion, LEXICONS, chain_expected=expected)
    assert rules == score_rules(prompt, completion, LEXICONS, chain_expected=expected)
    for rule in rules:
        check_rule(rule, {"prompt": prompt.text, "thinking": completion.thinking, "answer": completion.answer})
    reward = combine(rules, judgement, FIRST_CONFIG)
    assert reward.value is None or -1.0001 <= reward.value <= 1.0001, reward
    detect(prompt, rules, judgement, FIRST_CONFIG)
    found = features(prompt, completion, LEXICONS)
    assert all(value >= 0 for value in found.values())


def check_rule(rule: RuleScore, texts: dict[str, str]) -> None:
    assert (rule.score is None) == bool(rule.unscored_reason), rule
    assert rule.score is None or 0 <= rule.score <= 1, rule
    for span in rule.spans:
        where = texts.get(span.part)
        assert where is None or 0 <= span.start < span.end <= len(where), (span, texts)


@EASY
@given(st.lists(TEXT, min_size=1, max_size=3), TEXT, JUDGEMENT, st.booleans())
def scores(asked: list[str], text: str, judgement: Judgement | None, expected: bool) -> None:
    messages = tuple(Message("user" if n % 2 == 0 else "assistant", one) for n, one in enumerate(asked))
    check_scores(Prompt(messages, Language.ZH if "，" in asked[0] else Language.EN), text, judgement, expected=expected)


def raw(data: bytes) -> None:
    """Any text at all, long and repetitive too: where patterns run away."""
    text = data.decode("utf-8", "replace")
    times = 1 + data[0] % 8 if data else 1
    asked = Prompt((Message("user", text * times),), Language.EN)
    check_scores(asked, text * times, None, expected=True)
    assert len(canonical(text)) == len(text)
    WORD.findall(text)


def prepare(folder: Path) -> dict[str, Callable[[bytes], Any]]:
    copy = folder / "lexicons"
    shutil.copytree(FOLDER, copy, dirs_exist_ok=True)

    def lexicon(data: bytes) -> None:
        """A lexicon with something written over it, or cut short: a sentence that names the file, or a lexicon that works."""
        if len(data) < 3:
            return
        name = FILES[data[0] % len(FILES)]
        whole = (FOLDER / f"{name}.toml").read_bytes()
        place = int.from_bytes(data[1:3], "big") * len(whole) // 65536
        (copy / f"{name}.toml").write_bytes(whole[:place] + data[3:40] + (whole[place:] if data[1] % 3 else b""))
        try:
            found = load_lexicons.__wrapped__(copy)
            found.danger.find("chest pain")
        finally:
            (copy / f"{name}.toml").write_bytes(whole)

    return {"scores": scores.hypothesis.fuzz_one_input, "raw": raw, "lexicon": lexicon}
