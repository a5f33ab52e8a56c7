"""The bench against the real model server: a base and its adapter answer one question together."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from core.bench_stream import Frame, stream_pair
from core.errors import UserError
from core.home import open_home
from core.model_client import server_is_up, stream_chat
from core.preference import Decoding, open_pair
from core.records import Message
from db.engine import write_session
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
