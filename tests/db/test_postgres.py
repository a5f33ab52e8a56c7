"""What only PostgreSQL can get wrong: writers side by side, the record's bytes after a move, texts that it refuses, the same search."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.orm import Session

from core import audit, database_move
from core.desk import search
from core.errors import Unavailable, UserError
from core.home import Home, open_home
from core.settings import load_settings
from db import tables as t
from db.engine import Database, database, read_session, write_session
from tests import factories
from tests.databases import Databases, Server, postgres_only, tampering


def together(*bodies: object, times: int = 1) -> list[BaseException]:
    """Run them in threads that start at once; returns what they raised."""
    gate, raised = threading.Barrier(len(bodies)), []

    def run(body: object) -> None:
        gate.wait()
        try:
            for _ in range(times):
                body()  # type: ignore[operator]
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return raised


@pytest.mark.parametrize("is_parallel", [False, True])
def test_writers_side_by_side_never_fork_the_chain(home: Home, is_parallel: bool) -> None:
    """Also without the writers' lock: the chain has one of its own."""

    def write() -> None:
        with write_session(parallel=is_parallel) as session:
            audit.record(session, "start_job", "job", 1, actor_id=None)

    assert together(*[write] * 6, times=8) == []
    with read_session() as session:
        found = audit.examine(session)
    assert (found.num_entries, found.last_id, found.broken) == (48, 48, None)


def test_look_decide_write_is_not_interrupted(home: Home) -> None:
    """The use cases were written for one writer at a time; so it is on both databases."""

    def write() -> None:
        with write_session() as session:
            last = session.scalar(select(t.Dataset.num_samples).where(t.Dataset.name == "counted")) or 0
            session.query(t.Dataset).filter_by(name="counted").update({"num_samples": last + 1})

    with write_session() as session:
        session.add(t.Dataset(name="counted", kind="prompts"))
    assert together(*[write] * 6, times=5) == []
    with read_session() as session:
        assert session.scalar(select(t.Dataset.num_samples)) == 30


def test_readers_see_one_state_and_cannot_write(home: Home) -> None:
    with write_session() as session:
        session.add(t.Dataset(name="first", kind="prompts"))
    with read_session() as session:
        assert len(session.scalars(select(t.Dataset)).all()) == 1
        with write_session() as other:
            other.add(t.Dataset(name="later", kind="prompts"))
        assert len(session.scalars(select(t.Dataset)).all()) == 1
    with pytest.raises((Unavailable, OperationalError, InternalError)), read_session() as session:
        session.execute(insert(t.Dataset).values(name="never", kind="prompts"))


@postgres_only
def test_what_postgres_cannot_store_is_a_sentence(home: Home) -> None:
    for name, code in (("a\0b", "text_with_nul"), ("x" * 201, "text_too_long")):
        with pytest.raises(UserError, match=code), write_session() as session:
            session.add(t.Dataset(name=name, kind="prompts"))


def test_numbers_that_json_does_not_have_come_back(home: Home) -> None:
    report = {"kl": float("inf"), "low": -float("inf"), "said": 'Infinity or "NaN"', "n": [1.5, None]}
    with write_session() as session:
        row = t.Dataset(name="odd", kind="prompts", report=report)
        session.add(row)
        audit.record(session, "import", "dataset", 1, actor_id=None, detail=report)
    with read_session() as session:
        assert session.scalar(select(t.Dataset.report)) == report
        assert audit.examine(session).broken is None


@postgres_only
def test_a_server_that_does_not_answer_is_a_sentence(home: Home) -> None:
    open_home(load_settings({"CONSILIUM_HOME": str(home.root), "CONSILIUM_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}))
    with pytest.raises(Unavailable, match="database_unreachable"), read_session() as session:
        session.execute(text("SELECT 1"))


@postgres_only
def test_a_changed_entry_is_found(home: Home) -> None:
    with write_session() as session:
        for number in range(5):
            audit.record(session, "start_job", "job", number, actor_id=None, detail={"n": number})
    with tampering(home.settings.url) as connection:
        connection.execute(text("UPDATE audit_entries SET detail = CAST('{\"n\":  2}' AS JSON) WHERE id = 3"))
    with read_session() as session:
        broken = audit.examine(session).broken
    assert broken is not None
    assert (broken.entry_id, broken.why) == (3, "altered")


def found_by(words: str) -> list[int]:
    with read_session() as session:
        condition = search.matching(session, words)
        assert condition is not None
        query = select(t.Conflict.id).join(t.Sample, t.Sample.id == t.Conflict.sample_id).where(condition)
        return list(session.scalars(query.order_by(t.Conflict.id)))


def test_search_means_the_same_on_both(home: Home) -> None:
    bodies = (
        "胸口疼痛，出冷汗两天",
        "疼，痛风病史；I take warfarin 2.5 mg",
        "WARFARIN's dose, 100% sure, it's O'Neil",
        "汗疱疹\\' & | ! : *",
    )
    with write_session() as session:
        cases = [factories.conflict(session, completion=factories.completion(session, f"{body}。")).id for body in bodies]
    search.refresh()
    wanted = {
        "疼痛": [0],
        "汗": [0, 3],
        "胸口疼": [0],
        "warf": [1, 2],
        "2.5": [1],
        "warfarin 痛风": [1],
        "O'Neil": [2],
        "' & |": [],
        "疱疹": [3],
    }
    assert {words: found_by(words) for words in wanted} == {words: [cases[n] for n in numbers] for words, numbers in wanted.items()}


@postgres_only
def test_the_record_moves_to_postgres_and_back(home: Home, databases: Databases, tmp_path: Path) -> None:
    assert isinstance(databases, Server)
    with write_session() as session:
        user, case = factories.user(session), factories.conflict(session)
        for number in range(30):
            audit.record(session, "start_job", "job", number, actor_id=user.id, detail={"说明": "急", "x": 1e-7, "case": case.id})
    back = database_move.move(home, f"sqlite:///{tmp_path / 'back.db'}")
    assert (back.num_entries, (tmp_path / "back.db").is_file()) == (30, True)
    (tmp_path / "old").mkdir()
    (tmp_path / "back.db").rename(tmp_path / "old" / "consilium.db")
    old = open_home(load_settings({"CONSILIUM_HOME": str(tmp_path / "old")}))
    (tmp_path / "new").mkdir()
    databases.provide(tmp_path / "new")
    url = load_settings({"CONSILIUM_HOME": str(tmp_path / "new")}).url
    there = database_move.move(old, url)
    assert (there.num_entries, there.num_rows) == (back.num_entries, back.num_rows)
    open_home(load_settings({"CONSILIUM_HOME": str(tmp_path / "old"), "CONSILIUM_DATABASE_URL": url}))
    with write_session() as session:  # the next numbers follow those that came along
        assert factories.user(session).id > user.id
        audit.record(session, "start_job", "job", 31, actor_id=None)
    with read_session() as session:
        assert audit.examine(session).broken is None
    with pytest.raises(UserError, match=r"postgres\.target_taken"):
        database_move.move(old, url)
    database().dispose()
    foreign = databases.blank(tmp_path)
    other = Database(foreign)
    with Session(other.writer) as session, session.begin():
        session.execute(text("CREATE TABLE somebody_elses (id integer)"))
    other.dispose()
    with pytest.raises(UserError, match=r"postgres\.target_taken"):
        database_move.move(old, foreign)
