"""A case's whole life in one file, checked without the product; from an answer to its decisions and from a decision to its versions."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from core import audit, audit_rows, inspection, lineage
from core.adjudication import row_hash
from core.errors import Conflicting, Forbidden, NotFound, UserError
from core.exports import service
from core.home import Home
from core.judged_cases import load
from db import tables as t
from db.base import utc_now
from db.engine import read_session, write_session
from tests import factories


@dataclass(frozen=True)
class Life:
    case: int
    decision: int
    clinician: int
    other: int
    admin: int
    completion: int
    trained: str
    grandchild: str
    by_reward: str


@pytest.fixture
def life(home: Home) -> Life:
    """A question answered by a trained version, judged, signed, calibrated on and trained on."""
    with write_session() as session:
        clinician, other, admin = factories.user(session, language="zh"), factories.user(session), factories.user(session, "admin")
        data = factories.dataset(session, name="ward", content_hash="d" * 64)
        job = t.Job(kind="preferences", config={"seed": 1}, queue="gpu", status="succeeded")
        session.add(job)
        session.flush()
        base = factories.version(session, "base")
        writer = factories.version(
            session, "sft", parent_version_id=base.id, job_id=job.id,
            manifest={"dataset": {"name": "ward", "content_hash": "d" * 64}, "teacher": {"name": "deepseek", "rubric_version": "r1"}},
        )  # fmt: skip
        sample = factories.sample(session, "<script>alert(1)</script> 胸痛怎么办？", dataset=data, split="train")
        completion = factories.completion(session, sample=sample, model_version_id=writer.id, job_id=job.id)
        session.add(t.RuleScore(completion_id=completion.id, rule_id="emergency", lexicon_version="lex-7", score=0.0))
        session.add(t.Judgement(completion_id=completion.id, teacher="deepseek", rubric_version="r1", teacher_score=0.9))
        session.add(t.Reward(completion_id=completion.id, config_version="v2", value=0.4, parts={"chain": 0.5}))
        session.add(t.Guideline(version="g3", text_en="x", text_zh="y", note="third"))
        case = factories.conflict(session, completion=completion)
        row = t.Adjudication(
            conflict_id=case.id, user_id=clinician.id, stage="signed", client_id="c1", verdict="unsafe", guideline_version="g3",
            signed_name=clinician.display_name, signed_at=utc_now(), signed_meaning="本人已审阅并裁决该病例。", note="漏了急诊",
        )  # fmt: skip
        session.add(row)
        session.flush()
        audit.record(session, "adjudicate_signed", "adjudication", row.id, actor_id=clinician.id, detail={"row_sha256": row_hash(row)})
        case.status = "adjudicated"
        session.add(t.Draft(conflict_id=case.id, user_id=other.id, payload={"note": "half"}))
        reward = t.RewardConfig(
            version="v2", chain=0.3, emergency=0.3, risk_penalty=0.15, teacher=0.25, conflict_threshold=0.3, status="approved"
        )
        session.add(reward)
        session.flush()
        lineage.note_uses(session, "reward_config", reward.id, {"adjudication": {row.id: ""}})
        trained = factories.version(session, "rl", parent_version_id=writer.id, job_id=job.id)
        lineage.note_uses(session, "version", trained.id, {"adjudication": {row.id: row_hash(row)}})
        lineage.note_uses(session, "version", trained.id, {"adjudication": {row.id: row_hash(row)}})  # a job that runs again
        child = factories.version(session, "rl", parent_version_id=trained.id)
        by_reward = factories.version(session, "rl", manifest={"reward_config": "v2"})
        return Life(
            case.id, row.id, clinician.id, other.id, admin.id, completion.id, trained.name, child.name, by_reward.name
        )  # fmt: skip


def made(life: Life) -> dict[str, str]:
    return {one.name: one.through for one in lineage.made_of_decision(life.decision)}


def test_from_a_decision_to_everything_made_of_it(life: Life) -> None:
    assert made(life) == {"v2": "direct", life.trained: "direct", life.by_reward: "reward", life.grandchild: "parent"}
    exported = service.make(life.admin, "kto", "jsonl")
    assert made(life)[f"kto {exported.id}"] == "direct"
    with pytest.raises(NotFound):
        lineage.made_of_decision(999)


def test_from_an_answer_to_dataset_reward_teacher_people_and_guideline(life: Life) -> None:
    writer, base = lineage.behind_case(life.case)
    assert (writer.kind, base.kind, writer.job_kind) == ("sft", "base", "preferences")
    assert writer.dataset is not None
    assert (writer.dataset["name"], writer.dataset["is_unchanged"]) == ("ward", True)
    assert writer.teacher == {"name": "deepseek", "rubric_version": "r1"}
    with read_session() as session:
        version = session.scalars(select(t.ModelVersion).where(t.ModelVersion.name == life.trained)).one()
        doctor = session.get_one(t.User, life.clinician).display_name
        trained = lineage.behind_version(session, version)[0]
    assert (trained.adjudications, trained.reviewers, trained.guideline_versions) == ((life.decision,), (doctor,), ("g3",))
    with pytest.raises(NotFound):
        lineage.behind_case(999)


def test_a_retracted_decision_lists_its_runs_and_teaches_nothing_new(life: Life) -> None:
    assert load().decisions == (life.decision,)
    with pytest.raises(UserError, match=r"trust\.reason_missing"):
        lineage.retract(life.clinician, life.decision, reason=" ", proof=factories.proof(life.clinician))
    with pytest.raises(Forbidden):
        lineage.retract(life.other, life.decision, reason="not mine at all", proof=factories.proof(life.other))
    found = lineage.retract(life.clinician, life.decision, reason="wrong patient's notes", proof=factories.proof(life.clinician))
    assert life.trained in {one.name for one in found}
    with pytest.raises(Conflicting):
        lineage.retract(life.admin, life.decision, reason="once more", proof=factories.proof(life.admin))
    assert load().decisions == ()
    with pytest.raises(UserError, match=r"exports\.nothing"):
        service.make(life.admin, "kto", "jsonl")
    (shown,) = lineage.all_overtaken()
    assert (shown.adjudication_id, shown.why, shown.reason) == (life.decision, "retracted", "wrong patient's notes")
    assert {life.trained, life.grandchild, life.by_reward} <= {one.name for one in shown.made}
    with read_session() as session:
        entry = session.scalars(select(t.AuditEntry).where(t.AuditEntry.action == "retract_decision")).one()
        assert (entry.actor_id, entry.detail["signature"]["meaning"][:2]) == (life.clinician, "本人")


def test_corrected_and_overruled_decisions_are_listed_too(life: Life) -> None:
    with write_session() as session:
        later = t.Adjudication(
            conflict_id=life.case, user_id=life.other, stage="signed", client_id="a", verdict="minor", role="arbiter", note="ruled"
        )
        session.add(later)
    assert [(one.adjudication_id, one.why) for one in lineage.all_overtaken()] == [(life.decision, "overruled")]
    with write_session() as session:
        row = t.Adjudication(
            conflict_id=life.case, user_id=life.clinician, stage="signed", client_id="b", verdict="minor", supersedes_id=life.decision
        )
        session.add(row)
    assert [(one.adjudication_id, one.why) for one in lineage.all_overtaken()] == [(life.decision, "corrected")]


def unpacked(path: Path) -> Path:
    with zipfile.ZipFile(path) as pack:
        pack.extractall(path.parent / "pack")
    return path.parent / "pack"


def checked(folder: Path) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-I", "verify.py"], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_pack_tells_everything_and_verifies_without_the_product(life: Life, home: Home, tmp_path: Path) -> None:
    inspection.make(home, life.case, tmp_path / "case.zip", by=life.admin, language="zh")
    folder = unpacked(tmp_path / "case.zip")
    assert checked(folder)[0] == 0, checked(folder)
    whole = json.loads((folder / "inspection.json").read_text(encoding="utf-8"))
    assert whole["ai_generated"] is True
    assert whole["answer"]["ai_generated"] is True
    assert [row["lexicon_version"] for row in whole["rule_scores"]] == ["lex-7"]
    assert [row["rubric_version"] for row in whole["teacher_judgements"]] == ["r1"]
    assert [row["version"] for row in whole["guidelines"]] == ["g3"]
    assert whole["decisions"][0]["signed_meaning"] == "本人已审阅并裁决该病例。"
    assert whole["drafts"][0]["payload"] == {"note": "half"}
    assert {one["name"] for one in whole["made_of_decisions"][str(life.decision)]} >= {life.trained, life.grandchild, "v2"}
    page = (folder / "inspection.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    for said in (
        '<meta name="ai-generated" content="true">',
        "人工智能大模型生成",
        "本人已审阅并裁决该病例",
        "漏了急诊",
        "lex-7",
        life.trained,
    ):
        assert said in page
    assert "trust." not in page, "a word without a translation"
    entries = [json.loads(line) for line in (folder / "audit_entries.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"adjudicate_signed", "inspect_case"} <= {one["action"] for one in entries}


@pytest.mark.parametrize(("name", "old", "new"), [("inspection.json", '"unsafe"', '"minor"'), ("audit_entries.jsonl", "signed", "skipped")])
def test_a_changed_pack_does_not_verify(life: Life, home: Home, tmp_path: Path, name: str, old: str, new: str) -> None:
    inspection.make(home, life.case, tmp_path / "case.zip", by=None, language="en")
    folder = unpacked(tmp_path / "case.zip")
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")
    code, said = checked(folder)
    assert code == 1
    assert "NOT OK" in said


def test_readers_do_not_get_a_pack(life: Life, home: Home, tmp_path: Path) -> None:
    with pytest.raises(Forbidden):
        inspection.make(home, life.case, tmp_path / "case.zip", by=life.clinician, language="en")
    with pytest.raises(NotFound):
        inspection.make(home, 999, tmp_path / "case.zip", by=life.admin, language="en")
    assert not (tmp_path / "case.zip").exists()


def test_a_decision_changed_behind_the_chain_is_found(life: Life, home: Home) -> None:
    assert audit_rows.examine_all(home).broken is None
    with write_session() as session:
        session.get_one(t.Adjudication, life.decision).verdict = "acceptable"
    broken = audit_rows.examine_all(home).broken
    assert broken is not None
    assert (broken.why, broken.where) == ("row", f"adjudication {life.decision}")
