"""Entries of an index: pooled doors, updates that share files with the old version, the dense channel and what it refuses."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import UserError
from core.retrieval import dense
from core.retrieval.chunk import Chunk
from core.retrieval.index import Index, build_index, load_index, update_index
from core.retrieval.tokens import both_views, singles, tokenise


class Hashing:
    """A bag of hashed tokens: close when words are shared."""

    name, hash, dimension = "hashing", "1", 64

    def encode(self, texts: Sequence[str], *, is_query: bool) -> np.ndarray[Any, np.dtype[np.float32]]:
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for token in tokenise(text):
                row[zlib.crc32(token.encode()) % self.dimension] += 1
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return rows


def chunk(file: str, text: str) -> Chunk:
    return Chunk(file, file, "", "", "", text, 0, len(text))


CHUNKS = [chunk("a", "Angina is pain of the chest on effort."), chunk("b", "Scald: cool under water."), chunk("c", "偏头痛伴恶心畏光。")]
QUESTIONS = {0: ["why does my heart squeeze", "tightness when climbing stairs"], 2: ["看到光就难受是怎么回事"]}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    build_index(CHUNKS, tmp_path / "one", questions=QUESTIONS, encoder=Hashing())
    return load_index(tmp_path / "one")


def vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    row: np.ndarray[Any, np.dtype[np.float32]] = Hashing().encode([text], is_query=True)[0]
    return row


def test_a_pseudo_question_lets_its_chunk_in_and_is_named(index: Index) -> None:
    [found] = index.lexical("climbing stairs")
    assert (found.parent, found.kind, found.text) == (0, "syn", "tightness when climbing stairs")
    assert index.entry(found.entry).parent == 0
    assert index.dense(vector("看到光就难受"), 1)[0].text == "看到光就难受是怎么回事"
    assert index.lexical("climbing stairs", with_syn=False) == []
    assert (len(index), index.num_entries, index.manifest["num_syn"]) == (3, 6, 3)


def test_a_chunk_is_found_once_by_its_best_entry(index: Index) -> None:
    found = index.lexical("why does angina of my heart squeeze the chest on effort", 5)
    assert [f.parent for f in found].count(0) == 1
    assert len({f.parent for f in index.dense(vector("chest"), 5)}) == 3, "looks deeper until every chunk is there"
    plain = index.dense(vector("tightness when climbing stairs"), 3, with_syn=False)
    assert {f.kind for f in plain} == {"original"}
    assert 0 in {f.parent for f in plain}, "without pseudo-questions a chunk still has its own text"


def test_an_update_changes_documents_and_shares_the_rest(index: Index, tmp_path: Path) -> None:
    new = [chunk("b", "Scald: do not put ice on it."), chunk("d", "Gout: a swollen toe.")]
    toe, chest = {1: ["painful big toe"]}, {0: ["胸闷"]}
    gone = ["b", "c"]
    manifest = update_index(index, tmp_path / "two", remove=gone, chunks=new, questions=toe, more_questions=chest, encoder=Hashing())
    two = load_index(tmp_path / "two")
    assert two.numbers == [0, 3, 4]
    assert [two.lexical(q)[0].parent for q in ("ice", "painful toe", "胸闷", "climbing stairs")] == [3, 4, 0, 0]
    assert two.lexical("畏光") == []
    assert two.dense(vector("painful big toe"), 1)[0].parent == 4
    assert (manifest["num_documents"], manifest["num_entries"], manifest["num_syn"]) == (3, 7, 4)
    with pytest.raises(KeyError):
        two.chunk(2)
    assert [index.lexical(q)[0].parent for q in ("cool water", "畏光")] == [1, 2], "the old version is what it was"
    assert load_index(tmp_path / "one").numbers == [0, 1, 2]
    assert (tmp_path / "one" / "texts-00001.jsonl").samefile(tmp_path / "two" / "texts-00001.jsonl")
    segments = [p.name for p in (tmp_path / "one" / "lexical").glob("*.term")]
    assert all(os.path.samefile(tmp_path / "one" / "lexical" / s, tmp_path / "two" / "lexical" / s) for s in segments)


def test_pruned_questions_leave_both_channels_and_numbers_are_not_given_again(index: Index, tmp_path: Path) -> None:
    gone = [q.id for q in index.questions(0)]
    update_index(index, tmp_path / "two", remove_entries=[*gone, 0, 99], encoder=Hashing())
    two = load_index(tmp_path / "two")
    assert (two.num_entries, two.questions(0), len(two)) == (4, [], 3)
    assert two.lexical("climbing stairs") == []
    update_index(two, tmp_path / "three", remove=["c"], chunks=[chunk("e", "Eczema.")], encoder=Hashing())
    three = load_index(tmp_path / "three")
    assert three.lexical("eczema")[0].parent == 3
    assert three.lexical("eczema")[0].entry == 6


def test_another_encoder_or_dimension_is_refused(index: Index, tmp_path: Path) -> None:
    other = type("Other", (Hashing,), {"hash": "2"})()
    with pytest.raises(UserError, match=r"index\.other_encoder"):
        index.require(other)
    with pytest.raises(UserError, match=r"index\.other_encoder"):
        update_index(index, tmp_path / "two", chunks=CHUNKS, encoder=other)
    with pytest.raises(UserError, match=r"index\.needs_encoder"):
        update_index(index, tmp_path / "two", chunks=CHUNKS)
    with pytest.raises(UserError, match=r"index\.other_dimension"):
        index.dense(np.zeros(32, np.float32))
    build_index(CHUNKS, tmp_path / "plain")
    with pytest.raises(UserError, match=r"index\.no_dense"):
        load_index(tmp_path / "plain").require(Hashing())
    assert load_index(tmp_path / "plain").dense(vector("chest")) == []


@pytest.mark.parametrize("name", ["dense.faiss", "documents.jsonl"])
def test_a_damaged_part_is_refused_by_name(index: Index, name: str) -> None:
    (index.folder / name).write_bytes((index.folder / name).read_bytes()[:-3])
    with pytest.raises(UserError) as caught:
        load_index(index.folder)
    assert (caught.value.code, caught.value.params["file"]) == ("ask.index_damaged", name)
    with pytest.raises(UserError, match=r"ask\.index_damaged"):
        Index(index.folder, index.manifest | {"num_entries": 7})  # parts that do not belong together, checksums aside


def test_the_type_of_the_vectors_follows_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [dense.kind_for(n) for n in (100_000, 100_001, 500_001, 1_000_000)] == ["Flat", "SQ8", "IVF1024,SQ8", "IVF2048,SQ8"]
    rows = np.random.default_rng(0).standard_normal((900, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    numbers = np.arange(900) * 3
    monkeypatch.setattr(dense, "FLAT_LIMIT", 300)
    monkeypatch.setattr(dense, "SQ_LIMIT", 600)
    monkeypatch.setattr(dense, "PROBED_SHARE", 1)
    path, kind = tmp_path / "0", dense.build(rows[:250], numbers[:250], tmp_path / "0")
    kinds = [kind]
    for start, stop in ((250, 500), (500, 900)):
        following = tmp_path / str(stop)
        kind = dense.change(path, following, kind, [3], rows[start:stop], numbers[start:stop])
        path, kinds = following, [*kinds, kind]
    assert [k[:3] for k in kinds] == ["Fla", "SQ8", "IVF"]
    opened = dense.Dense(path, kind, 16)
    assert len(opened) == 899
    assert [opened.search(rows[i], 1)[0][0] for i in (0, 260, 700)] == [0, 780, 2100]
    assert 3 not in {n for n, _ in opened.search(rows[1], 50)}


@pytest.mark.parametrize("text", ["Chest pains 2.5mg", "胸痛abc头", "痛", "ＡＢＣ，１２", "", "don't stop—it's fine"])
def test_both_views_are_the_two_views(text: str) -> None:
    assert both_views(text) == (tokenise(text), singles(text))
