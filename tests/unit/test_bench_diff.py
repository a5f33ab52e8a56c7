"""Two answers laid beside each other: every sentence once, in order, with the right partner."""

from __future__ import annotations

import pytest

from core.bench_diff import align
from core.completions import sentences

PAIRS = [
    ("", "Rest."),
    ("Call 120 now. Do not eat.", "Call 120 now. Do not eat."),
    ("胸痛伴大汗。请立即拨打120。不要自行服药。", "请马上拨打120。可以先喝水。不要自行服药。"),
    ("One. Two. Three.", "Three. Two. One."),
    ("- Rest\n- Drink water\n", "Drink plenty of water.\nRest!"),
]


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_every_sentence_stands_once_and_in_order(left: str, right: str) -> None:
    lines = align(left, right)
    assert [line.left for line in lines if line.left is not None] == list(range(len(sentences(left))))
    assert [line.right for line in lines if line.right is not None] == list(range(len(sentences(right))))
    for line in lines:
        assert (line.left is None, line.right is None) == {"left": (False, True), "right": (True, False)}.get(line.kind, (False, False))


def test_chinese_sentences_find_their_partner() -> None:
    kinds = [(line.kind, line.left, line.right) for line in align(*PAIRS[2])]
    assert kinds == [("left", 0, None), ("changed", 1, 0), ("right", None, 1), ("same", 2, 2)]


def test_only_what_differs_is_marked() -> None:
    (line,) = align("Take two tablets a day.", "Take one tablet a day.")
    assert "".join(text for text, _ in line.left_pieces) == "Take two tablets a day."
    assert {text.strip() for text, is_new in line.right_pieces if is_new} == {"one", "tablet"}


def test_spaces_case_and_end_marks_are_no_difference() -> None:
    assert [line.kind for line in align("Drink  water!", "drink water.")] == ["same"]
