"""A danger sign counts only when it is there: not denied, imagined, long past, treated, or an old part of a known disease."""

from __future__ import annotations

import pytest

from core.lexicons import load_lexicons
from core.records import Language, Message, Prompt
from core.rules import danger_signs


def signs(text: str, *earlier: str) -> set[str]:
    messages = tuple(Message("user", turn) for turn in (*earlier, text))
    found = danger_signs(Prompt(messages, Language.EN), load_lexicons())
    for match in found.present:
        assert 0 <= match.start < match.end <= len(text)
    return {match.term for match in found.present} | set(found.earlier)


PRESENT = [
    ("I have chest pain and sweat since this morning", "chest_pain"),
    ("No fever, chest pain since yesterday", "chest_pain"),
    ("I don't know what to do, I have chest pain", "chest_pain"),
    ("Is my chest pain serious?", "chest_pain"),
    ("I wonder if my chest pain is serious", "chest_pain"),
    ("When I climb stairs I can't breathe", "breathlessness"),
    ("My father had a stroke, now his speech is slurred", "stroke_signs"),
    ("I had chest pain two years ago and now it is back, worse", "chest_pain"),
    ("My baby's lips are turning blue", "breathlessness"),
    ("I want to kill myself", "suicide"),
    ("vomiting blood since noon", "bleeding"),
    ("胸口疼得厉害，出冷汗", "chest_pain"),
    ("没有发烧，但是胸痛两小时", "chest_pain"),
    ("没有吃药就胸痛", "chest_pain"),
    ("我爸突然口齿不清，右边胳膊没力气", "stroke_signs"),
    ("孩子高烧40度，一直抽搐", "seizure"),
    ("不想活了，吞了一整瓶安眠药", "suicide"),
    ("一年前胸痛过，最近又胸痛", "chest_pain"),
    ("服抗凝药者，胸痛超过15分钟，不想去医院", "chest_pain"),
    ("癫痫二十年，现在突然不省人事半小时", "unconscious"),
    ("肚子疼得打滚", "acute_abdomen"),
]
ABSENT = [
    "I have no chest pain and no shortness of breath",
    "No fever, cough or chest pain, only a runny nose",
    "She denies chest pain, shortness of breath or fainting",
    "If chest pain occurs, what should I do?",
    "Can aspirin cause vomiting blood?",
    "I had a seizure as a child",
    "I had chest pain, went to the ER, the doctor said it was reflux",
    "chest pain is gone, what now about my diet?",
    "没有胸痛，也没有呼吸困难",
    "无发热、胸痛、呼吸困难，只是流鼻涕",
    "不伴胸痛和气促",
    "如果出现胸痛怎么办？",
    "会不会引起呕血？",
    "担心会昏倒，平时注意什么？",
    "十年前晕厥过一次",
    "突然晕倒，送到医院，医生说是低血糖",
    "患癫痫多年，每次发作都口吐白沫，怎么治疗？",
    "胸痛已经消失了，可以跑步吗",
    "早上吃了两个鸡蛋",
    "",
]


@pytest.mark.parametrize(("text", "term"), PRESENT)
def test_present_signs_count(text: str, term: str) -> None:
    assert term in signs(text)


@pytest.mark.parametrize("text", ABSENT)
def test_signs_that_are_not_there_do_not_count(text: str) -> None:
    assert signs(text) == set()


def test_a_sign_of_an_earlier_turn_counts_until_it_is_denied() -> None:
    assert signs("可以吃布洛芬吗？", "我胸痛两小时") == {"chest_pain"}
    assert signs("现在没有胸痛了，可以吃布洛芬吗？", "我胸痛两小时") == set()
