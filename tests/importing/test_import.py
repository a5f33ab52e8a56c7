"""Importing real and broken files: what is kept, what is refused and in which words, and that nothing is half-stored."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from core.errors import UserError
from core.home import Home
from core.i18n import error_text, translate
from core.importing import readers
from core.importing.importer import import_file, preview
from core.jobs.configs import ImportConfig
from db import tables as t
from db.engine import read_session, write_session


def run_import(home: Home, path: Path, **values: Any) -> Any:
    config = ImportConfig(**{"path": str(path), "dataset": "imported", **values})
    folder = home.root / "datasets" / "imported"
    return import_file(path, config, folder=folder, card_path="datasets/imported/DATA_CARD.md", created_by=None, job_id=None)


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    return path


def count(table: type[Any]) -> int:
    with read_session() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_usable_rows_are_kept_and_each_bad_row_names_its_line_and_reason(home: Home, tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "mixed.jsonl",
        [
            {"prompt": "Chest pain and cold sweat, what should I do?", "answer": "Call an ambulance."},
            "{not json",
            {"prompt": ""},
            ["a", "list"],
            {"prompt": "发热三天怎么办？", "risk": "extreme"},
            {"prompt": "发热三天怎么办？", "risk": "高"},
        ],
    )
    _, report = run_import(home, path)
    assert (report.num_rows, report.num_imported, report.num_rejected) == (6, 2, 4)
    assert [(e["line"], e["code"]) for e in report.errors] == [
        (2, "row_not_json"),
        (3, "row_missing"),
        (4, "row_not_object"),
        (5, "row_off_menu"),
    ]
    for error in report.errors:
        for language in ("en", "zh"):
            text = translate(f"data.{error['code']}", language, **error["params"])
            assert "{found}" not in text
            assert not text.startswith("data.")
    card = (home.root / "datasets" / "imported" / "DATA_CARD.md").read_text()
    assert "6 read, 2 imported, 4 refused" in card
    assert len((home.root / "datasets" / "imported" / "rejected.jsonl").read_text().splitlines()) == 4


def test_a_file_without_a_usable_row_stores_nothing(home: Home, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "bad.jsonl", [{"prompt": "x", "risk": "?"}, {"prompt": "y", "risk": "?"}])
    with pytest.raises(UserError, match="nothing_usable"):
        run_import(home, path)
    assert count(t.Dataset) == 0
    assert count(t.Sample) == 0


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("empty.csv", b"", "data.file_empty"),
        ("picture.jsonl", b"\x89PNG\x00\x00\x00", "data.file_binary"),
        ("notes.docx", b"PK\x03\x04", "data.format_unknown"),
        ("fake.parquet", b"prompt,answer\n", "data.not_parquet"),
        ("broken.parquet", b"PAR1garbagePAR1", "data.parquet_broken"),
        ("broken.json", b'[{"prompt": "a"},', "data.json_broken"),
        ("twice.csv", b"prompt,prompt\na,b\n", "data.csv_bad_header"),
        ("other.csv", b"colour,size\nred,3\n", "data.column_missing"),
        ("binary.jsonl", bytes(range(128, 256)) * 3, "data.encoding_unknown"),
    ],
)
def test_wrong_files_get_one_sentence_with_the_next_step(home: Home, tmp_path: Path, name: str, content: bytes, code: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        run_import(home, path)
    assert caught.value.code == code
    for language in ("en", "zh"):
        sentence = error_text(caught.value, language)
        assert "{" not in sentence
        assert len(sentence) > 20
    assert count(t.Dataset) == 0


def test_pipeline_files_bring_completions_judgements_and_conflicts(home: Home, tmp_path: Path) -> None:
    row = {"prompt": "胸痛伴大汗，怎么办？", "completion": "<think>1. 胸痛。</think>多喝水。", "teacher_score": 0.1, "safety_flag": True}
    path = write_lines(
        tmp_path / "teacher_conflicts.jsonl", [{**row, "critique": "没有急诊建议"}, {**row, "prompt": "咳嗽两天", "teacher_score": 3}]
    )
    _, report = run_import(home, path)
    assert (report.kind, report.num_imported, report.num_conflicts, report.num_judgements) == ("conflicts", 1, 1, 1)
    with read_session() as session:
        conflict = session.scalars(select(t.Conflict)).one()
        completion = session.get(t.Completion, conflict.completion_id)
        assert completion is not None
        assert (completion.thinking, completion.answer) == ("1. 胸痛。", "多喝水。")
        assert conflict.advice == "没有急诊建议"


def test_gold_and_red_team_never_enter_training(home: Home, tmp_path: Path) -> None:
    gold = write_lines(tmp_path / "gold_set.jsonl", [{"prompt": f"Question {i} about chest pain?", "answer": "a"} for i in range(5)])
    run_import(home, gold, dataset="gold")
    again = write_lines(tmp_path / "train.jsonl", [{"prompt": f"Question {i} about  chest pain?"} for i in range(3, 8)])
    _, report = run_import(home, again, dataset="again")
    assert report.num_leaks == 2
    assert report.rejected_by_reason == {"row_leak": 2}
    with read_session() as session:
        assert set(session.scalars(select(t.Sample.split).join(t.Dataset).where(t.Dataset.name == "gold"))) == {"gold"}


def test_preference_chats_and_multiple_completions(home: Home, tmp_path: Path) -> None:
    ask = {"role": "user", "content": "Can I take ibuprofen in week 30?"}
    chosen, rejected = [ask, {"role": "assistant", "content": "No; ask your doctor."}], [ask, {"role": "assistant", "content": "Sure."}]
    path = write_lines(tmp_path / "pairs.jsonl", [{"chosen": chosen, "rejected": rejected}, {"chosen": chosen, "rejected": chosen}])
    _, report = run_import(home, path)
    assert (report.kind, report.num_pairs, report.rejected_by_reason) == ("preferences", 1, {"row_same_pair": 1})
    many = write_lines(tmp_path / "many.jsonl", [{"prompt": "Fever?", "completions": ["one", "two", "two"]}])
    _, report = run_import(home, many, dataset="many")
    assert report.num_completions == 2


def test_csv_rows_of_the_wrong_width_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,answer\n"two\nlines",ok\nonly one\nx,y,z\nq,a\n', encoding="utf-8")
    rows = list(readers.read_rows(path))
    assert [(type(r).__name__, r.row, r.line) for r in rows] == [
        ("RawRow", 1, 3),
        ("RowError", 2, 4),
        ("RowError", 3, 5),
        ("RawRow", 4, 6),
    ]


def test_parquet_and_nan(home: Home, tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "p.parquet"
    pd.DataFrame({"question": ["Fever for 3 days?", "Headache?"], "answer": ["Rest.", float("nan")]}).to_parquet(path)
    _, report = run_import(home, path)
    assert report.num_imported == 2
    with read_session() as session:
        assert sorted(session.scalars(select(t.Sample.reference)), key=str) == [None, "Rest."]


def test_splits_are_deterministic_stratified_and_keep_near_duplicates_together(home: Home, tmp_path: Path) -> None:
    rng = random.Random(1)
    english, chinese = [f"word{i}" for i in range(400)], "头痛发热咳嗽胸闷腹泻恶心乏力失眠皮疹水肿心悸眩晕便秘尿频耳鸣鼻塞咽痛腰酸背麻"
    texts = [" ".join(rng.choices(english, k=20)) for _ in range(300)] + ["".join(rng.choices(chinese, k=25)) for _ in range(150)]
    families = [[text, text + (" ok" if text[0] == "w" else "吗"), text + (" ok so" if text[0] == "w" else "吗？")] for text in texts[:40]]
    texts += [one for family in families for one in family[1:]]
    rows = [{"prompt": text} for text in texts]

    def splits(**config: Any) -> dict[str, tuple[str, str]]:
        run_import(home, write_lines(tmp_path / "rows.jsonl", rows), **config)
        with write_session() as session:  # taken away again: a second import would rightly refuse what is held out already
            found = {row.text: (row.split, row.language) for row in session.scalars(select(t.Sample))}
            session.execute(delete(t.Sample))
            session.execute(delete(t.Dataset))
        return found

    found = splits()
    rng.shuffle(rows)
    assert splits() == found
    assert splits(seed=1) != found
    assert len(found) == len(texts)
    for family in families:
        assert len({found[text][0] for text in family}) == 1, family
    for language, num in (("en", 300), ("zh", 150)):  # shares of the families, which travel as one
        leaders = [split for text, (split, of) in found.items() if of == language and text in texts[:450]]
        for name, share in (("train", 0.8), ("dev", 0.1), ("test", 0.1)):
            assert abs(leaders.count(name) - share * num) < 2.5, (language, name)


def test_preview_shows_the_first_rows_as_they_would_be_stored(tmp_path: Path) -> None:
    rows = [{"prompt": f"I have had a cough for {i} days, what helps?"} for i in range(30)]
    shown = preview(write_lines(tmp_path / "s.jsonl", rows))
    assert shown.kind == "prompts"
    assert [item.text for item in shown.items] == [row["prompt"] for row in rows[:20]]


def test_real_chinese_export_in_gb18030(home: Home, shared_data: Path) -> None:
    _, report = run_import(home, shared_data / "import" / "neike_zh_gb18030.csv", dataset="neike")
    assert report.encoding == "gb18030"
    assert report.num_imported + report.num_quarantined + report.num_rejected + report.num_exact_duplicates >= 3000
    assert report.languages["zh"] > 0.99 * report.num_imported
    with read_session() as session:
        row = session.scalars(select(t.Sample).limit(1)).one()
    assert row.category.endswith("科")
    assert row.reference


def test_real_english_patient_questions(home: Home, shared_data: Path) -> None:
    _, report = run_import(home, shared_data / "import" / "patient_questions_en.jsonl", dataset="patients")
    assert report.num_imported > 1000
    assert report.num_imported + report.num_quarantined + report.num_rejected + report.num_exact_duplicates == 2000
    assert report.risks.get("high", 0) > 0
