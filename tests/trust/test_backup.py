"""A backup taken while decisions are signed holds every one acknowledged before it began, restores whole, and is refused when touched."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from core import audit, audit_anchor, backup
from core.errors import UserError
from core.home import Home, open_home
from core.settings import load_settings
from db import tables as t
from db.engine import read_session, write_session
from tests import factories


@pytest.fixture
def lived_in(home: Home) -> Home:
    """A home with weights, a run, an export and a secret key."""
    for name, text in {
        "models/rl/v1/adapter.safetensors": "weights", "runs/000001/log.txt": "a log", "exports/000001-kto/kto.jsonl": "{}\n",
        "pseudonyms.key": "k", "locks/worker.lock": "", "models/rl/.scratch/x.bin": "half",
    }.items():  # fmt: skip
        path = home.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return home


def decide(case: int, user_id: int) -> int:
    """One decision with its audit entry, as the desk stores it; returns the row's id once it is acknowledged."""
    with write_session() as session:
        row = t.Adjudication(conflict_id=case, user_id=user_id, stage="skipped", client_id=os.urandom(8).hex())
        session.add(row)
        session.flush()
        audit.record(session, "adjudicate_skipped", "adjudication", row.id, actor_id=user_id)
        return row.id


@pytest.fixture
def busy(lived_in: Home) -> Iterator[list[int]]:
    """Three writers that do not stop until the test has ended; the list grows by every acknowledged decision."""
    with write_session() as session:
        case, user_id = factories.conflict(session).id, factories.user(session).id
    acknowledged: list[int] = []
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            acknowledged.append(decide(case, user_id))
            over.wait(0.002)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 30:
        over.wait(0.01)
    yield acknowledged
    over.set()
    for thread in threads:
        thread.join()


def test_a_backup_under_load_restores_to_a_verifying_state(lived_in: Home, busy: list[int], tmp_path: Path) -> None:
    audit_anchor.write(lived_in)
    before = list(busy)
    made = backup.backup(lived_in, tmp_path / "kept")
    after = len(busy)
    restored = backup.restore(tmp_path / "kept", tmp_path / "new", lived_in.settings)
    assert restored.entries == made.entries >= len(before)
    files = {p.relative_to(tmp_path / "new").as_posix() for p in (tmp_path / "new").rglob("*") if p.is_file()}
    assert files >= {
        "consilium.db",
        "models/rl/v1/adapter.safetensors",
        "runs/000001/log.txt",
        "exports/000001-kto/kto.jsonl",
        "pseudonyms.key",
    }
    assert any(name.startswith("anchors/") for name in files)
    assert not any(name.startswith("locks/") or "/." in name or name.endswith(("-wal", "-shm")) for name in files)
    assert (tmp_path / "kept/models/rl/v1/adapter.safetensors").stat().st_nlink == 2
    assert (tmp_path / "new/models/rl/v1/adapter.safetensors").stat().st_nlink == 1
    while len(busy) <= after:  # the writers never stood still
        threading.Event().wait(0.01)
    here = rows_up_to(max(before))
    other = open_home(load_settings({"CONSILIUM_HOME": str(tmp_path / "new")}), with_migration=True)
    try:
        assert set(before) <= set(rows_up_to(10**9)), "an acknowledged decision is missing"
        assert rows_up_to(max(before)) == here
        with read_session() as session:
            assert audit.examine(session, points=audit_anchor.points(other)).broken is None
            entries = select(func.count()).where(t.AuditEntry.object_type == "adjudication")
            assert session.scalar(select(func.count(t.Adjudication.id))) == session.scalar(entries), "each with its entry"
    finally:
        open_home(lived_in.settings)


def rows_up_to(last: int) -> dict[int, str]:
    with read_session() as session:
        query = select(t.Adjudication.id, t.Adjudication.client_id).where(t.Adjudication.id <= last)
        return {row[0]: row[1] for row in session.execute(query)}


def test_a_touched_backup_and_a_folder_in_use_are_refused(lived_in: Home, tmp_path: Path) -> None:
    with write_session() as session:
        audit.record(session, "start_job", "job", 1, actor_id=None)
    kept = tmp_path / "kept"
    backup.backup(lived_in, kept)
    with pytest.raises(UserError, match=r"trust\.backup_target_taken"):
        backup.backup(lived_in, kept)
    with pytest.raises(UserError, match=r"trust\.backup_inside_home"):
        backup.backup(lived_in, lived_in.root / "copy")
    with pytest.raises(UserError, match=r"trust\.restore_not_empty"):
        backup.restore(kept, lived_in.root, lived_in.settings)
    for name in ("runs/000001/log.txt", "consilium.db"):
        changed = tmp_path / f"changed-{Path(name).name}"
        shutil.copytree(kept, changed)
        data = bytearray((changed / name).read_bytes())
        data[len(data) // 2] ^= 1
        (changed / name).write_bytes(bytes(data))
        with pytest.raises(UserError, match=r"trust\.backup_changed"):
            backup.restore(changed, tmp_path / "new", lived_in.settings)
        assert not (tmp_path / "new").exists()
    (kept / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"trust\.no_backup"):
        backup.restore(kept, tmp_path / "new", lived_in.settings)


def test_a_backup_of_a_broken_chain_says_so_and_is_not_restored(lived_in: Home, tmp_path: Path) -> None:
    with write_session() as session:
        audit.record(session, "start_job", "job", 1, actor_id=None)
        session.get_one(t.AuditEntry, 1).reason = "changed"
    backup.backup(lived_in, tmp_path / "kept")
    with pytest.raises(UserError, match=r"trust\.backup_chain_broken"):
        backup.restore(tmp_path / "kept", tmp_path / "new", lived_in.settings)
