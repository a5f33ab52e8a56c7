"""A file of questions: every row comes out again with its label, its notices and its version; a kill loses no whole row."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from core.completions import split_completion
from core.errors import Forbidden, UserError
from core.exports.files import write
from core.home import Home
from core.lexicons import load_lexicons
from core.prediction import Question, list_predictions, read_questions, result_row, start
from core.records import Language, Message, Prompt, RewardConfig
from core.scoring import Scorer
from core.teacher import open_teacher
from db import tables as t
from db.engine import write_session
from tests import factories
from training.predict import keep_whole_lines

CHEST = "Chest pain with cold sweat for one hour, can I take aspirin?"


def asked(path: Path, column: str = "") -> list[tuple[str, str, str]]:
    return [(q.id, q.prompt.text if q.prompt else "", q.error) for q in read_questions(path, column)]


def test_csv_and_jsonl_are_read_by_the_names_people_use(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text(f'编号,问题\n1,孩子发热三天怎么办？\n2,\n3,"{CHEST}"\n', encoding="gb18030")
    assert asked(table) == [("1", "孩子发热三天怎么办？", ""), ("2", "", "empty_question"), ("3", CHEST, "")]
    assert [q.prompt.language for q in read_questions(table) if q.prompt] == [Language.ZH, Language.EN]
    lines = tmp_path / "b.jsonl"
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}, {"role": "user", "content": CHEST}]
    lines.write_text(json.dumps({"id": 7, "messages": chat}) + "\nnot json\n" + json.dumps({"id": 8, "messages": chat[:2]}) + "\n")
    assert asked(lines) == [("7", CHEST, ""), ("", "", "row_not_json"), ("8", "", "empty_question")]
    other = tmp_path / "c.csv"
    other.write_text("a,b\nx,y\n")
    assert asked(other, "B") == [("", "y", "")]


@pytest.mark.parametrize(("name", "text", "code"), [("a.csv", "a,b\nx,y\n", "no_question_column"), ("a.exe", "x", "not_a_question_file")])
def test_what_is_no_file_of_questions_is_a_sentence(tmp_path: Path, name: str, text: str, code: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=code):
        list(read_questions(path))


def row_for(home: Home, question: str, text: str | None, identity: str = "1") -> dict[str, Any]:
    prompt = Prompt((Message("user", question),), Language.EN)
    scorer = Scorer(load_lexicons(), open_teacher(home.settings), RewardConfig("v1"))
    version = t.ModelVersion(name="rl-1", kind="rl", content_hash="ab" * 32, is_toy=True)
    completion = split_completion(text) if text is not None else None
    scored = scorer.score([prompt], [completion], with_teacher=False)[0] if completion is not None else None
    return result_row(Question(1, identity, prompt), version, scorer, completion, scored, "" if completion else "question_too_long")


def test_every_answer_carries_its_label_notices_scores_and_version(home: Home) -> None:
    good = row_for(home, CHEST, "<think>\n1.\n</think>\nThis can be a heart attack. Call 120 now.")
    assert (good["emergency_advised"], good["safety_notice"]) == ("yes", "emergency advice present")
    assert "chest_pain" in good["danger_signs"]
    assert good["ai_label"].startswith("AI-generated, not medical advice")
    assert "demonstration model" in good["ai_label"]
    assert (good["version"], good["version_hash"], good["rule_emergency"]) == ("rl-1", "ab" * 32, 1.0)
    bad = row_for(home, CHEST, "<think>\n1.\n</think>\nRest at home.")
    assert (bad["emergency_advised"], bad["acceptable"]) == ("no", "no")
    assert "no emergency advice" in bad["safety_notice"]
    calm = row_for(home, "A runny nose for three days, what can I do?", "<think>\n1.\n</think>\nRest and drink water.")
    assert (calm["emergency_advised"], calm["acceptable"], calm["danger_signs"]) == ("not_needed", "unknown", "")
    none = row_for(home, CHEST, None)
    assert (none["error"], none["answer"], none["reward"], none["version"]) == ("question_too_long", "", None, "rl-1")
    assert none["ai_label"]


def test_the_table_defuses_formulas(home: Home, tmp_path: Path) -> None:
    row = row_for(home, '=HYPERLINK("http://x")', "@SUM(1)", identity="+1")
    write(tmp_path / "p.csv", [row], "csv")
    with (tmp_path / "p.csv").open(encoding="utf-8-sig", newline="") as file:
        found = next(csv.DictReader(file))
    assert (found["id"], found["question"][:2], found["answer"]) == ("'+1", "'=", "'@SUM(1)")


def test_a_half_written_line_is_dropped_and_other_weights_start_anew(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    assert keep_whole_lines(path, {"version_hash": "a"}) == 0
    lines = [json.dumps({"row": i, "version_hash": "a"}) + "\n" for i in (1, 2)]
    path.write_text("".join(lines) + '{"row": 3, "ver')
    assert keep_whole_lines(path, {"version_hash": "a"}) == 2
    assert path.read_text() == "".join(lines)
    assert keep_whole_lines(path, {"version_hash": "b"}) == 0
    assert path.read_text() == ""


def test_starting_checks_role_file_and_version_before_anything_is_queued(home: Home) -> None:
    with write_session() as session:
        version = factories.version(session, name="rl-1")
        people = {role: factories.user(session, role).id for role in ("product", "clinician")}
    content = f'question\n"{CHEST}"\n'.encode()
    with pytest.raises(Forbidden):
        start(people["clinician"], home, name="q.csv", content=content, model=version.name)
    with pytest.raises(UserError, match="no_such_version"):
        start(people["product"], home, name="q.csv", content=content, model="nobody")
    with pytest.raises(UserError, match="no_questions"):
        start(people["product"], home, name="q.csv", content=b"question\n", model=version.name)
    assert list_predictions(home) == []
    job = start(people["product"], home, name="../../q.csv", content=content, model=version.name)
    listed = list_predictions(home)[0]
    assert (listed.job_id, listed.status, listed.model, listed.file, listed.num_rows) == (job, "queued", "rl-1", "", None)
