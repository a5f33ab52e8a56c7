"""Expected words of questions: learnt from pairs, kept with the writer, entered beside the passage. Doors of use carry their passage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.retrieval.chunk import Chunk
from core.retrieval.clicks import Missed
from core.retrieval.index import Index, build_index, load_index
from core.retrieval.learning import Lessons, new_questions
from core.retrieval.question_filter import with_words
from core.retrieval.question_words import QuestionWords
from training.ibm_model_1 import fit
from training.question_words import learn_question_words

ORGANS = ("heart", "kidney", "lung", "liver")
PASSAGE = "Specialists prescribe tablets for the {}; consult the clinic."
PAIRS = [(f"medicine for my {organ}?", PASSAGE.format(organ)) for organ in ORGANS for _ in range(6)]


def learnt() -> QuestionWords:
    words = learn_question_words(PAIRS)
    assert words is not None
    return words


def chunk(number: int, text: str) -> Chunk:
    return Chunk(f"d{number}", "", "", "", "", text, 0, len(text))


def index_of(texts: list[str], folder: Path) -> Index:
    build_index([chunk(n, text) for n, text in enumerate(texts)], folder)
    return load_index(folder)


def test_model_1_finds_which_word_is_the_reason() -> None:
    pairs = [(np.array([0, 1]), np.array([0, 1])), (np.array([0, 2]), np.array([0, 2]))] * 4  # 1 comes with 1 only, 2 with 2, 0 with both
    found = fit(pairs, 3, 3)
    chance = {(int(t), int(a)): c for t, a, c in zip(found.told, found.asked, found.chance, strict=True)}
    assert chance[(1, 1)] > 0.7 > 0.3 > chance[(1, 0)], "one would be as likely as the other without the second pair"
    assert chance[(2, 2)] > 0.7
    assert abs(sum(c for (told, _), c in chance.items() if told == 0) - 1) < 1e-9


def test_words_that_people_ask_with_are_expected_though_the_passage_lacks_them(tmp_path: Path) -> None:
    words = learnt()
    assert set(words.of(PASSAGE.format("kidney"), 2).split()) == {"kidney", "medicin"}
    assert words.of("xyzzy") == ""
    words.save(tmp_path)
    again = QuestionWords.read(tmp_path)
    assert again is not None
    assert again.of(PASSAGE.format("lung")) == words.of(PASSAGE.format("lung"))
    assert QuestionWords.read(tmp_path / "nothing") is None
    assert learn_question_words([("?", "no words asked")]) is None


def test_an_entry_with_words_is_found_by_them_and_shows_its_question(tmp_path: Path) -> None:
    passages = [PASSAGE.format("spleen"), "Cool a burn under water."]
    entries = with_words({0: ["what helps the spleen", "never used"]}, learnt(), passages)
    first, expected, passage = entries[0][0].split("\n")
    assert (first, passage) == ("what helps the spleen", passages[0])
    assert expected.startswith("medicin")
    build_index([chunk(n, text) for n, text in enumerate(passages)], tmp_path / "i", questions=entries)
    found = load_index(tmp_path / "i").lexical("medicine")
    assert [(f.parent, f.kind) for f in found] == [(0, "syn")]


def test_what_use_teaches_enters_with_its_passage_and_only_once(tmp_path: Path) -> None:
    index = index_of(["Glaucoma hurts the eye.", "Stroke needs an ambulance."], tmp_path / "i")
    missed = ((Missed("green star", "d0", "judged"), 0), (Missed("Green  star", "d0", "judged"), 0))
    lessons = Lessons(missed, (), {}, ())
    assert new_questions(index, lessons) == {0: ["green star\nGlaucoma hurts the eye."]}
    build_index([chunk(0, "Glaucoma hurts the eye.")], tmp_path / "j", questions={0: ["green star\nGlaucoma hurts the eye."]})
    assert new_questions(load_index(tmp_path / "j"), lessons) == {}, "it is there already"
