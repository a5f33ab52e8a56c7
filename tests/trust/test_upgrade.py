"""The database of every earlier revision, with rows in it, comes up to the newest with its rows and a chain that verifies."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory

from core import audit
from db import tables as t
from db.base import utc_now
from db.engine import database, open_database, read_session, write_session
from db.migrate import alembic_config
from tests.databases import sqlite_only

#: earlier releases kept their records in SQLite; PostgreSQL begins with revision 0020
pytestmark = sqlite_only

REVISIONS = [one.revision for one in reversed(list(ScriptDirectory.from_config(alembic_config("sqlite://")).walk_revisions()))]
NUM_ENTRIES = 5


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A database as each revision left it: rows of the first release, carried from one to the next as an installation would."""
    folder = tmp_path_factory.mktemp("stages")
    path, found = folder / "consilium.db", {}
    for number, revision in enumerate(REVISIONS):
        command.upgrade(alembic_config(f"sqlite:///{path}"), revision)
        if number == 0:
            fill(path)
        found[revision] = folder / f"{revision}.db"
        shutil.copy(path, found[revision])
    return found


def fill(path: Path) -> None:
    at = f"{utc_now():%Y-%m-%d %H:%M:%S}.000000"
    with closing(sqlite3.connect(path)) as connection, connection:
        run = connection.execute
        run("INSERT INTO users (id, username, display_name, role, is_active, must_change_password, created_at)"
            " VALUES (1, 'li', '李娜', 'clinician', 1, 0, ?)", (at,))  # fmt: skip
        run("INSERT INTO datasets (id, name, kind, source, licence, num_samples, content_hash, card_path, report, created_at)"
            " VALUES (1, 'ward', 'prompts', '', '', 1, 'h', '', '{}', ?)", (at,))  # fmt: skip
        run("INSERT INTO samples (id, dataset_id, text, messages, language, split, content_hash, category, risk, source, meta, created_at)"
            " VALUES (1, 1, '胸痛', '[]', 'zh', 'train', 's', 'general', 'high', '', '{}', ?)", (at,))  # fmt: skip
        run("INSERT INTO completions (id, sample_id, text, thinking, answer, content_hash, source, finish_reason, decoding, created_at)"
            " VALUES (1, 1, 'x', '', 'x', 'c', 'sampled', 'stop', '{}', ?)", (at,))  # fmt: skip
        run("INSERT INTO conflicts (id, completion_id, sample_id, kind, advice, status, priority, version, created_at)"
            " VALUES (1, 1, 1, 'score_gap', '', 'adjudicated', 0, 0, ?)", (at,))  # fmt: skip
        run("INSERT INTO adjudications (id, conflict_id, user_id, stage, client_id, verdict, criteria, marks, note, revision_reason,"
            " because, created_at) VALUES (1, 1, 1, 'signed', 'k', 'unsafe', '{}', '{}', '', '', '[]', ?)", (at,))  # fmt: skip
        previous = audit.GENESIS
        for number in range(1, NUM_ENTRIES + 1):
            entry = t.AuditEntry(
                action="adjudicate_signed", object_type="adjudication", object_id=str(number), previous_hash=previous, entry_hash="",
                actor_id=1, detail={"verdict": "unsafe", "说明": "急"}, created_at=utc_now().replace(microsecond=number), format=1,
            )  # fmt: skip
            previous = audit.entry_hash(entry)
            run("INSERT INTO audit_entries (id, action, object_type, object_id, previous_hash, entry_hash, actor_id, detail, reason,"
                " created_at) VALUES (?, ?, ?, ?, ?, ?, 1, ?, '', ?)",
                (number, entry.action, entry.object_type, entry.object_id, entry.previous_hash, previous, json.dumps(entry.detail),
                 f"{entry.created_at:%Y-%m-%d %H:%M:%S.%f}"))  # fmt: skip


@pytest.mark.parametrize("revision", REVISIONS)
def test_rows_and_chain_of_every_revision_come_up(revision: str, stages: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "consilium.db"
    shutil.copy(stages[revision], path)
    url = f"sqlite:///{path}"
    command.upgrade(alembic_config(url), "head")
    open_database(url)
    try:
        with write_session() as session:
            row = session.get_one(t.Adjudication, 1)
            assert (row.verdict, row.role, row.evidence) == ("unsafe", "reader", [])
            assert session.get_one(t.User, 1).display_name == "李娜"
            assert session.get_one(t.Conflict, 1).overlap == 1
            audit.record(session, "start_job", "job", 1, actor_id=1, detail={"说明": "新"})
        with read_session() as session:
            found = audit.examine(session)
            assert (found.num_entries, found.broken) == (NUM_ENTRIES + 1, None)
            formats = [one.format for one in session.query(t.AuditEntry).order_by(t.AuditEntry.id)]
        assert formats == [1] * NUM_ENTRIES + [2]
    finally:
        database().dispose()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
