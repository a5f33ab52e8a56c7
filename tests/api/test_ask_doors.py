"""One question through every door: the API, the chat endpoint, the command line and a real MCP client find the same passages."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from core.ask import ask
from core.evidence import passages
from core.home import Home
from core.settings import ROOT
from db import tables as t
from db.engine import read_session
from training.index import run_index
from training.run import Run

QUESTION = "急性青光眼有哪些危险信号？"
Bearer = Callable[[str], dict[str, str]]


@pytest.fixture
def indexed(client: TestClient, home: Home) -> Home:
    directory = home.run_dir(1)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({}))
    run_index(Run(directory, 0, home))
    return home


def places(contexts: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    return [(c["rank"], c["file"], c["content_hash"]) for c in contexts]


def environment(home: Home) -> dict[str, str]:
    import os

    return {**os.environ, "CONSILIUM_HOME": str(home.root), "CONSILIUM_LANGUAGE": "en", "CONSILIUM_MODEL_SERVER_PORT": "9"}


async def through_mcp(home: Home) -> tuple[list[str], dict[str, Any], dict[str, Any], Any]:
    from mcp import Client, StdioServerParameters

    server = StdioServerParameters(command=sys.executable, args=["-m", "app", "mcp"], env=environment(home), cwd=str(ROOT))
    async with Client(server, read_timeout_seconds=60) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        asked = await client.call_tool("ask", {"query": QUESTION})
        found = await client.call_tool("search", {"query": QUESTION})
        refused = await client.call_tool("ask", {"query": " "})
    assert asked.structured_content is not None
    assert found.structured_content is not None
    return tools, asked.structured_content, found.structured_content, refused


def test_every_door_gives_the_same_passages(indexed: Home, client: TestClient, bearer: Bearer) -> None:
    shown = [(c.rank, c.file, c.content_hash) for c in ask(QUESTION, user_id=None, channel="page").contexts]
    assert len(shown) == 5
    headers = bearer("clinician")
    answer = client.post("/api/ask", json={"query": QUESTION}, headers=headers).json()
    assert places(answer["contexts"]) == shown
    assert {"query", "pseudo_doc", "contexts", "answer"} <= set(answer)
    chat = client.post("/api/v1/chat/completions", json={"messages": [{"role": "user", "content": QUESTION}]}, headers=headers).json()
    assert places(chat["contexts"]) == shown
    assert chat["choices"][0]["message"]["content"] == answer["answer"]
    assert [p.content_hash for p in passages(QUESTION)] == [h for _, _, h in shown]
    tools, asked, found, refused = asyncio.run(through_mcp(indexed))
    assert sorted(tools) == ["ask", "search"]
    assert places(asked["contexts"]) == places(found["contexts"]) == shown
    assert asked["answer"] == answer["answer"]
    assert refused.is_error
    assert "empty" in refused.content[0].text
    command = [sys.executable, "-m", "app", "ask", QUESTION]
    printed = subprocess.run(command, cwd=ROOT, env=environment(indexed), check=True, capture_output=True, text=True, timeout=120)
    assert places(json.loads(printed.stdout)["contexts"]) == shown
    with read_session() as session:
        assert [e.channel for e in session.scalars(select(t.AskEvent).order_by(t.AskEvent.id))] == [
            "page",
            "api",
            "chat",
            "mcp",
            "mcp",
            "cli",
        ]


def test_a_stream_brings_role_answer_citations_and_its_end(indexed: Home, client: TestClient, bearer: Bearer) -> None:
    body = {"model": "consilium-ask", "stream": True, "messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]}
    lines = client.post("/api/v1/chat/completions", json=body, headers=bearer("engineer")).text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    text = "".join(e["choices"][0]["delta"].get("content", "") for e in events)
    assert "立即拨打120" in text
    last = events[-1]
    assert last["choices"][0]["finish_reason"] == "stop"
    for note in last["choices"][0]["delta"]["annotations"]:
        cited = note["file_citation"]
        assert text[cited["start_index"] : cited["end_index"]].startswith("[")
    assert len(last["citations"]) == 5
    empty = client.post(
        "/api/v1/chat/completions", json=body | {"messages": [{"role": "system", "content": "x"}]}, headers=bearer("product")
    )
    assert "ask.empty_question" in empty.text


def test_what_a_stage_does_can_be_seen_and_switched_off(indexed: Home, client: TestClient, bearer: Bearer) -> None:
    headers = bearer("engineer")
    full = client.post("/api/ask", json={"query": QUESTION, "explain": True}, headers=headers).json()
    assert set(full["explained"]["stages"]) == {"lexical:glossary", "fused"}
    assert full["contexts"][0]["stages"]["fused"][0] == 1
    assert full["contexts"][0]["why"][0]["via"] == "glossary"
    plain = client.post("/api/ask", json={"query": QUESTION, "explain": True, "plan": {"glossary": 0}}, headers=headers).json()
    assert set(plain["explained"]["stages"]) == {"lexical:question", "fused"}
    assert plain["explained"]["plan"] == {"glossary": 0.0}
    wrong = client.post("/api/ask", json={"query": QUESTION, "plan": {"glossary": "much"}}, headers=headers)
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (422, "ask.bad_plan") or wrong.status_code == 400
    unknown = client.post(
        "/api/v1/chat/completions", json={"model": "gpt", "messages": [{"role": "user", "content": "x"}]}, headers=headers
    )
    assert unknown.status_code == 404
    assert client.get("/api/v1/models", headers=headers).json()["data"][0]["id"] == "consilium-ask"
    assert client.post("/api/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]}).status_code == 401


def test_only_the_person_who_asked_may_judge(indexed: Home, client: TestClient, bearer: Bearer) -> None:
    mine, other = bearer("clinician"), bearer("product")
    event = client.post("/api/ask", json={"query": QUESTION}, headers=mine).json()["event_id"]
    address = f"/api/ask/{event}/feedback"
    assert client.post(address, json={"kind": "up"}, headers=mine).status_code == 200
    assert client.post(address, json={"kind": "helped", "rank": 2}, headers=mine).status_code == 200
    assert client.post(address, json={"kind": "up"}, headers=other).status_code == 403
    assert client.post(address, json={"kind": "helped"}, headers=mine).status_code >= 400
    assert client.post(address, json={"kind": "up", "rank": 1}, headers=mine).status_code >= 400
    assert client.post(address, json={"kind": "helped", "rank": 20}, headers=mine).json()["error"]["code"] == "ask.no_such_passage"
    assert client.post("/api/ask/999/feedback", json={"kind": "up"}, headers=mine).status_code == 404
    with read_session() as session:
        rows = list(session.scalars(select(t.AskFeedback).order_by(t.AskFeedback.id)))
        shown = session.get_one(t.AskEvent, event).contexts
    assert [(r.kind, r.rank) for r in rows] == [("up", None), ("helped", 2)]
    assert rows[1].parent == shown[1]["parent"]
    assert rows[1].after_ms is not None
    assert rows[1].after_ms >= 0
