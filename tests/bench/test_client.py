"""The model client over real HTTP: text, thinking, keys, and one sentence for every fault."""

from __future__ import annotations

import pytest

from core.errors import NotFound, Unavailable, UserError
from core.home import Home
from core.i18n import error_text
from core.model_client import server_is_up, stream_chat
from core.records import Message
from core.serving.token import server_token
from db.engine import write_session
from tests import factories
from tests.bench.conftest import Bench
from tests.bench.fake_endpoint import ANSWERS, FakeEndpoint, serving

QUESTION = (Message("user", "Chest pain?"),)


def ask(name: str, **values: object) -> str:
    return "".join(stream_chat(name, QUESTION, **values))  # type: ignore[arg-type]


def test_text_arrives_whole_and_in_pieces(bench: Bench) -> None:
    pieces = list(stream_chat(bench.first, QUESTION, temperature=0.5, seed=3, max_new_tokens=99))
    assert len(pieces) > 10
    assert "".join(pieces) == ANSWERS[bench.first]
    call = bench.endpoint.calls[-1]
    assert call["messages"] == [{"role": "user", "content": "Chest pain?"}]
    assert (call["model"], call["temperature"], call["seed"], call["max_tokens"], call["stream"]) == (bench.first, 0.5, 3, 99, True)


def test_reasoning_that_an_endpoint_sends_apart_becomes_thinking(bench: Bench) -> None:
    assert ask(bench.add("reasoner")) == "<think>first, then</think>\nDrink water."


@pytest.mark.parametrize(
    ("model", "code"),
    [("down", "bench.endpoint_error"), ("busy", "bench.server_busy"), ("gone", "bench.weights_missing"), ("cut", "bench.broken_stream")],
)
def test_faults_are_sentences_that_name_no_version(bench: Bench, model: str, code: str) -> None:
    bench.add(model)
    with pytest.raises(Unavailable) as caught:
        ask(model)
    assert caught.value.code == code
    for language in ("en", "zh"):
        text = error_text(caught.value, language)
        assert text != code
        assert model not in text.split()
        assert "secret trace" not in text


def test_nobody_at_the_address(bench: Bench) -> None:
    bench.add("alone")
    bench.endpoint.server.shutdown()
    bench.endpoint.server.server_close()
    with pytest.raises(Unavailable, match="server_down"):
        ask("alone")


def test_a_version_that_does_not_exist(bench: Bench) -> None:
    with pytest.raises(NotFound, match="no_such_version"):
        ask("nobody")


def test_a_key_is_read_from_its_variable_at_the_call_and_its_lack_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("sk-right") as closed:
        with write_session() as session:
            values = {"endpoint_url": closed.base, "endpoint_model": "m", "manifest": {"key_variable": "BENCH_API_KEY"}}
            factories.version(session, "external", name="keyed", **values)
        with pytest.raises(UserError, match="key_missing"):
            ask("keyed")
        assert not closed.calls
        monkeypatch.setenv("BENCH_API_KEY", "sk-wrong")
        with pytest.raises(Unavailable, match="endpoint_refused"):
            ask("keyed")
        monkeypatch.setenv("BENCH_API_KEY", "sk-right")
        assert "Rest at home" in ask("keyed")


def test_local_versions_are_asked_at_the_model_server_with_its_token(
    home: Home, monkeypatch: pytest.MonkeyPatch, local_server: FakeEndpoint
) -> None:
    with write_session() as session:
        factories.version(session, "sft", name="good-1")
    assert server_is_up()
    assert ask("good-1") == ANSWERS["good-1"]
    assert local_server.keys[-1] == f"Bearer {server_token(home)}"
    local_server.server.shutdown()
    local_server.server.server_close()
    assert not server_is_up()
    with pytest.raises(Unavailable, match="server_down"):
        ask("good-1")
