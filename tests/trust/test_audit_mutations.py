"""Whatever is changed in the chain is found: every byte of every column, rows taken out, put in, moved, and an end cut off."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from core import audit, audit_anchor
from core.audit import Raw
from core.errors import UserError
from core.home import Home
from db import tables as t
from db.base import utc_now
from db.engine import database, read_session, write_session
from tests import factories
from tests.databases import ON_POSTGRES, sqlite_only, tampering

NUM_ENTRIES = 240
COLUMNS = (
    "id", "action", "object_type", "object_id", "actor_id", "detail", "reason", "created_at",
    "before_hash", "after_hash", "format", "previous_hash", "entry_hash",
)  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the chain of the first test is kept for the others."""
    return tmp_path_factory.mktemp("chain") / "chain.db"


@pytest.fixture
def chain(home: Home, kept: Path) -> Home:
    """A chain as years make it: entries of the first format, then of the second, with people, rows, Chinese and empty fields."""
    if ON_POSTGRES:
        fill()
        return home
    if not kept.is_file():
        fill()
        with closing(sqlite3.connect(home.root / "consilium.db")) as source, closing(sqlite3.connect(kept)) as target:
            source.backup(target)
        return home
    database().dispose()
    shutil.copy(kept, home.root / "consilium.db")
    for beside in ("-wal", "-shm"):
        (home.root / f"consilium.db{beside}").unlink(missing_ok=True)
    return home


def fill() -> None:
    with write_session() as session:
        doctor, admin = factories.user(session), factories.user(session, "admin")
        previous = audit.GENESIS
        for number in range(1, 41):
            old = t.AuditEntry(
                action="adjudicate_signed", object_type="adjudication", object_id=str(number), previous_hash=previous, entry_hash="",
                actor_id=doctor.id, detail={"verdict": "minor", "gap": 0.25, "note": "胸痛" * (number % 3)}, format=1,
            )  # fmt: skip
            previous = old.entry_hash = audit.entry_hash(old)
            session.add(old)
            session.flush()
        for number in range(41, NUM_ENTRIES + 1):
            if number % 4 == 0:
                doctor.speciality = f"内科{number}"
                audit.record(session, "set_role", "user", doctor.id, actor_id=admin.id, detail={"to": "clinician"}, reason="值班调整")
            else:
                audit.record(session, "start_job", "job", number, actor_id=None if number % 3 else admin.id, detail={"n": [number, 1e-7]})


def rows_of() -> list[Raw]:
    with read_session() as session, audit._stored(session) as stored:
        return [tuple(f"{v:%Y-%m-%d %H:%M:%S.%f}" if isinstance(v, datetime) else v for v in raw) for raw in stored]


def broken(rows: list[Raw], after: tuple[int, str] = (0, audit.GENESIS)) -> str:
    """Why the walk ends, or "" when everything holds."""
    found = [one for _, one in audit.check(rows, after=after)]
    return found[-1].why if found and found[-1] else ""


def examined(home: Home) -> audit.Broken | None:
    with read_session() as session:
        return audit.examine(session, points=audit_anchor.points(home)).broken


def flips(value: Any) -> list[Any]:
    """`value` with one bit changed, for every byte of a text and every bit of a number; for NULL, what could stand there instead."""
    if value is None:
        return [0, 1, "", "0" * 64]
    if isinstance(value, int):
        return [value ^ (1 << bit) for bit in range(40)] + [None]
    stored = value.encode()
    changed = [bytes([*stored[:n], byte ^ (1 << (n % 8)), *stored[n + 1 :]]) for n, byte in enumerate(stored)]
    blanks = [stored.replace(b" ", b"  ", 1)] if b" " in stored else []
    return [one.decode("utf-8", "surrogateescape") for one in changed + blanks] + [None]


def test_the_fixture_has_something_in_every_column_and_holds(chain: Home) -> None:
    rows = rows_of()
    assert len(rows) == NUM_ENTRIES
    assert broken(rows) == ""
    for number, name in enumerate(COLUMNS):
        assert any(row[number] not in (None, "", "{}") for row in rows), f"{name} is empty everywhere: nothing would be proven"


def test_every_flipped_byte_of_every_column_is_found(chain: Home) -> None:
    rows, tried = rows_of(), 0
    for index, row in enumerate(rows):
        after = (rows[index - 1][0], rows[index - 1][12]) if index else (0, audit.GENESIS)
        for column in range(len(COLUMNS)):
            for value in flips(row[column]):
                tried += 1
                changed = (*row[:column], value, *row[column + 1 :])
                assert broken([changed], after), f"entry {row[0]}, {COLUMNS[column]}: {row[column]!r} -> {value!r} was not seen"
    assert tried > NUM_ENTRIES * 300


def test_rows_taken_out_put_in_or_moved_are_found(chain: Home) -> None:
    rows = rows_of()
    for index in range(NUM_ENTRIES - 1):  # the last one is a cut-off end: below
        above = (rows[index - 1][0], rows[index - 1][12]) if index else (0, audit.GENESIS)  # what comes before is not touched
        this, rest = rows[index], rows[index + 1 : index + 5]
        assert broken(rest, above) == "broken_link"
        assert broken([(row[0] - 1, *row[1:]) for row in rest], above), f"row {index + 1} taken out and the others renumbered"
        assert broken([this, this, *rest], above) == "broken_link"
        assert broken([this, forged(this), *rest], above), "a forged entry with a hash that fits"
        assert broken([this, forged(this), *((row[0] + 1, *row[1:]) for row in rest)], above)
        assert broken([rest[0], this, *rest[1:]], above)
    rng = random.Random(7)
    for _ in range(100):
        first, second = sorted(rng.sample(range(NUM_ENTRIES), 2))
        moved = list(rows)
        moved[first], moved[second] = (rows[first][0], *rows[second][1:]), (rows[second][0], *rows[first][1:])
        assert broken(moved)


def forged(before: Raw) -> Raw:
    """An entry that follows `before` correctly, made by somebody who knows how hashes are made."""
    payload = [2, before[0] + 1, before[12], "promote", "model_version", "1", None, "{}", "", "2026-11-21T00:00:00+00:00", None, None]
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    at = "2026-11-21 00:00:00.000000"
    own = hashlib.sha256(text.encode()).hexdigest()
    return (before[0] + 1, "promote", "model_version", "1", None, "{}", "", at, None, None, 2, before[12], own)


def test_the_forger_of_these_tests_knows_the_format(chain: Home) -> None:
    rows = rows_of()
    assert broken([*rows, forged(rows[-1])]) == ""


@sqlite_only  # PostgreSQL itself refuses what is no UTF-8
@pytest.mark.parametrize("column", COLUMNS[1:])
def test_changes_in_the_database_itself_are_found(chain: Home, column: str) -> None:
    with sqlite3.connect(chain.root / "consilium.db") as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        value = connection.execute(f"SELECT CAST({column} AS BLOB) FROM audit_entries WHERE id = 120").fetchone()[0]
        changed = bytes([*value[:-1], value[-1] ^ 0x80])  # no UTF-8 any more
        connection.execute(f"UPDATE audit_entries SET {column} = CAST(? AS TEXT) WHERE id = 120", (changed,))
    connection.close()
    found = examined(chain)
    assert found is not None
    assert found.entry_id == 120


def change(chain: Home, statement: str) -> None:
    with tampering(chain.settings.url) as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize("num_left", [0, 1, 100, NUM_ENTRIES - 1])
def test_a_cut_off_end_is_found_by_the_anchor(chain: Home, num_left: int) -> None:
    audit_anchor.write(chain)
    change(chain, f"DELETE FROM audit_entries WHERE id > {num_left}")
    with read_session() as session:
        assert audit.verify(session) is None, "the chain alone cannot know"
    found = examined(chain)
    assert found is not None
    assert (found.entry_id, found.why) == (NUM_ENTRIES, "cut_off")


def test_a_chain_written_anew_is_found_by_the_anchor(chain: Home) -> None:
    audit_anchor.write(chain)
    change(chain, "DELETE FROM audit_entries WHERE id > 200")
    with write_session() as session:
        for number in range(NUM_ENTRIES - 200 + 5):
            audit.record(session, "start_job", "job", number, actor_id=None)
    with read_session() as session:
        assert audit.verify(session) is None
    found = examined(chain)
    assert found is not None
    assert (found.entry_id, found.why) == (NUM_ENTRIES, "rewritten")


def test_anchors_are_added_never_replaced_and_must_agree(chain: Home, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = audit_anchor.write(chain)
    audit_anchor.write(chain)  # nothing new
    with write_session() as session:
        audit.record(session, "start_job", "job", 1, actor_id=None)
    second = audit_anchor.write(chain)
    ((_, found),) = audit_anchor.listing(chain)
    assert found == [first, second]
    assert examined(chain) is None
    (path,) = (chain.root / "anchors").glob("*.json")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / path.name).write_text(path.read_text().replace(found[0].hash, "f" * 64))
    twice = Home(chain.root, chain.settings.model_copy(update={"anchor_copy": str(elsewhere)}))
    with pytest.raises(UserError, match=r"trust\.anchors_differ"):
        audit_anchor.points(twice)
    path.write_text("{")
    with pytest.raises(UserError, match=r"trust\.anchor_unreadable"):
        audit_anchor.points(chain)


def test_the_errand_anchors_at_start_and_once_a_day(chain: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Home] = []
    monkeypatch.setattr(audit_anchor, "write", written.append)
    errand = audit_anchor.Daily()
    for _ in range(5):
        errand()
    assert len(written) == 1
    tomorrow = utc_now().replace(year=utc_now().year + 1)
    monkeypatch.setattr(audit_anchor, "utc_now", lambda: tomorrow)
    errand()
    assert len(written) == 2


def test_entries_say_what_the_row_was_before_and_after(home: Home) -> None:
    with write_session() as session:
        user = factories.user(session, "clinician")
        added = audit.record(session, "add_user", "user", user.id, actor_id=None)
    with write_session() as session:
        row = session.get_one(t.User, user.id)
        row.role = "engineer"
        changed = audit.record(session, "set_role", "user", user.id, actor_id=None)
    with write_session() as session:
        row = session.get_one(t.User, user.id)
        row.role = "clinician"
        session.flush()  # the listener sees the change before it is written
        back = audit.record(session, "set_role", "user", user.id, actor_id=None)
    assert added.before_hash is None
    assert added.after_hash is not None
    assert (changed.before_hash, back.before_hash, back.after_hash) == (added.after_hash, changed.after_hash, added.after_hash)
    assert changed.after_hash not in (None, added.after_hash)
