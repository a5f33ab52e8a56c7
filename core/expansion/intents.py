"""What a question asks about which topic, and other ways to ask the same. Pure but for reading assets/expansion/intents.toml once.

Called by the offline generator for its vec lines and by augmentation for its shorter wordings.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache

from core.expansion import terms
from core.retrieval.tokens import QUESTION_PHRASES

TAIL = re.compile(r"[\s?？!！.。,，]+$")
POLITE_ZH = re.compile("^(?:请问|你好|您好|医生|大夫|我?想(?:问|咨询|知道|了解)一?下?|[,，。!！\\s])+|(?:啊|呀|呢|吗|嘛|么|那|的|请问)+$")


@dataclass(frozen=True, slots=True)
class Asked:
    """`intent` is "" where no pattern fits; `topic` is then the question without its question words. `detail`: a second one, as a food."""

    intent: str
    topic: str
    detail: str = ""


@cache
def _patterns(language: str) -> tuple[tuple[str, re.Pattern[str], tuple[str, ...]], ...]:
    with (terms.ASSETS / "expansion" / "intents.toml").open("rb") as file:
        intents = tomllib.load(file)["intent"]
    return tuple((i["name"], re.compile(p, re.IGNORECASE), tuple(i["say"][language])) for i in intents for p in i["ask"][language])


def asked(question: str) -> Asked:
    """Intent and topic of a question, the topic as it is written there."""
    text, language = _trimmed(question)
    for name, pattern, _ in _patterns(language):
        found = pattern.fullmatch(text) if language == "en" else pattern.search(text)
        topic = _trimmed(found["x"])[0].strip() if found else ""
        if found and len(topic) > 1 and not QUESTION_PHRASES.search(topic):
            return Asked(name, topic, _trimmed(found.groupdict().get("y") or "")[0])
    if language == "zh":
        parts = [part for part in terms.PUNCTUATION.split(terms.lists().between_zh.sub(" ", text)) if len(part) > 1]
        return Asked("", " ".join(parts[:3]) or text)
    words = [w.strip(terms.EDGES) for w in text.split() if w.lower().strip(terms.EDGES) not in terms.lists().key_term_stop]
    return Asked("", " ".join(words) or text)


def paraphrases(question: str) -> list[str]:
    """Other ways to ask it, in the language of the question; empty where its intent is not known."""
    found = asked(question)
    _, language = _trimmed(question)
    said = next((say for name, _, say in _patterns(language) if name == found.intent), ())
    return [wording.format(x=found.topic, y=found.detail) for wording in said]


def _trimmed(question: str) -> tuple[str, str]:
    """The question without its end mark and politeness, and its language."""
    language = "zh" if terms.has_cjk(question) else "en"
    text = TAIL.sub("", question.strip())
    if language == "zh":
        text = TAIL.sub("", POLITE_ZH.sub("", text))
    return text, language
