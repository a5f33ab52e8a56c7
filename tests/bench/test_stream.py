"""Both answers in one flow: together, at one pace when blind, honest about failures, and gone when the reader goes."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
from sqlalchemy import select

from core.bench_stream import Frame, stream_pair
from core.errors import UserError
from core.notices import Notice
from core.preference import Mode, Pair, open_pair
from core.standings import standings
from db import tables as t
from db.engine import read_session
from tests.bench.conftest import DECODING, Bench


def run(bench: Bench, first: str, second: str, mode: Mode = "blind") -> tuple[Pair, list[Frame]]:
    pair = open_pair(bench.product, first, second, bench.sample, mode=mode, decoding=DECODING)

    async def collect() -> list[Frame]:
        async with aclosing(stream_pair(bench.product, pair, DECODING)) as frames:
            return [frame async for frame in frames]

    return pair, asyncio.run(collect())


def stored(pair: Pair) -> t.BenchPair:
    with read_session() as session:
        return session.get_one(t.BenchPair, pair.id)


def test_both_sides_advance_together(bench: Bench) -> None:
    bench.endpoint.piece_s = 0.04
    pair, frames = run(bench, bench.first, bench.second, "open")
    both = [f for f in frames if f.left.answer and f.right.answer and f.state == "streaming" and not (f.left.is_done or f.right.is_done)]
    assert len(both) >= 3
    assert frames[-1].state == "ready"
    assert stored(pair).status == "ready"


def test_updates_are_throttled(bench: Bench) -> None:
    bench.endpoint.piece_s = 0.005
    started = time.monotonic()
    _, frames = run(bench, bench.first, bench.second)
    assert len(frames) <= (time.monotonic() - started) / 0.08 + 2


def test_a_blind_flow_holds_no_name_no_thinking_no_time_and_one_pace(bench: Bench) -> None:
    slow = bench.add("slow-1")
    pair, frames = run(bench, slow, bench.first)
    fast_left = pair.left == bench.first
    for frame in frames:
        shown = repr(frame)
        for secret in (slow, bench.first, "secret-of-good", "Secret step"):
            assert secret not in shown
        assert frame.left.seconds is None
        assert frame.right.seconds is None
        assert frame.left.is_done == frame.right.is_done
        fast, behind = (frame.left, frame.right) if fast_left else (frame.right, frame.left)
        if not frame.left.is_done:
            assert len(fast.answer) <= len(behind.answer)
    assert len({len(f.left.answer) for f in frames}) > 3


def test_an_open_flow_shows_thinking_and_times(bench: Bench) -> None:
    _, frames = run(bench, bench.first, bench.second, "open")
    assert frames[-1].left.thinking == "secret-of-good"
    assert (frames[-1].right.seconds or 0) > 0


def test_notices_say_what_the_rules_saw(bench: Bench) -> None:
    _, frames = run(bench, bench.first, bench.second, "open")
    good, bad = frames[-1].left.notices, frames[-1].right.notices
    assert [(n.kind, n.level) for n in good] == [("emergency_present", "good")]
    assert good[0].places == (2,)
    assert [(n.kind, n.level) for n in bad] == [("emergency_missing", "bad"), ("prescription", "bad")]
    assert Notice("cut_off", "warn") not in bad


@pytest.mark.parametrize("model", ["down", "cut", "empty", "busy"])
@pytest.mark.parametrize("mode", ["blind", "open"])
def test_a_failed_side_is_shown_as_such_and_the_pair_is_void(bench: Bench, model: str, mode: Mode) -> None:
    pair, frames = run(bench, bench.first, bench.add(model), mode)
    last = frames[-1]
    failed, other = (last.left, last.right) if pair.left == model else (last.right, last.left)
    assert last.state == "void"
    assert isinstance(failed.error, UserError)
    assert other.error is None
    assert "heart attack" in other.answer
    row = stored(pair)
    assert (row.status, row.void_reason) == ("void", failed.error.code)
    assert standings(bench.product, bench.first, model).num_votes == 0


def test_closing_the_flow_closes_both_connections_and_voids_the_pair(bench: Bench) -> None:
    pair = open_pair(bench.product, bench.add("hang-1"), bench.add("hang-2"), bench.sample, mode="blind", decoding=DECODING)

    async def leave() -> None:
        async with aclosing(stream_pair(bench.product, pair, DECODING)) as frames:
            async for frame in frames:
                if frame.left.answer:
                    return

    asyncio.run(leave())
    deadline = time.monotonic() + 5
    while bench.endpoint.num_closed < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert bench.endpoint.num_closed == 2
    row = stored(pair)
    assert (row.status, row.void_reason) == ("void", "left")


def test_the_answers_that_were_shown_are_the_answers_that_are_stored(bench: Bench) -> None:
    pair, frames = run(bench, bench.first, bench.second)
    with read_session() as session:
        row = session.get_one(t.BenchPair, pair.id)
        left = session.get_one(t.Completion, row.left_completion_id)
        right = session.get_one(t.Completion, row.right_completion_id)
        names = {v.id: v.name for v in session.scalars(select(t.ModelVersion))}
    assert (left.answer, right.answer) == (frames[-1].left.answer, frames[-1].right.answer)
    assert (names[left.model_version_id or 0], names[right.model_version_id or 0]) == (pair.left, pair.right)
    assert row.decoding["temperature"] == DECODING.temperature
    assert row.decoding["left_s"] > 0
