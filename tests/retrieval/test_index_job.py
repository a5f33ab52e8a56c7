"""The job's parts: repeated chunks, pseudo-questions that find their chunk, remembered vectors, pruning, updates, roll-back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docx
import numpy as np
import pytest

from core.errors import Forbidden, UserError
from core.home import Home
from core.retrieval import index_versions as versions
from core.retrieval.chunk import Document, chunk_document
from core.retrieval.documents import read_folder
from core.retrieval.index import build_index, load_index, update_index
from core.retrieval.plans import Plan
from core.retrieval.prune import EntryStats, Stats, prune
from core.retrieval.question_filter import finding_their_own, with_passages
from core.retrieval.repetitions import Repetitions, is_repeat, mark
from core.retrieval.search import Retriever
from db import tables as t
from db.engine import write_session
from tests import factories
from tests.retrieval.test_entries import Hashing, chunk
from training import index as job
from training.index_questions import clean, entry_form, key_of, measured_form, write_questions
from training.index_vectors import KeptVectors
from training.run import Run

DOSE = "Adults take one tablet of 10 mg every day after a meal, with a glass of water, for seven days, and rest in between as needed."


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        (DOSE, "exact"),
        (DOSE.replace("a meal", "meals").upper(), "near"),
        (DOSE.replace("10", "15"), None),
        (DOSE.replace("take", "do not take"), None),
        ("Something else altogether, with other words in every place of the line, so that nothing here is alike.", None),
    ],
)
def test_repetitions_never_merge_other_doses_or_negations(other: str, kind: str | None) -> None:
    assert is_repeat(DOSE, other, 0.7) == kind
    known = Repetitions(lambda _: chunk("a", DOSE), 0.7)
    known.add(0, mark(DOSE))
    found = known.find(chunk("a", other), mark(other))
    assert (found.kind if found else None) == kind
    assert known.find(chunk("under another title", other), mark(other)) is None


def test_chinese_negation_counts() -> None:
    text = "青光眼患者在医生指导下可以使用该药物，使用期间应定期检查眼压与视野，出现不适及时就诊，按时复查。"
    assert is_repeat(text, text.replace("可以", "勿"), 0.5) is None


def test_chunks_of_characters_hold_the_limit() -> None:
    text = "First sentence here. " * 40 + "x" * 700 + "。中文，句子很长" * 60
    chunks = chunk_document(Document("f", "t", text), 300, 0, unit="character")
    assert max(len(c.text) for c in chunks) <= 300
    assert all(text[c.start : c.end] == c.text for c in chunks)
    assert "".join(c.text for c in chunks).replace(" ", "") == text.replace(" ", "")


def test_word_files_and_web_pages(tmp_path: Path) -> None:
    word = docx.Document()
    word.add_heading("Glaucoma", 0)
    word.add_heading("Danger signs", 1)
    word.add_paragraph("Halos around lights", style="List Bullet")
    word.add_page_break()  # type: ignore[no-untyped-call]
    table = word.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "Pilocarpine", "1 %"
    word.save(str(tmp_path / "a.docx"))
    (tmp_path / "b.html").write_text(
        "<html><head><title>T</title><meta name=date content=2024-05-01T10:00><script>evil()</script></head><body><nav>Home</nav>"
        "<h1>Burns</h1><p>Cool the <b>burn</b>.<h2>Danger</h2><ul><li>Face<li>Child</ul><div hidden>no</div><footer>us</footer>"
    )
    (tmp_path / "c.docx").write_bytes(b"no zip")
    word_read, page, broken = read_folder(tmp_path)
    assert isinstance(word_read, Document)
    assert isinstance(page, Document)
    assert (word_read.title, [s.title for s in word_read.sections][1], word_read.sections[-1].page) == ("Glaucoma", "Danger signs", 2)
    assert "Pilocarpine | 1 %" in word_read.text
    assert page.text == "Burns\nCool the burn.\nDanger\n- Face\n- Child"
    assert (page.title, page.date, page.sections[-1].title) == ("Burns", "2024-05-01", "Danger")
    assert getattr(broken, "code", "") == "index.doc_broken_docx"


class Scripted:
    """A writer that says what it is told, and counts."""

    name, hash = "scripted", "1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def write(self, passages: Sequence[str], num: int, seed: int = 0) -> list[list[str]]:
        self.asked += passages
        return [["what does aspirin do?", "What does  aspirin do?", "???", "burns", "blood thinner"] for _ in passages]


def test_questions_are_cleaned_remembered_and_kept_when_they_find_their_chunk(tmp_path: Path) -> None:
    writer, path = Scripted(), tmp_path / "questions.jsonl"
    texts = ["Aspirin thins the blood.", "Cool burns under water."]
    first = write_questions(writer, texts[:1], 5, path, lambda _: None)
    path.write_text(path.read_text() + '["half')
    both = write_questions(writer, texts, 5, path, lambda _: None)
    assert writer.asked == texts, "what was written is not asked for again"
    assert first[key_of(texts[0])] == both[key_of(texts[1])] == ["what does aspirin do?", "burns", "blood thinner"]
    assert clean(["x" * 500, "  "], 5) == []
    index_folder = tmp_path / "index"
    build_index([chunk("a", texts[0]), chunk("b", texts[1])], index_folder)
    kept = finding_their_own(load_index(index_folder), {0: both[key_of(texts[0])], 1: both[key_of(texts[1])]}, 1)
    assert kept == {0: ["what does aspirin do?", "blood thinner"], 1: ["burns"]}


def test_vectors_are_computed_once_over_restarts(tmp_path: Path) -> None:
    class Counting(Hashing):
        num = 0

        def encode(self, texts: Sequence[str], *, is_query: bool) -> np.ndarray[Any, np.dtype[np.float32]]:
            self.num += len(texts)
            return super().encode(texts, is_query=is_query)

    encoder = Counting()
    first = KeptVectors(encoder, tmp_path, lambda _: None).encode(["one", "two", "one"], is_query=False)
    [folder] = tmp_path.iterdir()
    with (folder / "keys.bin").open("ab") as file:
        file.write(b"half a key")
    again = KeptVectors(encoder, tmp_path, lambda _: None)
    np.testing.assert_array_equal(again.encode(["two", "three"], is_query=False)[0], first[1])
    assert again.encode(["two"], is_query=True).shape == (1, 64)
    assert encoder.num == 4, "one, two, three, and two as a question"


def test_pruning_needs_enough_questions_and_judgements() -> None:
    entries = {1: EntryStats(9, 4, 1), 2: EntryStats(5, 1, 3), 3: EntryStats(2, 0, 2)}
    assert prune([1, 2, 3, 4], Stats("x", 1, 500, entries)).harmful == [2]
    assert prune([1, 2, 3, 4], Stats("x", 1, 500, entries)).never_hit == [4]
    assert prune([1, 2, 3, 4], Stats("x", 1, 100, entries)).never_hit == []


def run(home: Home, number: int, **config: object) -> dict[str, Any]:
    directory = home.run_dir(number)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({"name": "mine", **config}))
    job.run_index(Run(directory, 0, home))
    result: dict[str, Any] = json.loads((directory / "result.json").read_text())
    return result


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.txt").write_text("Aspirin\n\nAspirin thins the blood.")
    (folder / "b.txt").write_text("Burns\n\nCool burns under water.")
    (folder / "copy.txt").write_text("Aspirin\n\nAspirin thins the blood.")
    return folder


def test_a_whole_life_of_an_index(home: Home, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "writer_named", lambda _: Scripted())
    monkeypatch.setattr(job, "open_encoder", lambda *_args, **_kwargs: Hashing())
    built = run(home, 1, folder=str(docs), writer="scripted", encoder="hashing", num_questions=3, question_depth=1)
    assert (built["num_documents"], built["num_chunks"], built["repeated"]) == (3, 2, {"exact": 1, "near": 0})
    assert (built["num_syn"], built["questions"]["share_kept"], built["encoder"]["name"]) == (3, 0.5, "hashing")
    assert run(home, 2, action="update")["changed"] == 0, "nothing changed, no new version"

    (docs / "a.txt").unlink()  # its copy must come back: what stood in both now stands in one
    (docs / "b.txt").write_bytes(b"\x00\xff")  # cannot be read any more: what was indexed of it stays
    (docs / "c.txt").write_text("Colic\n\nColic passes by itself.")
    updated = run(home, 3, action="update")
    assert (updated["version"], updated["based_on"]) == (2, 1)
    assert updated["changes"] == {"added": 1, "changed": 0, "deleted": 1, "pruned": 0}
    assert updated["unreadable"] == [{"file": "b.txt", "code": "ask.doc_encoding", "kept": "yes"}]
    index = load_index(home.resolve(updated["path"]))
    assert {c.file for _, c in index.store.living()} == {"b.txt", "c.txt", "copy.txt"}
    assert index.lexical("blood thinner")[0].text == "blood thinner"

    syn = [q.id for parent in index.numbers for q in index.questions(parent)]
    stats = home.root / "stats.json"
    entries = {str(n): {"num_hits": 5, "num_helpful": 5, "num_harmful": 0} for n in syn[1:]}
    stats.write_text(json.dumps({"index": "mine", "version": 1, "num_questions": 900, "entries": entries}))
    pruned = run(home, 4, action="update", prune_stats=str(stats))
    assert (pruned["num_syn"], pruned["changes"]["pruned"]) == (len(syn) - 1, 1)

    back = versions.activate("mine", 1, by=None, reason="worse")
    assert (back.version, back.is_active, [v.version for v in versions.listing("mine")]) == (1, True, [3, 2, 1])
    with write_session() as session:
        reader = factories.user(session, "clinician").id
    with pytest.raises(Forbidden):
        versions.activate("mine", 2, by=reader)
    with pytest.raises(UserError, match=r"index\.no_version"):
        versions.activate("mine", 9, by=None)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"action": "update", "name": "none"}, "index.nothing_to_update"),
        ({"action": "update", "folder": "elsewhere"}, "index.all_gone"),
        ({"action": "update", "prune_stats": "bad.json"}, "index.bad_stats"),
        ({"action": "update", "prune_stats": "other.json"}, "index.stats_of_other"),
        ({"encoder": "no-such-encoder"}, "embedding.no_such_model"),
    ],
)
def test_bad_input_is_a_sentence_and_changes_nothing(home: Home, docs: Path, config: dict[str, object], code: str) -> None:
    run(home, 1, folder=str(docs))
    (home.root / "elsewhere").mkdir()
    (home.root / "elsewhere" / "x.txt").write_bytes(b"\x00\xff")
    (home.root / "bad.json").write_text("[1]")
    (home.root / "other.json").write_text('{"index": "other", "version": 1, "num_questions": 0, "entries": {}}')
    with pytest.raises(UserError) as caught:
        run(home, 2, **config)
    assert caught.value.code == code
    active = versions.active_version("mine")
    assert active is not None
    assert active.version == 1


def test_questions_become_the_entries_that_their_writers_trial_found_best(home: Home) -> None:
    with write_session() as session:
        for found in ("alone", "with_passage", "with_words", "none"):
            session.add(
                t.RetrievalModel(kind="doc2query", name=found, form="copying", path="x", content_hash="x", manifest={"entries": found})
            )
    names = ("alone", "with_passage", "with_words")
    assert tuple(entry_form(name) for name in names) == names
    assert entry_form("any model version") == "alone"
    assert measured_form("none") == "with_passage", "to be measured, in the form that can harm least"
    with pytest.raises(UserError) as caught:
        entry_form("none")
    assert caught.value.code == "index.writer_does_not_help"


def test_a_question_with_its_passage_is_found_by_either_and_shown_without_it(tmp_path: Path) -> None:
    texts = ["Aspirin thins the blood.", "Cool burns under water."]
    build_index([chunk("a", texts[0]), chunk("b", texts[1])], tmp_path / "plain")
    asked = with_passages({0: ["pill for the heart?", "stroke prevention"], 1: []}, texts)
    assert asked == {0: ["pill for the heart? stroke prevention\nAspirin thins the blood."]}
    update_index(load_index(tmp_path / "plain"), tmp_path / "with", more_questions=asked)
    index = load_index(tmp_path / "with")
    [found] = index.lexical("stroke aspirin")
    assert (found.parent, found.kind) == (0, "syn")
    [hit] = Retriever(index, None, None, Plan()).search("stroke aspirin").hits
    assert hit.doors[0].entry == "pill for the heart? stroke prevention"
