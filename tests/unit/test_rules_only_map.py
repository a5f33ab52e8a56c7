"""The map that stands in for the teacher during an outage: exact on exact data, silent on too little, never upside down."""

from __future__ import annotations

import random

import numpy as np
import pytest

from core.rewards import MAP_WINDOW, MIN_MAP_ROWS, rules_only_map


def test_an_exact_line_is_found_and_unscored_rows_are_left_out() -> None:
    xs = [i / 100 for i in range(100)]
    rows = [(x, 0.1 + 0.7 * x) for x in xs]
    found = rules_only_map([*rows, (None, 0.9), (0.5, None), (float("nan"), 0.2)])
    assert found is not None
    assert (found.a, found.b, found.n, found.r2) == (pytest.approx(0.1), pytest.approx(0.7), 100, pytest.approx(1.0))
    assert found(0.5) == pytest.approx(0.45)
    a, b, *_ = found
    assert (a, b) == (found.a, found.b)


def test_it_equals_numpys_least_squares_on_noise() -> None:
    rng = random.Random(1)
    rows = [(x, 0.2 + 0.5 * x + rng.gauss(0, 0.1)) for x in (rng.random() for _ in range(200))]
    found = rules_only_map(rows)
    slope, intercept = np.polyfit([x for x, _ in rows], [y for _, y in rows], 1)
    r = np.corrcoef([x for x, _ in rows], [y for _, y in rows])[0, 1]
    assert found is not None
    assert (found.a, found.b, found.r2) == (pytest.approx(intercept), pytest.approx(slope), pytest.approx(r**2))


def test_too_few_rows_give_no_map() -> None:
    rows: list[tuple[float | None, float | None]] = [(i / 100, i / 100) for i in range(MIN_MAP_ROWS - 1)]
    assert rules_only_map(rows) is None
    assert rules_only_map([*rows, (0.5, None)]) is None
    assert rules_only_map([*rows, (0.5, 0.5)]) is not None


def test_only_the_newest_rows_count() -> None:
    old = [(i / 100, 5.0) for i in range(100)]
    new = [(i / MAP_WINDOW, 0.3 + 0.5 * i / MAP_WINDOW) for i in range(MAP_WINDOW)]
    found = rules_only_map(old + new)
    assert found is not None
    assert (found.n, found.b) == (MAP_WINDOW, pytest.approx(0.5))


def test_the_order_of_the_rules_is_never_turned_round() -> None:
    falling = rules_only_map([(i / 100, 1 - i / 100) for i in range(100)])
    assert falling is not None
    assert falling.b == 0.0
    assert falling(0.2) == falling(0.9) == pytest.approx(0.505)
    flat = rules_only_map([(0.5, 0.3)] * 100)
    assert flat is not None
    assert (flat.b, flat(0.5), flat.r2) == (1.0, pytest.approx(0.3), None)
