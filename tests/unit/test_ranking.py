"""Bradley-Terry against published estimates, a closed form, and planted strengths with a planted liking for length."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.ranking import Battle, fit, rank

#: American League East 1987, wins of the home team and of the guest (Agresti, Categorical Data Analysis, 2nd edition, table 10.10)
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
HOME_GAMES = {
    "Milwaukee": ((4, 3), (4, 2), (4, 3), (6, 1), (4, 2), (6, 0)),
    "Detroit": ((3, 3), (4, 2), (4, 3), (6, 0), (6, 1), (4, 3)),
    "Toronto": ((2, 5), (4, 3), (2, 4), (4, 3), (4, 2), (6, 0)),
    "New York": ((3, 3), (5, 1), (2, 5), (4, 3), (4, 2), (6, 1)),
    "Boston": ((5, 1), (2, 5), (3, 3), (4, 2), (5, 2), (6, 0)),
    "Cleveland": ((2, 5), (3, 3), (3, 4), (4, 3), (4, 2), (2, 4)),
    "Baltimore": ((2, 5), (1, 5), (1, 6), (2, 4), (1, 6), (3, 4)),
}
#: estimates against Baltimore, without and with the home advantage, as the R package BradleyTerry2 prints them for these data
PUBLISHED = {"Boston": 1.1077, "Cleveland": 0.6839, "Detroit": 1.4364, "Milwaukee": 1.5814, "New York": 1.2476, "Toronto": 1.2945}
WITH_HOME = {"Boston": 1.1438, "Cleveland": 0.7047, "Detroit": 1.4754, "Milwaukee": 1.6196, "New York": 1.2813, "Toronto": 1.3271}
HOME = 0.3023


@pytest.mark.parametrize(("with_home", "published"), [(False, PUBLISHED), (True, WITH_HOME)])
def test_the_baseball_example(with_home: bool, published: dict[str, float]) -> None:
    rows, won, weights = [], [], []
    for home, games in HOME_GAMES.items():
        for guest, (wins, losses) in zip([team for team in TEAMS if team != home], games, strict=True):
            row = [float(team == home) - float(team == guest) for team in TEAMS] + [1.0] * with_home
            rows += [row, row]
            won += [1.0, 0.0]
            weights += [wins, losses]
    found = fit(np.array(rows), np.array(won), np.array(weights, dtype=float), len(TEAMS), prior=0.0)
    strengths = dict(zip(TEAMS, found, strict=False))
    for team, value in published.items():
        assert strengths[team] - strengths["Baltimore"] == pytest.approx(value, abs=6e-5)
    if with_home:
        assert found[-1] == pytest.approx(HOME, abs=6e-5)


def test_two_versions_are_the_log_odds_of_the_share_with_ties_as_half() -> None:
    battles = [Battle("a", "b", 1.0)] * 30 + [Battle("b", "a", 1.0)] * 10 + [Battle("a", "b", 0.5)] * 20
    design = np.array([[1.0, -1.0] if b.left == "a" else [-1.0, 1.0] for b in battles])
    found = fit(design, np.array([b.won for b in battles]), np.ones(60), 2, prior=0.0)
    assert found[0] - found[1] == pytest.approx(math.log(40 / 20))
    assert found.sum() == pytest.approx(0.0, abs=1e-9)


def simulate(seed: int, num: int = 1200) -> list[Battle]:
    """a and b are equally good and b writes longer; c is worse. Voters like length."""
    rng = np.random.default_rng(seed)
    strength, length = {"a": 0.4, "b": 0.4, "c": -0.8}, {"a": 0.0, "b": 1.2, "c": 0.0}
    battles = []
    for i in range(num):
        left, right = rng.choice(["a", "b", "c"], 2, replace=False)
        longer = length[left] - length[right] + rng.normal(0, 0.8)
        chance = 1 / (1 + math.exp(-(strength[left] - strength[right] + 0.9 * longer)))
        battles.append(Battle(str(left), str(right), float(rng.random() < chance), question=i % 200, voter=i % 12, style=(longer,)))
    return battles


def test_style_control_takes_away_what_length_won() -> None:
    battles = simulate(1)
    raw = {s.name: s for s in rank(battles, with_style=False, resamples=0).standings}
    found = rank(battles, with_style=True, resamples=60)
    held = {s.name: s for s in found.standings}
    assert raw["b"].strength - raw["a"].strength > 0.6
    assert abs(held["b"].strength - held["a"].strength) < 0.35
    effect, low, high = found.effects[0]
    assert low < 0.9 < high
    assert low < effect < high
    assert found.is_connected


def test_intervals_cover_planted_strengths() -> None:
    hits = 0
    for seed in range(25):
        found = {s.name: s for s in rank(simulate(seed, 400), with_style=True, resamples=50, seed=seed).standings}
        hits += found["c"].low <= -0.8 <= found["c"].high
    assert hits >= 20


def test_few_votes_and_strangers_are_told() -> None:
    assert rank([], with_style=True).standings == ()
    found = rank([Battle("a", "b", 1.0), Battle("c", "d", 1.0)], with_style=False, resamples=20)
    assert not found.is_connected
    assert all(math.isfinite(x) for s in found.standings for x in (s.strength, s.low, s.high))
