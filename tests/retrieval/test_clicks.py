"""Clicks against a planted truth: examination is recovered, attraction is unbiased, and skips below a click accuse nobody."""

from __future__ import annotations

import numpy as np
import pytest

from core.retrieval.clicks import Impression, entry_stats, estimate_examination, gather, inverse_weights, missed_documents

TRUE_EXAMINATION = np.array([1.0, 0.6, 0.4, 0.25, 0.15])


def simulate(num: int, seed: int = 0) -> tuple[list[Impression], dict[tuple[str, str], float]]:
    rng = np.random.default_rng(seed)
    truth = {(f"q{q}", f"q{q}d{d}"): float(rng.choice([0.05, 0.8], p=[0.7, 0.3])) for q in range(40) for d in range(5)}
    rows = []
    for _ in range(num):
        q = f"q{rng.integers(40)}"
        shown = tuple(f"{q}d{d}" for d in rng.permutation(5))
        looked = rng.random(5) < TRUE_EXAMINATION
        clicked = frozenset(i for i, d in enumerate(shown) if looked[i] and rng.random() < truth[(q, d)])
        rows.append(Impression(q, shown, clicked))
    return rows, truth


def test_examination_is_recovered_from_what_moved() -> None:
    rows, _ = simulate(8000)
    assert estimate_examination(rows, 5) == pytest.approx(TRUE_EXAMINATION, abs=0.06)
    assert estimate_examination(rows[:3], 3) == pytest.approx([1, 1 / 2, 1 / 3]), "nothing moved: assumed"


def test_attraction_is_unbiased_where_the_click_rate_is_not() -> None:
    truth, shown_at = 0.5, 3
    rng = np.random.default_rng(1)
    rows = [
        Impression("q", ("a", "b", "c", "d"), frozenset({3} if rng.random() < TRUE_EXAMINATION[shown_at] * truth else ()))
        for _ in range(4000)
    ]
    known = gather(rows, TRUE_EXAMINATION.tolist())[("q", "d")]
    assert known.clicks / len(rows) < 0.2, "the raw rate is a quarter of the truth"
    assert known.attraction == pytest.approx(truth, abs=0.05)
    assert known.low < truth < known.high
    assert inverse_weights([1.0, 0.01]) == [1.0, 20.0], "clipped"


def test_confident_judgements_agree_with_the_truth() -> None:
    rows, truth = simulate(6000, seed=2)
    known = gather(rows, estimate_examination(rows, 5))
    positives = [truth[key] for key, one in known.items() if one.is_positive]
    negatives = [truth[key] for key, one in known.items() if one.is_negative]
    assert len(positives) > 30
    assert np.mean(np.array(positives) > 0.5) > 0.97
    assert all(value < 0.5 for value in negatives)


def test_what_stands_below_a_click_is_never_a_negative() -> None:
    rows = [Impression("q", ("a", "b", "c"), frozenset({0})) for _ in range(500)]
    known = gather(rows, [1.0, 0.9, 0.8])
    assert not known[("q", "b")].is_negative
    assert not known[("q", "c")].is_negative
    above = gather([Impression("q", ("a", "b", "c"), frozenset({2})) for _ in range(20)], [1.0, 0.9, 0.8])
    assert above[("q", "a")].is_negative, "passed over again and again on the way to a click below"


def test_a_click_that_is_taken_back_at_once_is_none_and_a_thumb_outweighs_clicks() -> None:
    hasty = gather([Impression("q", ("a",), frozenset({0}), dwell_s={0: 1.0}) for _ in range(50)], [1.0])
    assert hasty[("q", "a")].clicks == 0
    judged = gather([Impression("q", ("a",), frozenset({0}), thumbs={"a": -1}) for _ in range(50)], [1.0])
    assert not judged[("q", "a")].is_positive
    assert judged[("q", "a")].is_negative


def test_missed_documents_come_from_judgements_and_from_the_next_question() -> None:
    rows = [Impression("fit", ("a", "b", "c"), session="s1"), Impression("epileptic seizure", ("z", "b"), frozenset({0}), session="s1")]
    rows += [Impression("epileptic seizure", ("z", "b"), frozenset({0}))] * 12
    rows += [Impression("rash", ("a", "b", "c", "r"), thumbs={"r": 1})]
    known = gather(rows, [1.0, 0.5, 0.3, 0.2])
    found = {(m.query, m.passage): m.why for m in missed_documents(rows, known)}
    assert found == {("rash", "r"): "judged", ("fit", "z"): "reformulated"}


def test_doors_are_credited() -> None:
    rows = [Impression("q", ("a", "b"), frozenset({1}), doors=("good for what", "", "")) for _ in range(30)]
    stats = entry_stats(rows, gather(rows, [1.0, 0.8]))
    assert set(stats) == {"good for what"}
    assert (stats["good for what"].num_hits, stats["good for what"].num_helpful, stats["good for what"].num_harmful) == (30, 0, 30)
