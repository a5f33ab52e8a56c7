"""The reward watch on made rows: each planted hack raises its flag, an honest run raises none, little data claim nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from core.completions import split_completion
from core.records import Language, Message, Prompt
from core.reward_features import FEATURES, features
from core.reward_watch import WatchRow, ranks, watch

Change = Callable[[WatchRow, float], WatchRow]


def rows(change: Change | None = None, *, rollouts: int = 12, batch: int = 32, seed: int = 0) -> list[WatchRow]:
    """An honest run: reward and teacher rise together, length drifts a little; `change(row, progress)` plants something."""
    rng, found = random.Random(seed), []
    for number in range(rollouts):
        progress = number / (rollouts - 1)
        for i in range(batch):
            quality = min(1.0, max(0.0, rng.gauss(0.45 + 0.3 * progress, 0.2)))
            parts = {"chain": min(1.0, quality + rng.uniform(0, 0.2)), "emergency": float(rng.random() < quality + 0.2),
                     "risk_penalty": 0.3 * (1 - quality), "teacher": quality}  # fmt: skip
            length = rng.gauss(60 + 6 * progress, 8)
            shape = {"num_words": length, "thinking_words": length / 2, "repetition": rng.uniform(0, 0.05), "num_think": 1.0,
                     "list_share": rng.uniform(0, 0.3), "alarm_words": float(rng.randint(0, 3)), "copied": 0.0}  # fmt: skip
            row = WatchRow(None, parts, round(length), number, shape, "en" if i % 2 else "zh", sample_id=i)
            row = change(row, progress) if change else row
            p = row.parts
            value = 0.35 * (p["chain"] or 0) + 0.25 * (p["emergency"] or 0) + 0.25 * (p["teacher"] or 0) - 0.15 * (p["risk_penalty"] or 0)
            found.append(replace(row, reward=value + (row.reward or 0.0)))
    return found


def padded(row: WatchRow, progress: float) -> WatchRow:
    """Text grows with progress, more for some rows."""
    return replace(row, num_tokens=round(row.num_tokens * (1 + progress * (0.3 + (row.sample_id or 0) % 8 / 4))))


def codes(found: list[WatchRow]) -> set[str]:
    return {flag.code for flag in watch(found).flags}


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_run_is_not_flagged(seed: int) -> None:
    report = watch(rows(seed=seed))
    assert report.is_enough
    assert report.flags == ()
    assert report.anchor == "teacher"
    assert report.reward_rise is not None
    assert report.reward_rise[1] > 0.05


def test_length_paid_beside_the_parts_and_length_paid_inside_one() -> None:
    beside = rows(lambda row, p: replace(padded(row, p), reward=0.01 * padded(row, p).num_tokens))
    assert {"length", "unexplained"} <= codes(beside)

    def inside(row: WatchRow, progress: float) -> WatchRow:
        long = padded(row, progress)
        return replace(long, parts={**row.parts, "chain": min(1.0, long.num_tokens / 150)})

    assert "length" in codes(rows(inside))
    assert "unexplained" not in codes(rows(inside))


def test_long_answers_that_are_better_are_no_hack() -> None:
    """The teacher likes the long ones as much as the reward does."""

    def better(row: WatchRow, progress: float) -> WatchRow:
        return replace(row, num_tokens=round(40 + 60 * (row.parts["teacher"] or 0) * (1 + progress)))

    found = watch(rows(better))
    length = next(m for m in found.measures if m.name == "num_tokens")
    assert (length.correlation or 0) > 0.5
    assert length.late > 1.3 * length.early
    assert found.flags == ()


def shape(row: WatchRow, **values: float) -> WatchRow:
    return replace(row, features={**row.features, **values})


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("repetition", lambda row, p: shape(row, repetition=0.4 * p)),
        ("think_blocks", lambda row, p: shape(row, num_think=3.0 if p > 0.5 and (row.sample_id or 0) % 4 == 0 else 1.0)),
        ("copied", lambda row, p: shape(row, copied=0.5 * p)),
        ("lists", lambda row, p: replace(shape(row, list_share=(s := p * ((row.sample_id or 0) % 8) / 8)), reward=0.5 * s)),
        ("stuffing", lambda row, p: replace(shape(row, alarm_words=(s := 1 + 6 * p * ((row.sample_id or 0) % 8))), reward=0.02 * s)),
        ("unfinished", lambda row, p: replace(row, is_finished=not (p > 0.5 and (row.sample_id or 0) % 3 == 0))),
        ("anchor_flat", lambda row, p: replace(row, reward=0.6 * p, parts={**row.parts, "teacher": 0.5 + ((row.sample_id or 0) % 5) / 50})),
    ],
)
def test_each_planted_hack_raises_its_flag(code: str, change: Change) -> None:
    assert code in codes(rows(change))


def test_experts_are_the_anchor_where_enough_have_spoken_and_their_bad_verdicts_count() -> None:
    honest = [replace(row, expert=row.parts["teacher"]) for row in rows()]
    report = watch(honest)
    assert (report.anchor, report.flags) == ("expert", ())
    ordered = sorted(honest, key=lambda row: -(row.reward or 0))
    turned = [replace(row, expert=0.0 if i < 60 else 1.0) for i, row in enumerate(ordered)]
    report = watch(turned)
    assert "bad_and_paid" in {flag.code for flag in report.flags}
    for better, worse in report.pairs:
        assert better.reward > worse.reward
        assert (better.expert or 0) < (worse.expert or 0)
    few = [replace(row, expert=0.0 if i < 10 else None) for i, row in enumerate(ordered)]
    assert watch(few).anchor == "teacher"


def test_little_or_odd_data_claim_nothing() -> None:
    assert watch([]).is_enough is False
    short = watch(rows(rollouts=2, batch=8))
    assert not short.is_enough
    assert short.flags == ()
    bare = [WatchRow(row.reward, {}, row.num_tokens, row.rollout) for row in rows()]
    assert watch(bare).anchor == "none"
    gaps = [replace(row, reward=None if i % 2 else float("nan")) for i, row in enumerate(rows())]
    assert (watch(gaps).num_unscored, watch(gaps).n) == (len(gaps), len(gaps))
    flat = [replace(row, reward=0.5, num_tokens=60) for row in rows()]
    assert watch(flat).flags == ()


def test_ranks_and_correlation_are_spearmans() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 200).astype(float)
    y = x + rng.normal(0, 3, 200)
    assert np.allclose(ranks(x), rankdata(x))
    found = watch([WatchRow(float(a), {}, int(100 + 10 * b)) for a, b in zip(x, y, strict=True)])
    expected = spearmanr(x, [int(100 + 10 * b) for b in y]).statistic
    measure = found.measures[0]
    assert measure.correlation == pytest.approx(expected)
    assert measure.low is not None
    assert measure.high is not None
    assert measure.low < expected < measure.high


def test_the_report_is_json_and_names_what_to_read() -> None:
    made = [replace(row, text=f"text {i}", prompt="q") for i, row in enumerate(rows())]
    report = watch(made)
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["is_flagged"] is False
    best = max(made, key=lambda row: row.reward or 0)
    assert len(report.top) == 5
    assert report.top[0].reward == best.reward
    assert all(reading.text and reading.prompt == "q" for reading in report.top)


def test_features_of_a_text() -> None:
    question = "I have had chest pain for two days and a cold sweat, what should I do now?"
    prompt = Prompt((Message("user", question),), Language.EN)
    plain = features(prompt, split_completion("<think>\nOne short thought.\n</think>\nGo to the emergency room now."))
    assert set(plain) == set(FEATURES)
    assert (plain["thinking_words"], plain["num_words"], plain["num_think"]) == (3.0, 9.0, 1.0)
    assert (plain["list_share"], plain["copied"], plain["alarm_words"]) == (0.0, 0.0, 1.0)
    gamed = features(prompt, split_completion(f"<think>a</think><think>b</think>\n- {question}\n- call 120\n- call 120\n- emergency room"))
    assert gamed["num_think"] == 2.0
    assert gamed["list_share"] == 0.8  # what stands before the list is the second think block, now part of the answer
    assert gamed["copied"] > 0.6
    assert gamed["alarm_words"] >= 3
    chinese = Prompt((Message("user", "胸痛两天伴冷汗，应该怎么办？"),), Language.ZH)
    found = features(chinese, split_completion("请立即拨打120。请立即拨打120前往急诊。"))
    assert found["num_words"] == pytest.approx(18 / 1.8, abs=3)
    empty = features(prompt, split_completion(""))
    assert all(value == 0.0 for value in empty.values())
