"""Before the vote nothing that reaches the browser tells who stands where: the frames, every handler's updates, and the session's rows."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import gradio as gr
import pytest

from app import bench_view as view
from app.bench import Bench as Page
from app.bench import build
from core import accounts
from core.bench_stream import stream_pair
from core.errors import Conflicting
from core.preference import Pair, open_pair, reveal
from tests.bench.conftest import DECODING, Bench
from tests.bench.test_page import inside_a_loop, request

SECRETS = ("good-1", "bad-1", "secret-of-good", "secret-of-bad", "Thinking", "evidence")


def streamed(bench: Bench, pair: Pair) -> list[str]:
    """Every piece of HTML of a blind pair, as it goes to the browser."""

    async def collect() -> list[str]:
        found: list[str] = []
        async with aclosing(stream_pair(bench.product, pair, DECODING)) as frames:
            async for frame in frames:
                found += [*view.columns(frame, "en"), view.rows(frame, "en")]
        return found

    return asyncio.run(collect())


def test_no_piece_of_a_blind_pair_names_a_version_its_thinking_its_time_or_its_evidence(bench: Bench, evidence: None) -> None:
    for _ in range(2):
        pair = open_pair(bench.product, bench.first, bench.second, bench.sample, mode="blind", decoding=DECODING, second_with_evidence=True)
        pieces = streamed(bench, pair)
        assert len(pieces) >= 3
        for piece in pieces:
            assert not any(secret in piece for secret in SECRETS)
            assert " s</span>" not in piece.replace("0 s</span>", "") or "writing" in piece  # how long both have been writing, never one
        with pytest.raises(Conflicting, match="vote_first"):
            reveal(bench.product, pair.id)


def test_what_the_handler_sends_before_the_vote_holds_no_secret(bench: Bench) -> None:
    token = accounts.open_session(bench.product, "test", "en")
    person = accounts.person_for_token(token)
    assert person is not None

    def make() -> Page:
        with gr.Blocks(analytics_enabled=False):
            return Page()

    page = inside_a_loop(make)
    question = {"id": bench.sample, "text": "q"}
    asked: tuple[Any, ...] = ("en", "good-1", "bad-1", False, False, "blind", question, "q", 0.2, 7)

    async def run() -> list[dict[Any, Any]]:
        return [update async for update in page.compare(*asked, request(person.session_id))]

    updates = asyncio.run(run())
    shown = [value for update in updates for component, value in update.items() if component not in (page.pair, page.language, page.picked)]
    text = json.dumps(shown, default=str)
    assert "Call 120 now" in text
    assert not any(secret in text for secret in SECRETS)
    assert any(page.pair in update and update[page.pair] for update in updates)


def test_the_pages_own_description_names_no_version(bench: Bench) -> None:
    config = json.dumps(inside_a_loop(build).get_config_file(), default=str)
    assert "good-1" not in config
    assert "bad-1" not in config
