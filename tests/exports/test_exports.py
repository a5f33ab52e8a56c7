"""Exports: what is in them, what must never be, and that other people's readers read them."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core.errors import Forbidden, NotFound, UserError
from core.exports import service
from core.exports.files import safe_cell
from core.exports.rows import Filter
from core.home import Home, open_home
from core.importing.importer import import_file
from core.jobs.configs import ImportConfig
from db import tables as t
from db.engine import read_session
from tests.exports.conftest import Decided


def lines(made: service.Exported) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.file_of(made.id)[1].read_text("utf-8").splitlines()]


@pytest.mark.parametrize("kind", ["preferences", "kto", "steps"])
def test_no_held_out_sample_ever_enters_a_training_export(decided: Decided, kind: str) -> None:
    made = service.make(decided.admin, kind)
    assert {row["sample_id"] for row in lines(made)} == {decided.train_sample}
    assert made.manifest["num_left_out"]["held_out_test"] > 0
    assert made.manifest["for_training"] is True


def test_preferences_are_chats_from_rewrites_and_blind_votes(decided: Decided) -> None:
    rows = lines(service.make(decided.admin, "preferences"))
    assert [row["source"] for row in rows] == ["adjudication", "blind_vote"]  # the open vote and the tie are no preference
    assert rows[0]["prompt"] == [{"role": "user", "content": "I cough, what helps?"}]
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "Call 120."}]
    assert rows[1]["chosen"][0]["content"].startswith("<think>")
    assert rows[1]["rejected"][0]["content"] == "Take 5 g of aspirin now."


def test_kto_takes_the_verdict_that_stands_and_ties(decided: Decided) -> None:
    made = service.make(decided.admin, "kto")
    found = [(row["source"], row["completion"][0]["content"][:6], row["label"]) for row in lines(made)]
    assert found == [
        ("adjudication", "<think", True),
        ("adjudication", "Take 5", False),  # corrected from acceptable to unsafe
        ("blind_vote", "<think", True),
        ("blind_vote", "Take 5", True),
    ]
    assert made.manifest["num_left_out"]["verdict_minor"] == 2


def test_steps_carry_only_what_was_marked(decided: Decided) -> None:
    (row,) = lines(service.make(decided.admin, "steps"))
    assert row["completions"] == ["1. Red flag?", "2. No.", "Rest.", "Drink water."]
    assert row["labels"] == [True, None, True, False]
    assert row["parts"] == ["thinking", "thinking", "answer", "answer"]


def test_adjudications_name_nobody_and_run_nothing_in_a_spreadsheet(decided: Decided) -> None:
    made = service.make(decided.admin, "adjudications", "csv")
    text = service.file_of(made.id)[1].read_text("utf-8-sig")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == made.num_rows == 6
    assert "Wang Secret" not in text
    assert {row["reviewer"] for row in rows} == {rows[0]["reviewer"]}
    assert rows[0]["reviewer"].startswith("reviewer-")
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert any(row["note"] == "'=overdose" for row in rows)
    assert safe_cell(-0.5) == -0.5


def test_the_manifest_tells_what_the_file_is(decided: Decided, home: Home) -> None:
    made = service.make(decided.admin, "adjudications", "jsonl", Filter(dataset="ward", language="en"))
    path = service.file_of(made.id)[1]
    manifest = json.loads((path.parent / "manifest.json").read_text())
    assert manifest == made.manifest
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["filter"] == {"dataset": "ward", "language": "en", "since": None}
    assert manifest["rule_versions"] == ["lex1"]
    assert "AI-generated" in manifest["ai_label"]
    with read_session() as session:
        entry = session.scalars(select(t.AuditEntry).order_by(t.AuditEntry.id.desc())).first()
    assert entry is not None
    assert (entry.action, entry.detail["sha256"]) == ("export", made.sha256)
    path.write_text("changed")
    with pytest.raises(UserError, match=r"exports\.changed"):
        service.file_of(made.id)


@pytest.mark.parametrize(("kind", "form"), [(kind, form) for kind, forms in service.FORMATS.items() for form in forms])
def test_every_export_is_read_by_the_datasets_library(decided: Decided, kind: str, form: str, tmp_path: Path) -> None:
    from datasets import load_dataset

    made = service.make(decided.admin, kind, form)
    path = service.file_of(made.id)[1]
    if form == "md":
        text = path.read_text("utf-8")
        assert text.count("\n## ") == made.num_rows
        assert "suggested\\_answer" in text or "suggested_answer" in text
        return
    loader = {"jsonl": "json", "json": "json"}.get(form, form)
    found = load_dataset(loader, data_files=str(path), cache_dir=str(tmp_path / "cache"), split="train")
    assert len(found) == made.num_rows


def test_conflicts_come_back_through_the_importer(decided: Decided, home: Home, tmp_path: Path) -> None:
    made = service.make(decided.admin, "conflicts")
    path = service.file_of(made.id)[1]
    assert path.name == "teacher_conflicts.jsonl"
    copy = tmp_path / path.name
    rows = lines(made)
    fresh = [{**row, "messages": [{"role": "user", "content": f"new {row['case_id']}?"}]} for row in rows]
    copy.write_text("".join(json.dumps(row) + "\n" for row in fresh))
    config = ImportConfig(path=str(copy), dataset="back")
    _, report = import_file(copy, config, folder=home.root / "datasets" / "back", card_path="c.md", created_by=None, job_id=None)
    assert report.num_rejected == 0
    assert report.num_conflicts == len(rows) == 6
    assert home == open_home(home.settings)


def test_the_teachers_suggestion_is_put_through_the_same_rules(decided: Decided) -> None:
    rows = lines(service.make(decided.admin, "inspection", "jsonl"))
    assert len(rows) == 2
    assert rows[0]["rule_chain"] == 0.5
    assert rows[0]["unscored_rules"] == {"emergency": "no_danger_sign"}
    assert rows[1]["suggested_emergency"] == 1.0  # chest pain: the suggestion calls an ambulance
    assert rows[0]["suggested_chain"] is None


def test_label_studio_and_argilla_forms(decided: Decided) -> None:
    made = service.make(decided.admin, "label_studio")
    path = service.file_of(made.id)[1]
    config = (path.parent / "label_config.xml").read_text()
    for task in json.loads(path.read_text("utf-8")):
        for one in task["annotations"][0]["result"]:
            assert f'name="{one["from_name"]}"' in config
            assert one["type"] != "choices" or all(f'value="{c}"' in config for c in one["value"]["choices"])
    made = service.make(decided.admin, "argilla")
    settings = json.loads((service.file_of(made.id)[1].parent / "settings.json").read_text())
    known = {f["name"] for f in settings["fields"] + settings["metadata"]} | {f"{q['name']}.response" for q in settings["questions"]}
    assert all(set(row) - {"id"} <= known for row in lines(made))


def test_refusals_are_sentences_and_leave_nothing_behind(decided: Decided, home: Home) -> None:
    with pytest.raises(Forbidden):
        service.make(decided.clinician, "preferences")
    with pytest.raises(UserError, match=r"exports\.no_such_kind"):
        service.make(decided.admin, "everything")
    with pytest.raises(UserError, match=r"exports\.no_such_format"):
        service.make(decided.admin, "kto", "csv")
    with pytest.raises(NotFound, match=r"exports\.no_such_dataset"):
        service.make(decided.admin, "kto", filter=Filter(dataset="none"))
    with pytest.raises(UserError, match=r"exports\.nothing"):
        service.make(decided.admin, "kto", filter=Filter(language="zh"))
    assert list((home.root / "exports").iterdir()) == []
