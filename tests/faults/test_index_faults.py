"""kill -9 in the middle of an index job, at every step that changes something: the old version serves on, a restart finishes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from core.home import Home
from core.retrieval.index import Index, load_index
from core.settings import ROOT
from db import tables as t
from db.engine import read_session, write_session
from training.index import run_index
from training.run import Run

#: the job, with a pause (a file that appears) just before the named function does its work for the n-th time
HELD = """
import sys, time
from pathlib import Path
module, name, times, flag = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
owner = __import__(module, fromlist=["x"])
*path, name = name.split(".")
for part in path:
    owner = getattr(owner, part)
real, calls = getattr(owner, name), [0]
def held(*args, **kwargs):
    calls[0] += 1
    if calls[0] == times:
        flag.write_text("here")
        time.sleep(60)
    return real(*args, **kwargs)
setattr(owner, name, held)
import training.index
from training.run import main
sys.argv = ["training.index", "--run-dir", sys.argv[5]]
main(training.index.run_index)
"""
#: step -> (module, function, which call): killed right there
STEPS = {
    "reading": ("training.index_stage", "Stage._put", 3),
    "segments": ("core.retrieval.lexical", "LexicalWriter.finish", 1),
    "sealing": ("core.retrieval.index_build", "seal", 1),
    "renaming": ("core.retrieval.index_versions", "publish", 1),
    "after the rename": ("core.retrieval.index_versions", "activate", 1),
    "switching": ("core.retrieval.index_versions", "audit.record", 1),
    "tidying": ("core.retrieval.index_versions", "remove_old", 1),
}


def run_dir(home: Home, job_id: int, **config: object) -> Path:
    directory = home.run_dir(job_id)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def job(home: Home, directory: Path, *, held: tuple[str, str, int] | None = None) -> None:
    """Run the job to its end, here; or in a process of its own that is killed with signal 9 where it is held."""
    if held is None:
        run_index(Run(directory, int(directory.name), home))
        return
    environment = {**os.environ, "CONSILIUM_HOME": str(home.root), "CONSILIUM_JOB_ID": str(int(directory.name))}
    flag = directory / "flag"
    flag.unlink(missing_ok=True)
    command = [sys.executable, "-c", HELD, held[0], held[1], str(held[2]), str(flag), str(directory)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    deadline = time.monotonic() + 90
    while not flag.exists():
        assert process.poll() is None, "it ended before it came to the step"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def active(home: Home) -> tuple[int, Index]:
    """The version that answers, opened with every checksum looked at."""
    with read_session() as session:
        row = session.scalars(select(t.SearchIndex).where(t.SearchIndex.is_active)).one()
        return row.version, load_index(home.resolve(row.path))


def first(index: Index, question: str) -> str:
    return index.chunk(index.lexical(question)[0].parent).file


@pytest.fixture
def docs(home: Home, tmp_path: Path) -> Path:
    """A folder with an index of it, version 1; then one document changed, one gone, one new."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in {"a": "Aspirin thins the blood.", "b": "Burns are cooled with water.", "c": "Colic passes by itself."}.items():
        (folder / f"{name}.txt").write_text(text)
    with write_session() as session:
        for _ in range(3):
            session.add(t.Job(kind="index", config={}, queue="cpu", status="succeeded"))
    job(home, run_dir(home, 1, name="mine", folder=str(folder)))
    assert active(home)[0] == 1
    (folder / "a.txt").write_text("Aspirin is not for children with chickenpox.")
    (folder / "c.txt").unlink()
    for name in ("d", "e", "f"):
        (folder / f"{name}.txt").write_text(f"Dizziness of kind {name} ends when lying down.")
    return folder


@pytest.mark.parametrize(
    ("step", "action"),
    [
        ("sealing", "build"),
        ("renaming", "update"),
        ("segments", "update"),
        ("after the rename", "build"),
        ("switching", "update"),
        ("reading", "update"),
    ],
)
@pytest.mark.slow
def test_killed_at_a_step_the_old_version_answers_and_a_restart_finishes(home: Home, docs: Path, step: str, action: str) -> None:
    directory = run_dir(home, 2, name="mine", folder=str(docs), action=action)
    job(home, directory, held=STEPS[step])
    version, index = active(home)
    assert version == 1
    assert first(index, "colic") == "c.txt"
    assert index.lexical("chickenpox") == []
    job(home, directory)
    version, index = active(home)
    assert version == 2
    assert {chunk.file for _, chunk in index.store.living()} == {"a.txt", "b.txt", "d.txt", "e.txt", "f.txt"}
    assert first(index, "chickenpox") == "a.txt"
    assert index.lexical("colic") == []
    assert first(load_index(home.indexes / "mine" / "v000001"), "colic") == "c.txt", "the way back stays open"
    assert not list((home.indexes / "mine").glob(".building-*"))
    assert not list(directory.glob("stage-*"))


@pytest.mark.slow
def test_killed_after_the_switch_the_new_version_answers_once(home: Home, docs: Path) -> None:
    directory = run_dir(home, 2, name="mine", folder=str(docs), action="update")
    job(home, directory, held=STEPS["tidying"])
    assert active(home)[0] == 2
    job(home, directory)
    assert active(home)[0] == 2
    with read_session() as session:
        switches = [e.detail["version"] for e in session.scalars(select(t.AuditEntry).where(t.AuditEntry.action == "index_activate"))]
        assert switches == [1, 2]
        assert session.scalars(select(t.SearchIndex.version).order_by(t.SearchIndex.version)).all() == [1, 2]


@pytest.mark.slow
def test_killed_twice_and_what_was_read_is_not_read_again(home: Home, docs: Path) -> None:
    directory = run_dir(home, 2, name="mine", folder=str(docs))
    job(home, directory, held=STEPS["reading"])
    staged = [json.loads(line)["file"] for line in (directory / "stage-0" / "documents.jsonl").read_text().splitlines()]
    assert staged == ["a.txt", "b.txt"]
    with (directory / "stage-0" / "chunks.jsonl").open("a") as file:
        file.write('{"file": "half')  # what a full disk or a crash leaves behind
    job(home, directory, held=STEPS["segments"])
    assert active(home)[0] == 1
    job(home, directory)
    version, index = active(home)
    assert (version, len(index)) == (2, 5)
