"""The index: what it finds, how it refuses damage, and the job that swaps versions without a gap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from core.errors import UserError
from core.home import Home
from core.retrieval.chunk import Chunk
from core.retrieval.index import build_index, load_index, publish
from core.settings import ROOT
from db import tables as t
from db.engine import read_session, write_session
from training.index import run_index
from training.run import Run


def chunk(number: int, title: str, text: str) -> Chunk:
    return Chunk(f"{number}.md", title, "", "", "", text, 0, len(text))


CHUNKS = [
    chunk(0, "Angina", "Chest pain on effort. Call 120 when it lasts over fifteen minutes."),
    chunk(1, "偏头痛", "单侧搏动性头痛，伴恶心畏光。"),
    chunk(2, "青光眼", "眼痛伴头痛，看灯有虹圈，立即去眼科急诊。"),
    chunk(3, "Burn", "Cool the burn under running water for twenty minutes."),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_index(CHUNKS, tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize(
    ("question", "first"), [("胸口 chest pains", 0), ("虹圈怎么办", 2), ("cooling burns", 3), ("偏头痛", 1), ("虹", 2), ("畏", 1)]
)
def test_finds_in_both_languages(folder: Path, question: str, first: int) -> None:
    hits = load_index(folder).search({"question": question}, 3)
    assert hits[0].number == first
    assert hits[0].chunk == CHUNKS[first]
    assert hits[0].doors == ("question",)


def test_a_second_wording_is_fused_and_named(folder: Path) -> None:
    hits = load_index(folder).search({"question": "burn", "pseudo_doc": "burn chest"}, 4)
    assert [h.number for h in hits] == [3, 0]
    assert [h.doors for h in hits] == [("question", "pseudo_doc"), ("pseudo_doc",)]
    assert hits[0].score == pytest.approx(1 / 61 + 0.5 / 61, rel=0.05)


@pytest.mark.parametrize("question", ["", "???", "what is it", "zzzz", '"+(pairs:', "NEAR/3 OR *"])
def test_odd_questions_find_nothing_and_break_nothing(folder: Path, question: str) -> None:
    assert load_index(folder).search({"question": question}) == [] or question in ("what is it", '"+(pairs:')


@pytest.mark.parametrize("victim", ["texts-00001.jsonl", "chunks.npy", "entries.npy", "lexical/meta.json", "manifest.json"])
def test_a_changed_file_is_refused(folder: Path, victim: str) -> None:
    path = folder / victim
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError) as caught:
        load_index(folder)
    assert caught.value.code == "ask.index_damaged"
    assert caught.value.params["file"] == victim


def test_missing_and_foreign_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ask\.index_missing"):
        load_index(tmp_path / "nowhere")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "tokeniser": "other-1"}))
    with pytest.raises(UserError, match=r"ask\.index_other_format"):
        load_index(folder)


def test_a_published_version_is_never_replaced(folder: Path, tmp_path: Path) -> None:
    publish(folder, tmp_path / "indexes" / "v1")
    build_index(CHUNKS[:1], folder)
    with pytest.raises(FileExistsError):
        publish(folder, tmp_path / "indexes" / "v1")
    assert len(load_index(tmp_path / "indexes" / "v1")) == 4


def start(home: Home, job_id: int, **config: object) -> Run:
    directory = home.run_dir(job_id)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    return Run(directory, 0, home)


def versions() -> list[tuple[int, bool, str]]:
    with read_session() as session:
        return [(r.version, r.is_active, r.path) for r in session.scalars(select(t.SearchIndex).order_by(t.SearchIndex.version))]


def test_the_job_builds_activates_and_keeps_three(home: Home, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("Rest and drink water.", encoding="utf-8")
    (docs / "bad.txt").write_bytes(b"\x00\xff\x00")
    for number in (1, 2, 3, 4):
        run_index(start(home, number, name="mine", folder=str(docs)))
    assert versions() == [(1, False, ""), *((n, n == 4, f"indexes/mine/v00000{n}") for n in (2, 3, 4))]
    assert sorted(p.name for p in (home.indexes / "mine").iterdir()) == ["v000002", "v000003", "v000004"]
    result = json.loads((home.run_dir(4) / "result.json").read_text())
    assert result["unreadable"][0]["file"] == "bad.txt"
    assert (result["version"], result["num_documents"], result["removed_versions"]) == (4, 1, [1])


def test_a_retried_job_builds_nothing_twice(home: Home, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("Rest and drink water.", encoding="utf-8")
    run = start(home, 1, name="mine", folder=str(docs))
    run_index(run)
    made = (home.indexes / "mine" / "v000001" / "manifest.json").stat().st_mtime_ns
    run_index(run)
    assert versions() == [(1, True, "indexes/mine/v000001")]
    assert (home.indexes / "mine" / "v000001" / "manifest.json").stat().st_mtime_ns == made
    (home.indexes / "mine" / "v000001" / "documents.jsonl").write_text("broken")
    run_index(run)
    assert len(load_index(home.indexes / "mine" / "v000001")) == 1, "a version broken on the way is built again"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"folder": "nowhere"}, "ask.no_folder"),
        ({"folder": "empty"}, "ask.empty_folder"),
        ({"folder": "unreadable"}, "ask.nothing_readable"),
        ({"name": "../up"}, "ask.bad_index_name"),
        ({"chunk_tokens": 64, "chunk_overlap": 64}, "ask.bad_chunking"),
    ],
)
def test_a_job_that_fails_leaves_the_active_version_alone(home: Home, config: dict[str, object], code: str) -> None:
    (home.root / "empty").mkdir()
    (home.root / "unreadable").mkdir()
    (home.root / "unreadable" / "x.txt").write_bytes(b"\x00\xff")
    run_index(start(home, 1))
    with pytest.raises(UserError) as caught:
        run_index(start(home, 2, **config))
    assert caught.value.code == code
    assert [(v, active) for v, active, _ in versions()] == [(1, True)]


def test_the_demo_guidelines_index_as_a_subprocess(home: Home) -> None:
    run = start(home, 1)
    subprocess.run([sys.executable, "-m", "training.index", "--run-dir", str(run.dir)], cwd=ROOT, check=True, timeout=120)
    result = json.loads((run.dir / "result.json").read_text())
    assert result["num_documents"] >= 60
    assert result["unreadable"] == []
    assert load_index(home.resolve(result["path"])).search({"question": "青光眼的危险信号"})[0].chunk.title.startswith("急性青光眼")


def test_a_queued_job_keeps_its_version_over_attempts(home: Home) -> None:
    with write_session() as session:
        job = t.Job(kind="index", config={}, queue="cpu", status="running", slot="cpu:0")
        session.add(job)
        session.flush()
        job_id = job.id
    directory = start(home, job_id).dir
    run_index(Run(directory, job_id, home))
    run_index(start(home, job_id + 1))  # another one in between
    (directory / "version.txt").unlink()
    run_index(Run(directory, job_id, home))
    assert [(v, active) for v, active, _ in versions()] == [(1, True), (2, False)], "its own version, found by the job's number"
