"""Every rule, part, reason, step and lexicon entry has a name in both languages."""

from __future__ import annotations

import tomllib

import pytest

from core.i18n import catalogue
from core.lexicons import FOLDER, load_lexicons
from core.rewards import EMPTY_ANSWER, NOTHING_SCORED, PARTS
from core.rules import RULES
from core.rules.chain import NO_CHAIN_EXPECTED
from core.teacher import REASONS


def entries(name: str) -> list[str]:
    raw = tomllib.loads((FOLDER / f"{name}.toml").read_text("utf-8"))
    return [term for term, entry in raw.items() if not entry.get("is_check")]


KEYS = [
    *(f"{name}{end}" for name in (*RULES, *PARTS) for end in ("", "_help")),
    *(f"reason_{code}" for code in (*REASONS, EMPTY_ANSWER, NOTHING_SCORED, NO_CHAIN_EXPECTED)),
    *load_lexicons().needs,
    *(f"term_{term}" for file in ("danger_signs", "emergency_advice", "risky_prescriptions") for term in entries(file)),
    *("score_gap", "safety_disagreement", "control", "offline_teacher", "unscored", "term_length", "term_repetition"),
]


@pytest.mark.parametrize("key", sorted(set(KEYS)))
def test_the_name_stands_in_both_languages(key: str) -> None:
    entry = catalogue("scoring")[key]
    assert entry["en"].strip()
    assert any(char >= "\u3400" for char in entry["zh"])
