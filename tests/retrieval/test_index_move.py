"""The move of an index as a job: nothing is switched before it is proven, it goes on after a kill, and there is a way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from core import searching
from core.errors import UserError
from core.home import Home, current_home, open_home
from core.retrieval import engine_moves as moves
from core.retrieval import index_versions as versions
from core.retrieval.engines import choose
from core.retrieval.index import build_index, load_index, update_index
from core.settings import load_settings
from db import tables as t
from db.engine import read_session
from tests.retrieval.opensearch_double import Double
from tests.retrieval.test_engines import Letters, made
from training.index_move import run_move
from training.run import Run


@pytest.fixture
def double(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    one = Double()
    monkeypatch.setenv("CONSILIUM_OPENSEARCH_URL", one.url)
    settings = load_settings({"CONSILIUM_HOME": str(home.root), "CONSILIUM_OPENSEARCH_URL": one.url})
    open_home(settings)
    yield one
    one.close()
    choose._client.cache_clear()


def build(name: str = "mine") -> None:
    chooser = np.random.default_rng(1)
    version = versions.claim(name, None, current_home().indexes.parent / "note.txt")
    scratch = current_home().indexes / name / ".building"
    build_index([made(n, chooser) for n in range(60)], scratch, {"name": name, "lineage": 1}, encoder=Letters())
    versions.install(name, version, scratch)
    versions.activate(name, version, by=None)


def move(to: str, number: int) -> Run:
    home = current_home()
    run_dir = home.root / "runs" / f"{number:06d}"
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text(json.dumps({"name": "mine", "to": to, "num_questions": 20}))
    run = Run(run_dir, 0, home)
    run_move(run)
    return run


def active() -> tuple[int, str]:
    shown = versions.active_version("mine")
    assert shown
    return shown.version, (shown.manifest.get("engine") or {}).get("kind", "own")


def test_there_and_back_with_an_update_between(double: Double) -> None:
    build()
    own = searching.open_searcher("mine").retriever.search("chest pain eye")
    run = move("opensearch", 1)
    told = json.loads((run.dir / "result.json").read_text())
    assert (told["from"], told["to"], told["rows"], told["questions"], told["equal"]) == ("own", "opensearch", 60, 20, 20)
    assert told["scale"] == pytest.approx(2.2, rel=1e-4)
    assert active() == (2, "opensearch")
    asked = len(double.seen)
    there = searching.open_searcher("mine").retriever.search("chest pain eye")
    assert len(double.seen) > asked
    assert [hit.number for hit in there.hits] == [hit.number for hit in own.hits]
    assert there.hits[0].stages["lexical:question"][1] == pytest.approx(own.hits[0].stages["lexical:question"][1], rel=1e-4)
    with pytest.raises(UserError, match=r"engines\.already_there"):
        move("opensearch", 2)

    # an update of a version that lies elsewhere goes there too
    base = load_index(versions.folder_of("mine", 2))
    scratch = current_home().indexes / "mine" / ".building"
    update_index(base, scratch, remove=["3.md"], chunks=[made(200, np.random.default_rng(5))], encoder=Letters())
    (current_home().root / "note.txt").unlink()
    version = versions.claim("mine", None, current_home().root / "note.txt")
    versions.install("mine", version, scratch, based_on=2)
    versions.activate("mine", version, by=None)
    assert active() == (3, "opensearch")
    assert 60 in {f.parent for f in searching.open_searcher("mine").index.asking(["part 200"])[0].lexical("part 200", 5)}
    [collection] = double.indexes
    assert len(double.indexes[collection]["docs"]) == 61  # what was dropped stays for the way back

    versions.activate("mine", 2, by=None, reason="back")  # the pointer, and nothing else
    assert active() == (2, "opensearch")
    move("own", 3)
    assert active() == (4, "own")
    with read_session() as session:
        actions = list(session.scalars(select(t.AuditEntry.action).order_by(t.AuditEntry.id)))
        moved = session.scalars(select(t.AuditEntry).where(t.AuditEntry.action == "index_move")).all()
    assert actions.count("index_move") == 2
    assert moved[0].detail["equal"] == 20
    assert moved[1].detail["to"] == "own"


def test_what_no_version_needs_is_forgotten_there(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "KEPT_VERSIONS", 1)
    build()
    move("opensearch", 1)
    assert len(double.indexes) == 1
    move("own", 2)
    assert double.indexes == {}


def test_nothing_is_switched_when_answers_differ_and_a_killed_move_goes_on(double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    build()

    def killed(path: Path, place: object, done: int, held: object = ()) -> None:
        if done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        real = moves.note
        patch.setattr(moves, "note", lambda *a, **k: (real(*a, **k), killed(*a, **k)))
        with pytest.raises(KeyboardInterrupt):
            move("opensearch", 1)
    assert active() == (1, "own")
    put = sum("_bulk" in path for _, path, _ in double.seen)
    with monkeypatch.context() as patch:
        patch.setattr(moves, "same_ten", lambda own, found, tolerance: False)
        with pytest.raises(UserError, match=r"engines\.answers_differ"):
            move("opensearch", 2)
    assert sum("_bulk" in path for _, path, _ in double.seen) == put  # everything was there already
    assert active() == (1, "own")
    double.status = 503
    with pytest.raises(UserError, match=r"engines\.down"):
        move("opensearch", 3)
    double.status = 200
    move("opensearch", 4)
    assert active() == (2, "opensearch")
    assert len(double.indexes) == 1


def test_an_engine_that_is_down_does_not_stop_an_update(double: Double) -> None:
    build()
    move("opensearch", 1)
    scratch = current_home().indexes / "mine" / ".building"
    update_index(load_index(versions.folder_of("mine", 2)), scratch, chunks=[made(200, np.random.default_rng(5))], encoder=Letters())
    double.status = 500
    (current_home().root / "note.txt").unlink()
    version = versions.claim("mine", None, current_home().root / "note.txt")
    versions.install("mine", version, scratch, based_on=2)
    versions.activate("mine", version, by=None)
    assert active() == (3, "own")
    assert "opensearch" in versions.listing("mine")[0].note
