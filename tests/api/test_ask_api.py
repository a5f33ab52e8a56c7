"""POST /api/ask over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable

from starlette.testclient import TestClient

from core.home import current_home
from training.index import run_index
from training.run import Run


def build_index() -> None:
    home = current_home()
    directory = home.run_dir(1)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps({}))
    run_index(Run(directory, 0, home))


def test_question_to_passages_to_answer(client: TestClient, bearer: Callable[..., dict[str, str]]) -> None:
    headers = bearer("clinician")
    before = client.post("/api/ask", json={"query": "burn"}, headers=headers)
    assert before.status_code == 404
    assert before.json()["error"]["code"] == "ask.no_index"
    build_index()
    answer = client.post("/api/ask", json={"query": "Which danger signs of a burn need an ambulance?", "top_k": 3}, headers=headers)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert {"query", "pseudo_doc", "contexts", "answer"} <= set(body)
    assert body["answer_kind"] == "extractive"
    assert len(body["contexts"]) == 3
    assert body["contexts"][0]["source"]
    assert "path" not in body["index"]
    assert body["notes"][0].startswith("No model version")


def test_refusals_are_sentences(client: TestClient, bearer: Callable[..., dict[str, str]]) -> None:
    assert client.post("/api/ask", json={"query": "burn"}).status_code == 401
    headers = bearer("product")
    for body, status in (({"query": " "}, 400), ({"query": "x", "top_k": 0}, 422), ({}, 422), ({"query": "x", "model": "nobody"}, 404)):
        if status == 404:
            build_index()
        response = client.post("/api/ask", json=body, headers=headers)
        assert (response.status_code, bool(response.json()["error"]["message"])) == (status, True)
