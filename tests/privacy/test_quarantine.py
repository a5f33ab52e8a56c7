"""Quarantine: what waits, who may decide, what a decision does, and that surrogates agree with each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core import accounts, audit, quarantine
from core.accounts import Person
from core.deidentify import Surrogates, find
from core.errors import Conflicting, Forbidden, UserError
from core.home import Home
from core.importing.importer import Report, import_file, preview
from core.jobs.configs import ImportConfig
from core.privacy_doors import TeacherDoor, outside_messages, outside_texts
from core.records import Completion, Language, Message, Prompt
from db import tables as t
from db.engine import read_session

ROWS = [
    {"prompt": "血压高怎么办？", "reference": "请监测血压，胸痛请拨打120。"},
    {"prompt": "患者王建国，男，67岁，2023年5月6日入院，5天后2023年5月11日出院，能停药吗？", "reference": "请联系主治医师：李晓燕。"},
    {"prompt": "王建国先生的电话13812345678，咳嗽两周。", "reference": "多喝水。"},
]


def person(role: str) -> Person:
    user = accounts.create_user(f"{role}-{len(accounts.list_accounts())}", f"Dr {role.title()}", role, by=None)
    found = accounts.person_for_token(accounts.open_session(user, "test", "en"))
    assert found is not None
    return found


def bring_in(home: Home, tmp_path: Path, rows: list[dict[str, Any]] | None = None, name: str = "a") -> tuple[int, Report]:
    path = tmp_path / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows or ROWS), encoding="utf-8")
    config = ImportConfig(path=str(path), dataset=name)
    return import_file(
        path, config, folder=home.root / "datasets" / name, card_path=f"datasets/{name}/DATA_CARD.md", created_by=None, job_id=None
    )


def texts(dataset: int) -> str:
    with read_session() as session:
        return "\n".join(f"{s.text} {s.reference}" for s in session.scalars(select(t.Sample).where(t.Sample.dataset_id == dataset)))


def test_rows_with_a_hit_wait_and_the_rest_comes_in(home: Home, tmp_path: Path) -> None:
    dataset, report = bring_in(home, tmp_path)
    assert (report.num_rows, report.num_imported, report.num_quarantined) == (3, 1, 2)
    assert "120" in texts(dataset)
    assert "王建国" not in texts(dataset)
    rows, total = quarantine.waiting()
    assert total == 2
    assert quarantine.counts()["name"] == 2
    assert all("王建国" not in r.preview and "[name]" in r.preview for r in rows)
    card = (home.root / "datasets" / "a" / "DATA_CARD.md").read_text()
    assert "2 rows seemed to identify a person" in card


def test_the_preview_before_an_import_is_masked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in [*ROWS, {"prompt": "x", "risk": "王小明 13912345678"}]))
    shown = preview(path)
    said = str([(i.text, i.reference) for i in shown.items]) + str([e.params for e in shown.errors])
    assert set(shown.held) == {2, 3}
    assert "13812345678" not in said
    assert "13912345678" not in said
    assert "王建国" not in said


def test_surrogates_agree_within_the_dataset_and_intervals_stay(home: Home, tmp_path: Path) -> None:
    dataset, _ = bring_in(home, tmp_path)
    engineer = person("engineer")
    ids = [r.id for r in quarantine.waiting()[0]]
    assert quarantine.decide(engineer, ids, "surrogate", "for training") == 2
    with read_session() as session:
        said = list(session.scalars(select(t.Sample.text).where(t.Sample.dataset_id == dataset).order_by(t.Sample.id)))
        payloads = list(session.scalars(select(t.QuarantineItem.payload)))
        assert session.get_one(t.Dataset, dataset).num_samples == 3
        assert audit.verify(session) is None
    assert payloads == [{}, {}]
    names = {text[text.index("某") - 1 : text.index("某") + 2] for text in said[1:]}
    assert len(names) == 1  # the same person in both rows
    from datetime import date
    from re import findall

    days = [date(*map(int, d)) for d in findall(r"(\d{4})年(\d+)月(\d+)日", said[1])]
    assert (days[1] - days[0]).days == 5
    assert days[0] != date(2023, 5, 6)
    assert "13812345678" not in said[2]


def test_release_needs_an_administrator_and_a_reason(home: Home, tmp_path: Path) -> None:
    dataset, _ = bring_in(home, tmp_path)
    first, second = (r.id for r in quarantine.waiting()[0])
    with pytest.raises(Forbidden):
        quarantine.decide(person("engineer"), [first], "released", "is public")
    with pytest.raises(Forbidden):
        quarantine.decide(person("clinician"), [first], "dropped", "not needed")
    admin = person("admin")
    with pytest.raises(UserError, match="reason_needed"):
        quarantine.decide(admin, [first], "released", " ")
    quarantine.decide(admin, [first], "released", "invented example of a textbook")
    with pytest.raises(Conflicting):
        quarantine.decide(admin, [first, second], "dropped", "twice")
    assert quarantine.waiting()[1] == 1  # all or none
    assert "王建国，男" in texts(dataset)
    done = quarantine.waiting(status="released")[0][0]
    assert (done.decided_by, done.reason) == ("Dr Admin", "invented example of a textbook")
    with read_session() as session:
        entry = session.scalars(select(t.AuditEntry).where(t.AuditEntry.action == "quarantine.released")).one()
        sample = session.scalars(select(t.Sample).where(t.Sample.text.contains("王建国"))).one()
    assert entry.actor_id == admin.id
    assert "王建国" not in json.dumps(entry.detail, ensure_ascii=False)
    from core.datasets import to_prompt

    assert TeacherDoor().admit(to_prompt(sample), Completion("好的", "", "好的")) is not None  # released for the doors too


def test_policies_are_an_administrators_and_hold_at_once(home: Home, tmp_path: Path) -> None:
    with pytest.raises(Forbidden):
        quarantine.set_policy(person("engineer"), "off", "I want to")
    admin = person("admin")
    quarantine.set_policy(admin, "surrogate", "ward agreed")
    dataset, report = bring_in(home, tmp_path)
    assert (report.num_quarantined, report.num_surrogates, report.num_imported) == (0, 2, 3)
    assert "王建国" not in texts(dataset)
    quarantine.set_policy(admin, "off", "synthetic data only")
    found = [{"prompt": "患者赵国强，男，头痛。"}]
    dataset, report = bring_in(home, tmp_path, found, "b")
    assert "赵国强" in texts(dataset)
    assert "Dr Admin" in report.privacy_note
    assert "synthetic data only" in (home.root / "datasets" / "b" / "DATA_CARD.md").read_text()
    with read_session() as session:
        assert [e.action for e in session.scalars(select(t.AuditEntry)) if e.action == "privacy.policy"] == ["privacy.policy"] * 2


def test_doors_refuse_mask_or_replace(home: Home) -> None:
    chat = [Message("user", "My name is John Smith, call (212) 555-0187")]
    with pytest.raises(UserError, match=r"privacy\.leaving"):
        outside_messages(chat)
    assert outside_messages([Message("user", "Call 911?")]) == [Message("user", "Call 911?")]
    assert outside_texts(["Dr. John Smith", "fever"]) == ["Dr. [name]", "fever"]
    prompt = Prompt((Message("user", "患者王建国，男"),), Language.ZH)
    answer = Completion("好", "", "好")
    assert TeacherDoor().admit(prompt, answer) is None
    quarantine.set_policy(person("admin"), "surrogate", "ward agreed")
    assert "John" not in outside_messages(chat)[0].content
    admitted = TeacherDoor().admit(prompt, answer)
    assert admitted is not None
    assert "某" in admitted[0].text


def test_surrogates_keep_family_form_and_secret() -> None:
    one = Surrogates(b"key", "set", "row 1")
    full, short = one.of("name", "John Smith"), one.of("name", "Smith")
    assert full.split()[-1] == short
    assert Surrogates(b"key", "set", "row 2").of("name", "John Smith") == full
    assert Surrogates(b"other", "set", "row 1").of("name", "John Smith") != full
    assert one.of("date", "March 5, 2021") != "March 5, 2021"
    assert one.of("mobile", "138-1234-5678").count("-") == 2
    assert find(one.of("id_card", "11010519491231002X")) == []
