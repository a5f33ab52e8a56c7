"""Damaged, moved and missing files: a sentence with the next step, or nothing worse than a line in the log."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from app import __main__ as main
from app.launcher import Child, Launcher
from core import health
from core.errors import UserError
from core.home import Home, open_home
from core.i18n import error_text
from db import tables as t
from db.engine import database, read_session, write_session
from tests import factories


def spoil(home: Home, how: str) -> None:
    """Fill the database with some rows, close it, and break its file."""
    with write_session() as session:
        for _ in range(40):
            factories.sample(session, "a question " * 300)
    database().dispose()
    for name in ("consilium.db-wal", "consilium.db-shm"):
        (home.root / name).unlink(missing_ok=True)
    path = home.root / "consilium.db"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if how == "cut" else b"this is no database " * 500)


@pytest.mark.parametrize("how", ["cut", "overwritten"])
def test_a_damaged_database_is_told_with_the_way_back(home: Home, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(home, how)
    open_home(home.settings)
    with pytest.raises(UserError) as told, read_session() as session:
        list(session.scalars(select(t.Sample)))
    assert told.value.code == "database_damaged"
    assert "restore" in error_text(told.value, "en")
    with pytest.raises(UserError) as told:
        main.migrate_home()
    assert told.value.code == "database_damaged"
    assert health.check()["database"] == "down" or how == "cut"


def test_a_moved_home_holds_all_it_held(home: Home) -> None:
    home.run_dir(7).mkdir()
    stored = home.relative(home.run_dir(7))
    with write_session() as session:
        factories.conflict(session)
    database().dispose()
    elsewhere = home.root.rename(home.root.parent / "elsewhere")
    moved = open_home(home.settings.model_copy(update={"home": elsewhere}))
    assert moved.resolve(stored) == elsewhere / "runs" / "000007"
    with read_session() as session:
        assert len(session.scalars(select(t.Conflict)).all()) == 1


@pytest.mark.parametrize("text", ["", '{"web": [1, 2', '{"web": 5}', "[]", '{"web": {"pid": 1}}', "\x00\xff"])
def test_a_broken_note_about_processes_is_no_note(home: Home, text: str) -> None:
    (home.root / "processes.json").write_bytes(text.encode("latin-1"))
    assert not any(process.is_running for process in health.processes())
    launcher = Launcher(home, 0, lambda _line: None)
    launcher._end_leftovers()


def launcher_of(home: Home, said: list[str]) -> tuple[Launcher, Child]:
    """A launcher with one child that ends at once."""
    launcher = Launcher(home, 0, said.append)
    child = Child("web", ["sleep", "0"], {"PATH": "/usr/bin:/bin"})
    launcher.children = [child]
    return launcher, child


def looked_after_until(launcher: Launcher, child: Child, num_starts: int) -> None:
    deadline = time.monotonic() + 20
    while child.num_starts < num_starts:
        assert time.monotonic() < deadline
        launcher._look_after(child)
        time.sleep(0.02)
    assert child.process is not None
    child.process.wait(10)


def test_without_a_place_for_logs_a_process_comes_back_all_the_same(home: Home) -> None:
    said: list[str] = []
    launcher, child = launcher_of(home, said)
    home.logs.rmdir()
    home.logs.write_text("not a folder")
    looked_after_until(launcher, child, 2)
    assert any("the log of web cannot be written" in line for line in said)
    open_home(home.settings)  # a process that is started again opens its home too


def test_on_a_disk_that_takes_nothing_the_launcher_lives_and_notes_later(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    launcher, child = launcher_of(home, said)
    real = Path.write_text

    def full(self: Path, *arguments: object, **values: object) -> int:
        if self.name == "processes.json.tmp":
            raise OSError(28, "No space left on device")
        return real(self, *arguments, **values)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    looked_after_until(launcher, child, 2)
    assert any("processes.json could not be written" in line for line in said)
    assert not launcher._is_noted
    monkeypatch.setattr(Path, "write_text", real)
    launcher._write_processes()
    assert launcher._is_noted
    assert "web" in json.loads((home.root / "processes.json").read_text())


def test_a_process_that_was_well_comes_back_at_once_and_one_that_falls_waits(home: Home) -> None:
    said: list[str] = []
    launcher, child = launcher_of(home, said)
    looked_after_until(launcher, child, 3)
    pauses = [line.split(" in ")[1].split(" s")[0] for line in said if "starting it again" in line]
    assert pauses[:2] == ["0.1", "1"]
