"""The model server over real HTTP: streams, adapters, tokens, refusals, leaving clients."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from core.home import Home
from core.models import folder_hash, register_version
from core.policy import Policy
from core.records import Message
from core.serving.token import server_token
from db.engine import write_session
from tests.serving.conftest import Server
from tests.serving.tiny import ADAPTER_ANSWER, BASE_ANSWER, QUESTION

CHAT = "/v1/chat/completions"


def body(model: str = "tiny-base", **values: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 120, **values}


def read_stream(client: httpx.Client, request: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """The text pieces and all events of one streamed answer."""
    events = []
    with client.stream("POST", CHAT, json={**request, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                events.append(json.loads(line[6:]))
    pieces = [e["choices"][0]["delta"].get("content", "") for e in events if e.get("choices")]
    return [p for p in pieces if p], events


def wait_until(condition: Any, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_answers_before_a_model_is_loaded(server: Server) -> None:
    with server.client() as client:
        names = {m["id"]: m for m in client.get("/v1/models").json()["data"]}
    assert names["tiny-lora"]["consilium"]["is_toy"] is True
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libtorch" not in maps, "health and the model list must not load torch"


def test_whole_answer_says_whose_words_it_is(server: Server) -> None:
    with server.client() as client:
        answer = client.post(CHAT, json=body("tiny-lora", seed=3)).json()
    assert answer["choices"][0]["message"]["content"] == ADAPTER_ANSWER
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == len(ADAPTER_ANSWER.encode()) + 1
    assert answer["consilium"]["version"] == "tiny-lora"
    assert answer["consilium"]["is_toy"] is True
    assert answer["consilium"]["seed"] == 3
    assert len(answer["consilium"]["content_hash"]) == 64


def test_an_expander_does_not_throw_the_answering_model_out(server: Server) -> None:
    """Ask needs both at the same moment, and they have different bases."""
    with write_session() as session:
        path = server.home.models / "base"
        register_version(
            session, name="tiny-expander", kind="base", path=server.home.relative(path), is_toy=True, content_hash=folder_hash(path),
            task="expansion",
        )  # fmt: skip
    with server.client() as client, client.stream("POST", CHAT, json=body("tiny-endless", max_tokens=30_000, stream=True)) as long:
        lines = long.iter_lines()
        next(lines)
        written = client.post(CHAT, json=body("tiny-expander")).json()["choices"][0]["message"]["content"]
        health = server.health()
        assert written == BASE_ANSWER
        assert health["num_running"] == 1, "the long answer goes on meanwhile"
        assert str(health["base"]).endswith("endless")
        assert str(health["expanding"]["base"]).endswith("base")  # type: ignore[index]
    wait_until(lambda: server.health()["num_running"] == 0)


def test_stream_never_shows_half_a_character(server: Server) -> None:
    with server.client() as client:
        pieces, events = read_stream(client, body(stream_options={"include_usage": True}))
    assert "".join(pieces) == BASE_ANSWER
    assert len(pieces) >= len(BASE_ANSWER) - 1, "text must come as it is written, not at the end"
    assert not any("\ufffd" in piece for piece in pieces)
    assert events[-1]["usage"]["completion_tokens"] > 0
    assert events[-2]["choices"][0]["finish_reason"] == "stop"


def test_answer_cut_inside_a_character_ends_before_it(server: Server) -> None:
    with server.client() as client:
        answer = client.post(CHAT, json=body(max_tokens=4)).json()["choices"][0]
    assert (answer["message"]["content"], answer["finish_reason"]) == ("胸", "length")


def test_eight_streams_at_once_with_two_adapters(server: Server) -> None:
    def ask(number: int) -> str:
        model = "tiny-lora" if number % 2 else "tiny-base"
        with server.client() as client:
            pieces, events = read_stream(client, body(model))
        assert events[0]["consilium"]["version"] == model
        return "".join(pieces)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert answers == [BASE_ANSWER, ADAPTER_ANSWER] * 4


def test_requests_share_their_steps(server: Server) -> None:
    """Eight answers together must cost clearly less than eight times one."""
    request = body(temperature=1.5, max_tokens=100, seed=1)
    with server.client() as client:
        client.post(CHAT, json=request)
        started = time.perf_counter()
        client.post(CHAT, json=request)
        alone = time.perf_counter() - started
        started = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda seed: client.post(CHAT, json={**request, "seed": seed}), range(8)))
        together = time.perf_counter() - started
    assert together < 6 * alone, f"{together:.2f} s for eight, {alone:.2f} s for one"


def test_same_seed_same_answer_as_in_training(server: Server) -> None:
    """Alone, among others and through Policy.generate: one seed, one answer."""
    request = body(temperature=1.8, seed=11, max_tokens=40)
    with server.client() as client:
        alone = client.post(CHAT, json=request).json()["choices"][0]["message"]["content"]
        with ThreadPoolExecutor(4) as pool:
            others = [{**request, "seed": 11 + i % 2, "max_tokens": 40 + i} for i in range(4)]
            among = [r.json()["choices"][0]["message"]["content"] for r in pool.map(lambda r: client.post(CHAT, json=r), others)]
    policy = Policy.load(server.home, str(server.home.models / "base"), "cpu")
    [expected] = policy.generate([[Message("user", QUESTION)]], adapter=None, temperature=1.8, max_new_tokens=40, seed=11)
    assert alone == expected.text.rstrip("\ufffd")
    assert among[0] == alone
    assert among[1] != alone


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_leaving_client_frees_its_row(server: Server, is_stream: bool) -> None:
    request = body("tiny-endless", max_tokens=30_000, stream=is_stream)
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        if is_stream:
            with client.stream("POST", CHAT, json=request) as response:
                lines = response.iter_lines()  # held: httpx closes the connection with the iterator
                next(lines)
                assert server.health()["num_running"] == 1
        else:
            waiting = pool.submit(client.post, CHAT, json=request, timeout=httpx.Timeout(30, read=3))
            wait_until(lambda: server.health()["num_running"] == 1)
            with pytest.raises(httpx.ReadTimeout):
                waiting.result()
        wait_until(lambda: server.health()["num_running"] == 0, 5)


def test_another_base_waits_for_the_running_answers(server: Server) -> None:
    """Only one base is in memory: the second request is answered after the first, and by the right weights."""
    with server.client() as client, client.stream("POST", CHAT, json=body("tiny-endless", max_tokens=300, stream=True)) as response:
        lines = response.iter_lines()
        next(lines)
        with ThreadPoolExecutor(1) as pool, server.client() as other:
            second = pool.submit(other.post, CHAT, json=body("tiny-lora"))
            assert any('"length"' in line for line in lines)
            assert second.result().json()["choices"][0]["message"]["content"] == ADAPTER_ANSWER
    assert str(server.health()["base"]).endswith("models/base")


@pytest.mark.parametrize(
    ("request_body", "status", "code"),
    [
        (body("no-such"), 404, "models.no_such_version"),
        (body(messages=[]), 400, "serving.bad_request"),
        (body(temperature=9), 400, "serving.bad_request"),
        (body(top_p=0.5), 400, "serving.unsupported"),
        (body(max_tokens=5000), 400, "serving.too_long"),
    ],
)
def test_refusals_are_sentences(server: Server, request_body: dict[str, Any], status: int, code: str) -> None:
    with server.client() as client:
        for is_stream in (False, True):
            response = client.post(CHAT, json={**request_body, "stream": is_stream})
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (status, code)
            assert error["message"].endswith(".")
            assert error["message_zh"].endswith("。")


def test_a_wrong_token_is_refused_everywhere(server: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer 错"}):
        raw = [(k.encode(), v.encode()) for k, v in headers.items()]
        for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("POST", "/admin/unload")):
            response = httpx.request(method, server.url + path, headers=raw, json=body() if path == CHAT else None, trust_env=False)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "serving.bad_token"


def test_the_openai_client_understands_it(server: Server) -> None:
    http = httpx.Client(trust_env=False)
    with openai.OpenAI(base_url=server.url + "/v1", api_key=server_token(server.home), http_client=http, max_retries=0) as client:
        stream = client.chat.completions.create(
            model="tiny-lora", messages=[{"role": "user", "content": QUESTION}], temperature=0, stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == ADAPTER_ANSWER
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "?"}])


def test_unload_frees_and_the_next_request_loads(server: Server) -> None:
    with server.client() as client:
        assert client.post(CHAT, json=body()).status_code == 200
        assert server.health()["is_loaded"] is True
        assert client.post("/admin/unload").status_code == 202
        wait_until(lambda: server.health()["is_loaded"] is False)
        assert client.post(CHAT, json=body()).json()["choices"][0]["message"]["content"] == BASE_ANSWER


def test_the_token_is_made_once_and_private(home: Home) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: server_token(home), range(8)))
    assert len(tokens) == 1
    assert stat.S_IMODE((home.root / "secrets.json").stat().st_mode) == 0o600


def test_kill_leaves_nothing_behind(server: Server) -> None:
    """Last in this module: a server killed hard can be started again on the same port."""
    from tests.serving.conftest import start_server

    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(10)
    environ = {
        "CONSILIUM_HOME": str(server.home.root),
        "CONSILIUM_MODEL_SERVER_PORT": str(server.home.settings.model_server_port),
        "CONSILIUM_DEVICE": "cpu",
    }
    again = start_server(server.home, server.home.settings, environ)
    again.process.terminate()
    assert again.process.wait(20) == 0
