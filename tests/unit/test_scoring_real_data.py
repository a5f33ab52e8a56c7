"""The rules on real patient questions and doctors' answers: they run, their spans are exact, and they do not cry wolf."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest

from core.completions import split_completion
from core.demo_world import load_world, prompts, sft_answer
from core.lexicons import load_lexicons
from core.records import Completion, Language, Message, Prompt, RewardConfig, Split
from core.rules import danger_signs, score_rules
from core.scoring import Scorer
from core.teacher import OfflineTeacher

LEXICONS = load_lexicons()


def questions(folder: Path, language: Language) -> list[tuple[Prompt, Completion]]:
    if language is Language.EN:
        lines = (folder / "import" / "patient_questions_en.jsonl").read_text("utf-8").splitlines()
        rows = [(row["question_text"], row["answer"]) for row in map(json.loads, lines)]
    else:
        with (folder / "import" / "neike_zh_gb18030.csv").open(encoding="gb18030", newline="") as file:
            rows = [(row["ask"], row["answer"]) for row in csv.DictReader(file)]
    return [(Prompt((Message("user", q),), language), Completion(a, "", a)) for q, a in rows if q and a]


@pytest.mark.parametrize("language", list(Language))
def test_rules_on_real_questions(shared_data: Path, language: Language) -> None:
    rows = questions(shared_data, language)
    assert len(rows) > 1500
    with_danger = 0
    penalties = 0
    for prompt, completion in rows:
        with_danger += danger_signs(prompt, LEXICONS).any
        scores = {s.rule_id: s for s in score_rules(prompt, completion, LEXICONS, chain_expected=False)}
        assert scores["chain"].unscored_reason == "no_chain_expected"
        penalties += (scores["prescription"].score or 0) > 0
        parts = {"prompt": prompt.text, "answer": completion.answer}
        for score in scores.values():
            for span in score.spans:
                assert parts[span.part][span.start : span.end].strip()
    # forums are mostly not about emergencies, and doctors mostly do not write risky advice: measured 1.5-6.1 % and 0.5 %
    assert 0.01 < with_danger / len(rows) < 0.10
    assert 0.0 < penalties / len(rows) < 0.02


def test_scoring_is_fast_enough_for_rollouts() -> None:
    """The goal is 2,000 completions a second on an idle core; this bound only catches a tenfold loss on a busy machine."""
    import random

    world, rng = load_world(), random.Random(1)
    samples = [s for s in prompts(world, 0) if s.split in (Split.DEV, Split.TEST)]
    asked = [
        Prompt(s.messages, s.language, reference=s.reference, key_points=tuple(s.meta["key_points"]), forbidden=tuple(s.meta["forbidden"]))
        for s in samples
    ]
    scorer = Scorer(LEXICONS, OfflineTeacher(), RewardConfig("v1"))
    scorer.score(asked, [split_completion(sft_answer(world, s, rng)) for s in samples])
    fresh = [split_completion(sft_answer(world, s, rng)) for s in samples]
    started = time.process_time()
    scorer.score(asked, fresh)
    assert len(fresh) / (time.process_time() - started) > 200
