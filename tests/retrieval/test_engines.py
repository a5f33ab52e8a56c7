"""One contract over every search engine: the same passages with the same scores as the own index, also after an update, and what
happens when the engine is down, slow, or not to be told.

The own index stands in the list as itself. Milvus is milvus-lite (skipped where requirements-scale.txt is not installed), OpenSearch
is a double over HTTP; CONSILIUM_TEST_OPENSEARCH_URL and CONSILIUM_TEST_MILVUS_URL name real ones.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.home import Home
from core.retrieval import engine_moves as moves
from core.retrieval.chunk import Chunk
from core.retrieval.engines.base import Engine, EngineDown
from core.retrieval.engines.bm25 import LENGTHS, rounded
from core.retrieval.engines.opensearch import OpenSearchEngine
from core.retrieval.engines.remote import Place, remote_of
from core.retrieval.index import Index, build_index, load_index, update_index
from core.retrieval.search import Retriever
from core.settings import load_settings
from tests.retrieval.opensearch_double import Double

WORDS = [
    "chest",
    "pain",
    "cold",
    "sweat",
    "aspirin",
    "burn",
    "water",
    "glaucoma",
    "eye",
    "stroke",
    "fever",
    "cough",
    "rash",
    "vomit",
    "dizzy",
]
RUNS = ["胸痛", "发热", "头痛伴恶心", "视物模糊", "皮疹", "一侧肢体无力", "烧伤处理"]


class Letters:
    """A small encoder whose vectors can be told apart."""

    name, hash, dimension = "letters", "1" * 64, 26

    def encode(self, texts: list[str], *, is_query: bool) -> np.ndarray:
        rows = np.array([[t.lower().count(chr(97 + i)) + 0.01 * i for i in range(26)] for t in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def made(number: int, chooser: np.random.Generator) -> Chunk:
    text = " ".join(chooser.choice(WORDS, chooser.integers(3, 80))) + "，".join(chooser.choice(RUNS, chooser.integers(0, 9)))
    return Chunk(f"{number}.md", f"Part {number}", "", "", "", text, 0, len(text))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chooser = np.random.default_rng(3)
    questions = {n: [f"what about {WORDS[n % 15]} and {WORDS[n % 7]}?"] for n in range(0, 120, 3)}
    built = tmp_path_factory.mktemp("engines") / "index"
    build_index([made(n, chooser) for n in range(120)], built, questions=questions, encoder=Letters())
    return built


@pytest.fixture(params=["own", "milvus", "opensearch"])
def engine(request: pytest.FixtureRequest, home: Home, tmp_path: Path) -> Iterator[Engine | None]:
    if request.param == "own":
        yield None
    elif request.param == "milvus":
        uri = os.environ.get("CONSILIUM_TEST_MILVUS_URL")
        if importlib.util.find_spec("pymilvus") is None or not (uri or importlib.util.find_spec("milvus_lite")):
            pytest.skip("pymilvus and milvus-lite are not installed (requirements-scale.txt), so Milvus is NOT tested")
        from core.retrieval.engines.milvus import MilvusEngine

        yield MilvusEngine(uri or str(tmp_path / "lite.db"), timeout_s=10)
    elif url := os.environ.get("CONSILIUM_TEST_OPENSEARCH_URL"):
        yield OpenSearchEngine(url, os.environ.get("CONSILIUM_TEST_OPENSEARCH_KEY", ""), timeout_s=10)
    else:
        double = Double()
        yield OpenSearchEngine(double.url, timeout_s=10)
        double.close()


def moved(index: Index, engine: Engine | None, tmp_path: Path) -> Index:
    """The index as it is asked after a move; the proof that precedes a switch has been made."""
    if engine is None:
        return index
    place = moves.new_place(engine.name, index, 1)
    moves.put_all(index, engine, place, tmp_path / "notes.json", lambda done: None)
    moves.check_count(index, engine, place, 1)
    compared = moves.compare(index, engine, place, 40)
    assert compared.num == compared.num_equal == 40, compared.different
    assert compared.overlap == 1.0
    return index.through(remote_of(index, engine, moves.scaled(place, compared)))


def ask(index: Index, text: str) -> tuple[list[tuple[int, int, str, float]], list[tuple[int, int, str, float]]]:
    """Both legs of a question: chunk, entry, kind, score."""
    asked, notes = index.asking([text])
    [vector] = Letters().encode([text], is_query=True)
    legs = [asked.lexical(text, 20), asked.dense(vector, 20)]
    assert notes == []
    lexical, dense = ([(f.parent, f.entry, f.kind, f.score) for f in leg] for leg in legs)
    return lexical, dense


def same(found: list[tuple[int, int, str, float]], own: list[tuple[int, int, str, float]]) -> bool:
    """The same scores in the same order, and the same chunks but for ties."""
    by_rank = [(a[3], b[3]) for a, b in zip(found, own, strict=True)]
    firm = {row[0] for row in own if row[3] > own[-1][3] * 1.0001}
    return all(a == pytest.approx(b, rel=1e-4) for a, b in by_rank) and firm <= {row[0] for row in found}


QUESTIONS = ["chest pain", "glaucoma eye water", "胸痛 发热", "一侧肢体无力怎么办", "rash", "what about vomit and dizzy?", "痛"]


def test_every_engine_finds_what_the_own_index_finds_also_after_an_update(folder: Path, engine: Engine | None, tmp_path: Path) -> None:
    index = load_index(folder)
    there = moved(index, engine, tmp_path)
    for question in QUESTIONS:
        for found, own in zip(ask(there, question), ask(index, question), strict=True):
            assert own
            assert same(found, own), question
    assert ask(there, "???")[0] == []

    chooser = np.random.default_rng(9)
    gone = {f"{n}.md" for n in range(0, 40)}
    update_index(index, tmp_path / "next", remove=gone, chunks=[made(n, chooser) for n in range(200, 230)], encoder=Letters())
    newer = load_index(tmp_path / "next")
    if engine is None or there._remote is None:
        return
    place = there._remote.place
    for rows in moves.batches(newer, place, at_least=len(index.is_live)):
        engine.put(place.collection, place.spec, rows)
    engine.settle(place.collection)
    new_there = newer.through(remote_of(newer, engine, place))
    for question in QUESTIONS:  # a third of the index is new, the yardstick of lengths is that of the move: nearly the same passages
        lexical, dense = ask(new_there, question)
        own_lexical, own_dense = ask(newer, question)
        assert len({row[0] for row in lexical[:10]} & {row[0] for row in own_lexical[:10]}) >= 8
        assert lexical[0][3] == pytest.approx(own_lexical[0][3], rel=0.1)
        assert same(dense, own_dense)
        assert not {index.chunk(row[0]).file for row in lexical + dense if row[0] < 120} & gone
        # and the older version, in the same collection, answers as before: the road back
        assert same(ask(there, question)[1], ask(index, question)[1])

    dead = np.flatnonzero(index.is_live[: len(newer.is_live)] & ~newer.is_live[: len(index.is_live)]).tolist()
    engine.delete(place.collection, [*dead, 10**6])
    engine.settle(place.collection)
    assert engine.count(place.collection) == newer.num_entries
    engine.drop(place.collection)
    engine.drop(place.collection)
    assert not engine.exists(place.collection)
    with pytest.raises(EngineDown):
        engine.count(place.collection)


def test_a_killed_move_goes_on_and_a_second_one_changes_nothing(folder: Path, engine: Engine | None, tmp_path: Path) -> None:
    if engine is None:
        return
    index, notes = load_index(folder), tmp_path / "notes.json"
    place = moves.new_place(engine.name, index, 1)

    def killed(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        moves.put_all(index, engine, place, notes, killed)
    moves.put_all(index, engine, place, notes, lambda done: None)
    moves.check_count(index, engine, place, 1)
    engine.delete(place.collection, [5])
    engine.settle(place.collection)
    with pytest.raises(UserError, match=r"engines\.count_differs"):
        moves.check_count(index, engine, place, 1)
    engine.drop(place.collection)


def test_an_engine_that_scores_otherwise_is_not_let_in(folder: Path, engine: Engine | None, tmp_path: Path) -> None:
    """A store whose rows are not ours: the comparison says so."""
    if engine is None:
        return
    index = load_index(folder)
    place = moves.new_place(engine.name, index, 1)
    engine.create(place.collection, place.spec)
    for rows in moves.batches(index, place):
        engine.put(
            place.collection, place.spec, [type(row)(row.number, (row.tokens[0][:5], row.tokens[1][:5]), row.vector) for row in rows]
        )
    engine.settle(place.collection)
    compared = moves.compare(index, engine, place, 40)
    assert not compared.is_same
    assert compared.different
    engine.drop(place.collection)


@pytest.fixture
def double() -> Iterator[Double]:
    one = Double()
    yield one
    one.close()


def there(folder: Path, double: Double, tmp_path: Path, timeout_s: float) -> tuple[Index, Index]:
    index = load_index(folder)
    through = moved(index, OpenSearchEngine(double.url, "reader:secret", timeout_s=10), tmp_path)
    assert through._remote is not None
    return index, index.through(remote_of(index, OpenSearchEngine(double.url, "reader:secret", timeout_s=timeout_s), through._remote.place))


@pytest.mark.parametrize("fault", ["slow", "dead", "error"])
def test_a_faulty_engine_costs_one_time_limit_and_a_sentence(home: Home, folder: Path, double: Double, tmp_path: Path, fault: str) -> None:
    index, through = there(folder, double, tmp_path, 0.2)
    double.delay_s, double.status = (0.6, 200) if fault == "slow" else (0.0, 503 if fault == "error" else 200)
    if fault == "dead":
        double.close()
    retriever = Retriever(through, Letters())
    own = Retriever(index, Letters()).search("chest pain eye")
    before = len(double.seen)
    first = retriever.search("chest pain eye")
    assert len(double.seen) - before <= 1  # one time limit, not one for each leg
    assert [hit.number for hit in first.hits] == [hit.number for hit in own.hits]
    assert [code for code, _ in first.notes] == ["engines.note_down"]
    asked = len(double.seen)
    again = retriever.search("chest pain eye")
    assert [code for code, _ in again.notes] == ["engines.note_resting"]
    assert len(double.seen) == asked
    double.delay_s, double.status = 0.0, 200
    assert through._remote is not None
    through._remote._rests_until = 0.0
    if fault != "dead":
        through._remote.engine = OpenSearchEngine(double.url, "reader:secret", timeout_s=10)
        assert retriever.search("chest pain eye").notes == ()
        assert len(double.seen) > asked


def test_what_leaves_is_numbers_and_a_question_with_a_name_does_not(home: Home, folder: Path, double: Double, tmp_path: Path) -> None:
    _, through = there(folder, double, tmp_path, 5)
    bodies = "".join(body for _, _, body in double.seen)
    assert "chest" not in bodies
    assert "胸" not in bodies
    assert double.authorization == {"Basic cmVhZGVyOnNlY3JldA=="}
    asked = len(double.seen)
    found = Retriever(through, Letters()).search("患者姓名：王建国，身份证号 11010519491231002X，胸痛怎么办")
    assert [code for code, _ in found.notes] == ["engines.note_private"]
    assert found.hits
    assert len(double.seen) == asked

    text = "联系人：王建国，电话 13800138000，复查胸痛。"
    build_index([Chunk("a.md", "", "", "", "", text, 0, 9), Chunk("b.md", "", "", "", "", "胸痛 2024-05-01 修订", 0, 9)], tmp_path / "p")
    private = load_index(tmp_path / "p")
    place = Place("opensearch", "c", b"salt", moves.new_place("opensearch", private, 1).spec)
    [[first, second]] = list(moves.batches(private, place))
    whole = [moves.row_of(n, moves.text_of(private, n), b"salt") for n in (0, 1)]
    assert len(first.tokens[1]) < len(whole[0].tokens[1])
    assert second == whole[1]


def test_lengths_are_rounded_as_lucene_rounds_them() -> None:
    from tests.retrieval.opensearch_double import one_byte

    assert len(LENGTHS) == 256
    for length in [*range(3000), 65_535, 65_536, 10**6]:
        assert rounded(length) == one_byte(length)


def test_addresses_are_checked(home: Home) -> None:
    from core.retrieval.engines.choose import engine_of

    with pytest.raises(UserError, match=r"engines\.no_address"):
        engine_of(load_settings({"CONSILIUM_HOME": str(home.root)}), "opensearch")
    with pytest.raises(UserError, match=r"engines\.unknown"):
        engine_of(home.settings, "sphinx")
    with pytest.raises(UserError, match="opensearch_url"):
        load_settings({"CONSILIUM_OPENSEARCH_URL": "file:///etc/passwd"})
