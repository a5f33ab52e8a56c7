"""The bench against the real model server: a base and its adapter answer together, and who stops or leaves ends the work."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
from sqlalchemy import select

from core import bench_sides
from core.bench_stream import Frame, stream_pair
from core.errors import UserError
from core.home import open_home
from core.model_client import server_is_up, stream_chat
from core.preference import Decoding, open_pair
from core.records import Message
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from tests.serving.conftest import Server
from tests.serving.tiny import ADAPTER_ANSWER, BASE_ANSWER, OTHER_QUESTION, QUESTION


def test_a_base_and_its_adapter_answer_together(server: Server) -> None:
    open_home(server.home.settings)
    assert server_is_up()
    assert "".join(stream_chat("tiny-base", [Message("user", QUESTION)], temperature=0)) == BASE_ANSWER
    with pytest.raises(UserError, match="too_long"):
        list(stream_chat("tiny-base", [Message("user", QUESTION)], max_new_tokens=30_000))
    assert "".join(stream_chat("tiny-lora", [Message("user", OTHER_QUESTION)], temperature=0)) == ADAPTER_ANSWER
    with write_session() as session:
        user = factories.user(session, "product").id
        sample = factories.sample(session, OTHER_QUESTION, language="zh").id
    decoding = Decoding(0.0, 1)
    pair = open_pair(user, "tiny-lora", "tiny-base", sample, mode="open", decoding=decoding)

    async def collect() -> list[Frame]:
        async with aclosing(stream_pair(user, pair, decoding)) as frames:
            return [frame async for frame in frames]

    last = asyncio.run(collect())[-1]
    assert last.state == "ready"
    assert (last.left.thinking, last.left.answer) == ("红旗征象", "头痛突发，请马上去急诊。")
    assert last.right.answer
    assert last.left.error is None
    assert last.right.error is None


ENDLESS = Decoding(0.0, 1, 20_000)


def wait_for(server: Server, num_running: int, seconds: float = 15) -> float:
    """Seconds until the server runs so many answers."""
    started = time.monotonic()
    while server.health()["num_running"] != num_running:
        assert time.monotonic() - started < seconds, server.health()
        time.sleep(0.05)
    return time.monotonic() - started


def test_a_closed_stream_ends_both_answers_on_the_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    open_home(server.home.settings)
    monkeypatch.setattr(bench_sides, "passages", lambda *_, **__: [])  # nothing found: the same question to both sides
    with write_session() as session:
        user = factories.user(session, "product").id
        sample = factories.sample(session, QUESTION, language="zh").id
    pair = open_pair(user, "tiny-endless", "tiny-endless", sample, mode="blind", decoding=ENDLESS, second_with_evidence=True)

    def ask_too_much() -> None:
        with pytest.raises(UserError, match="too_long"):
            list(stream_chat("tiny-endless", [Message("user", QUESTION * 12_000)], max_new_tokens=30_000))

    async def watch_and_leave() -> None:
        async with aclosing(stream_pair(user, pair, ENDLESS)) as frames:
            async for frame in frames:
                if frame.left.answer and frame.right.answer:
                    await asyncio.to_thread(wait_for, server, 2)
                    await asyncio.to_thread(ask_too_much)
                    await asyncio.to_thread(wait_for, server, 2)  # somebody else's long question is nobody's loss
                    return

    asyncio.run(watch_and_leave())
    assert wait_for(server, 0) < 5
    with read_session() as session:
        row = session.scalars(select(t.BenchPair).where(t.BenchPair.id == pair.id)).one()
    assert (row.status, row.void_reason) == ("void", "left")
