"""The retriever on a small index: legs, weights, doors, pseudo-questions, budgets; plans and calibration on their own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from core.errors import Unavailable, UserError
from core.retrieval.calibration import IS_SHOWN, SIGNS, Calibration, fit, pairs_of, rates, signs_of
from core.retrieval.chunk import Chunk
from core.retrieval.index import Index, build_index, load_index
from core.retrieval.plans import Plan
from core.retrieval.search import Hit, Retriever

TEXTS = ("burn cool water", "glaucoma eye pain", "child fever paracetamol", "snake bite keep still", "gout toe pain")
QUESTIONS = {0: ["what to do after touching a stove"], 3: ["venom swelling in the leg"]}


class Letters:
    """An encoder with real vectors: one dimension per word it knows. Counts its calls."""

    name, hash, dimension = "letters", "0" * 64, 4
    words = ("stove", "heat", "eye", "venom")

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, texts: Sequence[str], *, is_query: bool) -> np.ndarray:
        self.calls += 1
        rows = np.array([[float(word in text) for word in self.words] for text in texts], dtype=np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


class Down(Letters):
    def encode(self, texts: Sequence[str], *, is_query: bool) -> np.ndarray:
        raise Unavailable("ask.index_missing", path="nowhere")


class LastFirst:
    """A reranker that turns the order round, for as many passages as the budget allows (one per millisecond)."""

    name, hash = "last-first", "1" * 64

    def score(self, query: str, passages: Sequence[str], *, budget_ms: float | None = None) -> list[float | None]:
        return [float(i) if budget_ms is None or i < budget_ms else None for i in range(len(passages))]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("search") / "index"
    chunks = [Chunk(f"{i}.md", f"Title {i}", "", "", "", text, 0, len(text)) for i, text in enumerate(TEXTS)]
    build_index(chunks, folder, questions=QUESTIONS, encoder=Letters())
    return load_index(folder)


def numbers(hits: Sequence[Hit]) -> list[int]:
    return [hit.number for hit in hits]


def test_the_door_is_the_pseudo_question_that_was_found(index: Index) -> None:
    found = Retriever(index).search("stove")
    assert numbers(found.hits) == [0]
    door = found.hits[0].doors[0]
    assert (door.via, door.leg, door.kind, door.entry, door.rank) == ("question", "lexical", "syn", QUESTIONS[0][0], 1)
    assert found.hits[0].stages["lexical:question"][0] == 1
    assert Retriever(index, plan=Plan(with_syn=False)).search("stove").hits == ()


def test_both_legs_vote_and_each_can_be_switched_off(index: Index) -> None:
    encoder = Letters()
    found = Retriever(index, encoder).search("eye and stove")
    assert set(found.stages) == {"lexical:question", "dense:question", "fused"}
    assert {door.leg for door in found.hits[0].doors} == {"lexical", "dense"}
    only = Retriever(index, encoder, plan=Plan(lexical=0)).search("eye")
    assert set(only.stages) == {"dense:question", "fused"}
    assert numbers(only.hits)[0] == 1
    before = encoder.calls
    words = Retriever(index, encoder, plan=Plan(dense=0)).search("eye")
    assert "dense:question" not in words.stages
    zh = Retriever(index, encoder, plan=Plan(dense_languages=("en",))).search("眼痛 eye")
    assert "dense:question" not in zh.stages
    assert encoder.calls == before, "a leg that does not vote is not computed"


def test_a_weak_leg_loses_by_its_weight(index: Index) -> None:
    question = "pain venom"  # words: 1 and 4 by "pain", 3 by its question; meaning: 3 alone
    even = Retriever(index, Letters()).search(question)
    assert numbers(even.hits)[0] == 3
    scores = dict(even.stages["fused"])
    weak = dict(Retriever(index, Letters(), plan=Plan(dense=0.1)).search(question).stages["fused"])
    assert weak[3] == pytest.approx(scores[3] - 0.9 / 61)


def test_an_encoder_that_is_down_costs_a_note_and_another_encoder_is_refused(index: Index) -> None:
    found = Retriever(index, Down()).search("gout")
    assert numbers(found.hits) == [4]
    assert [key for key, _ in found.notes] == ["ask.note_dense_failed"]
    other = Letters()
    other.hash = "2" * 64
    with pytest.raises(UserError) as caught:
        Retriever(index, other)
    assert caught.value.code == "index.other_encoder"


def test_the_reranker_decides_within_its_budget_and_the_rest_keeps_its_place(index: Index) -> None:
    question = "pain water fever bite"
    plain = numbers(Retriever(index).search(question).hits)
    turned = Retriever(index, reranker=LastFirst()).search(question)
    assert numbers(turned.hits) == plain[::-1]
    assert turned.hits[0].stages["rerank"][0] == 1
    late = Retriever(index, reranker=LastFirst(), plan=Plan(rerank_budget_ms=2)).search(question)
    assert numbers(late.hits) == [plain[1], plain[0], *plain[2:]]
    assert [key for key, _ in late.notes] == ["ask.note_rerank_late"]
    few = Retriever(index, reranker=LastFirst(), plan=Plan(rerank_top=2)).search(question)
    assert numbers(few.hits) == [plain[1], plain[0], *plain[2:]]
    assert numbers(Retriever(index, reranker=LastFirst(), plan=Plan(rerank_weight=0)).search(question).hits) == plain


def test_hidden_passages_are_not_seen_and_every_stage_is_timed(index: Index) -> None:
    found = Retriever(index, Letters()).search("glaucoma eye", without={1})
    assert 1 not in numbers(found.hits)
    assert {"wordings", "lexical", "encode", "dense", "fuse", "rerank", "read", "total"} <= set(found.timings_ms)
    assert found.timings_ms["total"] > 0


def test_an_expansion_line_is_its_own_door(index: Index) -> None:
    found = Retriever(index, Letters()).search("what helps", expansions=("lex: gout", "vec: venom"))
    doors = {hit.number: hit.via for hit in found.hits}
    assert doors[4][0] == "lex: gout"
    assert doors[3] == ("vec: venom",)
    assert "question" not in {via for vias in doors.values() for via in vias}, "nothing in it is known: it must not vote"


def test_a_plan_keeps_only_what_differs_and_refuses_nonsense() -> None:
    plan = Plan().changed({"dense": 0.25, "dense_languages": ["en"], "spelling": False})
    assert plan.to_json() == {"dense": 0.25, "dense_languages": ["en"], "spelling": False}
    assert Plan.from_json(plan.to_json()) == plan
    for field, value in (("dense", -1), ("depth", 0), ("spelling", 1), ("nothing", 1), ("rrf_k", "60"), ("glossary", 2), ("dense", True)):
        with pytest.raises(UserError) as caught:
            Plan().changed({field: value})
        assert caught.value.params["field"] == field


def drawn(seed: int, num: int, shift: float) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Signs with a planted truth: coverage and ratio are higher by `shift` where the passage is there."""
    rng = random.Random(seed)
    signs = Calibration(("coverage",), (0,), (1,), (1,), 0, 0.5, 1)
    assert signs.support({"coverage": 0}) == 0.5

    def one(there: float) -> dict[str, float]:
        return {name: rng.gauss(there if name in ("coverage", "ratio") else 0, 1) for name in SIGNS}

    return [one(shift) for _ in range(num)], [one(0) for _ in range(num)]


def test_the_threshold_holds_the_wanted_rate_on_other_questions() -> None:
    calibration = fit(*drawn(1, 800, 2.0), max_false_answer=0.1, set="planted")
    measured = rates(calibration, *drawn(2, 800, 2.0))
    assert measured.false_answer == pytest.approx(0.1, abs=0.03)
    assert measured.false_unknown < 0.1, "d' = 2.8: the optimum misses 6 %"
    assert measured.auc > 0.96
    assert measured.false_answer_interval[0] < measured.false_answer < measured.false_answer_interval[1]
    assert Calibration.from_json(calibration.to_json()) == calibration
    shown = [{**row, IS_SHOWN: float(i % 2)} for i, row in enumerate(drawn(2, 800, 2.0)[0])]
    found = rates(calibration, shown, drawn(2, 800, 2.0)[1])
    assert found.num_shown == 400
    assert found.false_unknown_shown == pytest.approx(found.false_unknown, abs=0.03)
    assert measured.false_unknown_shown is None, "nobody said what was shown"
    nothing = rates(fit(*drawn(3, 800, 0.0)), *drawn(4, 800, 0.0))
    assert 0.44 < nothing.auc < 0.56, "what says nothing must not look as if it did"
    with pytest.raises(ValueError, match="answerable"):
        fit([], [])


def test_signs_see_a_passage_that_is_hidden(index: Index) -> None:
    retriever = Retriever(index)
    present, absent = pairs_of(retriever, [("glaucoma eye pain", {1})])
    assert present[0]["coverage"] == 1.0
    assert absent[0]["coverage"] < 0.5
    question = QUESTIONS[3][0]
    assert signs_of(question, retriever.search(question), index.weight)["alike"] == 1.0, "the question is the pseudo-question"


def test_the_index_offers_words_near_a_misspelt_one(index: Index, tmp_path: Path) -> None:
    found = Retriever(index).search("glaucomma")
    assert [(c.written, c.meant) for c in found.corrections] == [("glaucomma", "glaucoma")]
    assert numbers(found.hits) == [1]
