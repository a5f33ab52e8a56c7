"""Rerankers: the order they give, what a spent budget leaves alone, and what the learned signals can see that words cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import Unavailable
from core.retrieval.rank_features import NAMES, FeatureModel, Rarity, Row, hashes, log_odds, read_feature_model, write_feature_model
from core.retrieval.rerankers import reranked
from training.rank_associations import learn_associations, rarity_of
from training.rank_network import learn_network

#: question word, answer word: they share no token
KINDS = {"treatment": "surgery", "cause": "gene", "symptoms": "pain"}
ILLNESSES = [
    f"{a}{b}itis" for a in ("neur", "arthr", "gastr", "derm", "ot", "hepat", "nephr", "mening") for b in ("", "ox", "al", "um", "er")
]


def planted() -> list[tuple[str, list[str], int]]:
    """Questions whose candidates all name the illness; only the kind of answer tells them apart. (question, passages, right place)"""
    rows = []
    for i, illness in enumerate(ILLNESSES):
        for j, kind in enumerate(KINDS):
            passages = [f"{illness} is often met with {answer} as doctors know" for answer in KINDS.values()]
            order = np.random.default_rng(i * 3 + j).permutation(3)
            rows.append((f"{kind} of {illness}?", [passages[k] for k in order], int(np.flatnonzero(order == j)[0])))
    return rows


def test_unscored_passages_keep_their_order_behind_the_scored_ones() -> None:
    assert reranked([0.1, 0.9, None, 0.9, None]) == [1, 3, 0, 2, 4]
    assert reranked([None, None]) == [0, 1]
    assert reranked([]) == []


def test_associations_tell_answers_apart_that_share_every_question_word() -> None:
    rows = planted()
    pairs = [(question, passages[right]) for question, passages, right in rows[:90]]
    associations = learn_associations(pairs)
    assert associations is not None
    surgery, gene, unheard, nothing = (
        float(log_odds(associations.table([asked]), [associations.shares(answer)])[0, 0])
        for asked, answer in (("treatment", ["surgery"]), ("treatment", ["gene"]), ("unheard", ["surgery"]), ("treatment", []))
    )
    assert surgery > gene + 1, "e times as likely at least"
    assert (unheard, nothing) == (0.0, 0.0)


def test_a_trained_feature_reranker_is_written_read_and_lifts_the_right_answer(tmp_path: Path) -> None:
    rows = planted()
    rarity = rarity_of([p for _, passages, _ in rows for p in passages])
    associations = learn_associations([(question, passages[right]) for question, passages, right in rows[:60]])
    bare = FeatureModel(rarity, associations, None)
    signals = [bare.features(question, passages) for question, passages, _ in rows[:90]]
    labels = [np.eye(3, dtype=np.float32)[right] for _, _, right in rows[:90]]
    network = learn_network(signals[:75], labels[:75], signals[75:], labels[75:], num_hidden=8, num_networks=2, seed=0)
    write_feature_model(tmp_path, FeatureModel(rarity, associations, None, network.centre, network.scale, network.layers))
    model = read_feature_model(tmp_path)
    first = [int(np.argmax([s or 0.0 for s in model.score(question, passages)])) == right for question, passages, right in rows[90:]]
    assert np.mean(first) > 0.9, "by words alone it would be a third"
    question, passages, _ = rows[0]
    by_hand = (bare.features(question, passages) - network.centre) / network.scale
    hidden = np.maximum(by_hand @ network.layers[0][0].T + network.layers[0][1], 0)
    wanted = (hidden @ network.layers[1][0].T + network.layers[1][1])[:, 0]
    np.testing.assert_allclose(np.array(model.score(question, passages), dtype=float), wanted, rtol=1e-3, atol=1e-3)


def test_a_spent_budget_scores_the_first_passages_only() -> None:
    model = FeatureModel(Rarity({}, 1.0, 10.0), None, None, layers=((np.zeros((1, 2 * len(NAMES))), np.zeros(1)),))
    long = [f"{i} the liver and the kidney and the heart " * 200 for i in range(200)]
    scores = model.score("liver kidney heart", long, budget_ms=30)
    assert scores[0] is not None
    assert scores[-1] is None
    scored = [score is not None for score in scores]
    assert scored == sorted(scored, reverse=True), "in the order of the stage before"
    assert model.score("x", long, budget_ms=1e-9) == [None] * 200


def test_runs_follow_the_question_and_stay_inside_a_passage() -> None:
    passages = ["the patient has type two diabetes since 1990", "type two", "diabetes type two", ""]
    row = Row([hashes(passage.split()) for passage in passages])
    assert row.longest_run(hashes(["type", "two", "diabetes"])).tolist() == pytest.approx([1, 2 / 3, 2 / 3, 0])
    assert row.longest_run(hashes([])).tolist() == [0, 0, 0, 0]


def test_signals_are_what_they_say() -> None:
    rarity = Rarity({"kidney": 2.0, "liver": 1.0}, 4.0, 10.0)
    model = FeatureModel(rarity, None, None)
    far = "a liver " + "and so on " * 20 + "the kidney"
    rows = [dict(zip(NAMES, row, strict=True)) for row in model.signals("kidney liver surgery", ["", "a liver in the kidney", far])]
    nothing, near, apart = rows
    assert [row["coverage"] for row in rows] == pytest.approx([0, 3 / 7, 3 / 7])
    assert near["coverage_window"] == near["coverage_lead"] == pytest.approx(3 / 7)
    assert (apart["coverage_window"], apart["coverage_lead"]) == (pytest.approx(2 / 7), pytest.approx(1 / 7))
    assert near["run"] == pytest.approx(1 / 3)
    assert near["first"] == pytest.approx(np.log1p(1))
    assert near["bm25"] == pytest.approx(3 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 5 / 10)) / 7)
    assert near["density"] == pytest.approx(2 / 5)
    assert [row["reciprocal_rank"] for row in rows] == pytest.approx([1, 1 / 2, 1 / 3])
    assert nothing["bm25"] == nothing["first"] == 0
    assert np.isfinite(model.features("", ["", "x"])).all()
    assert model.signals("肾结石", ["肾结石怎么办", "结石"])[:, NAMES.index("coverage_singles")].tolist() == pytest.approx([1, 2 / 3])


def test_a_damaged_reranker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="damaged"):
        read_feature_model(tmp_path)
    write_feature_model(tmp_path, FeatureModel(Rarity({"a": 1.0}, 2.0, 3.0), None, None))
    (tmp_path / "reranker.json").write_text('{"format": 0}')
    with pytest.raises(Unavailable, match="damaged"):
        read_feature_model(tmp_path)
