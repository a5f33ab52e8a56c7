"""Encoders: static vectors in numpy, the packaged MiniLM's limits, an OpenAI-compatible endpoint that is scripted, the registry."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from core.accounts import create_user
from core.errors import NotFound, Unavailable, UserError
from core.home import Home
from core.i18n import error_text
from core.records import Role
from core.retrieval import retrieval_models as registry
from core.retrieval.encoders import check_english, open_encoder
from core.retrieval.static_vectors import VECTORS, StaticVectors, read_static, static_tokens, write_static

KEY = "sk-never-to-be-seen-4711"


class Endpoint(BaseHTTPRequestHandler):
    """Answers by script: each entry is a status, or a function from the request's body to the answer's."""

    script: ClassVar[list[Any]] = []
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        type(self).seen.append({"path": self.path, "key": self.headers.get("authorization"), **body})
        step = type(self).script.pop(0) if type(self).script else vectors
        status, answer = (step, {"error": {"message": f"no {KEY}"}}) if isinstance(step, int) else (200, step(body))
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        if status == 429:
            self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        return


def vectors(body: dict[str, Any]) -> dict[str, Any]:
    """Length and number of spaces of each text, in an order that is not the asked one."""
    width = body.get("dimensions", 3)
    rows = [{"index": i, "embedding": [float(len(text)), 1.0, 0.5, 0.25][:width]} for i, text in enumerate(body["input"])]
    return {"data": rows[::-1]}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Endpoint.script, Endpoint.seen = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("CLINIC_API_KEY", KEY)
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def engineer(home: Home) -> int:
    return create_user("eng", "An engineer", Role.ENGINEER, by=None)


def test_static_vectors_are_written_read_and_mean_what_they_should(home: Home) -> None:
    tokens = ["头痛", "头", "痛", "fever"]
    folder = registry.models_folder(home, "zh-small")
    write_static(folder, tokens, np.eye(4, dtype=np.float32))
    row = registry.register(home, kind="embedding", name="zh-small", form="static", folder=folder)
    encoder = open_encoder("zh-small")
    found = encoder.encode(["头痛", "fever", "完全未知"], is_query=True)
    assert (encoder.hash, encoder.dimension, found.dtype) == (row.content_hash, 4, np.float32)
    assert found[0] == pytest.approx([1 / np.sqrt(3)] * 3 + [0])
    assert found[1] == pytest.approx([0, 0, 0, 1])
    assert found[2] == pytest.approx([0, 0, 0, 0]), "a text without a known token is alike to nothing"
    with pytest.raises(UserError, match="name_taken"):
        registry.check_name("zh-small")
    np.save(folder / VECTORS, np.ones((4, 4), np.float16))
    with pytest.raises(Unavailable, match="weights_changed"):
        open_encoder("zh-small")


def test_a_damaged_static_folder_is_refused(tmp_path: Path) -> None:
    write_static(tmp_path, ["a", "b"], np.ones((2, 8)))
    assert read_static(tmp_path).dimension == 8
    (tmp_path / "vocab.txt").write_text("a\nb\nc")
    np.save(tmp_path / VECTORS, np.ones((2, 8), np.float16))
    with pytest.raises(Unavailable, match="damaged"):
        read_static(tmp_path)


def test_numpy_gives_what_sentence_transformers_trains() -> None:
    from training.static_embedding import as_sentence_transformer, choose_tokens, spaced, untrained_vectors

    texts = ["头痛三天，伴有发热", "糖尿病患者的头痛", "What treats a fever in children?", "Fever in children with diabetes"]
    tokens, idf = choose_tokens(texts, 100)
    assert {"头痛", "fever", "children"} <= set(tokens)
    assert "糖尿" not in tokens, "a token of one text cannot relate texts"
    weights = untrained_vectors(idf, 16, seed=0)
    trained = as_sentence_transformer(tokens, weights).encode(spaced(texts, frozenset(tokens)), normalize_embeddings=True)
    np.testing.assert_allclose(StaticVectors(tokens, weights).encode(texts), trained, atol=1e-5)
    assert static_tokens("头痛") == ["头痛", "头", "痛"]


def test_chinese_for_an_english_model_is_refused_with_a_sentence() -> None:
    check_english("minilm-en", ["What are the symptoms of 糖尿病 (diabetes mellitus type two)?"])
    with pytest.raises(UserError, match="english_only") as refused:
        open_encoder("minilm-en", place="here").encode(["高血压怎么办"], is_query=True)
    assert "Chinese" in error_text(refused.value, "en")
    assert "中文" in error_text(refused.value, "zh")


def test_an_endpoint_answers_in_the_asked_order_and_is_tried_again(home: Home, engineer: int, endpoint: str) -> None:
    registry.add_endpoint(engineer, name="clinic", url=endpoint, model="text-embedding-3-small", key_variable="CLINIC_API_KEY", dimension=2)
    Endpoint.script = [429, 500]
    encoder = open_encoder("clinic")
    found = encoder.encode(["", "abc", "abcdef"], is_query=False)
    assert found.shape == (3, 2)
    assert found[1] == pytest.approx(np.array([3, 1]) / np.sqrt(10))
    assert found[2] == pytest.approx(np.array([6, 1]) / np.sqrt(37))
    assert [one["path"] for one in Endpoint.seen] == ["/v1/embeddings"] * 3
    assert Endpoint.seen[-1]["dimensions"] == 2
    assert Endpoint.seen[-1]["input"][0] == " ", "OpenAI refuses an empty text"
    assert Endpoint.seen[-1]["key"] == f"Bearer {KEY}"
    assert encoder.encode([f"text {i}" for i in range(130)], is_query=False).shape == (130, 2)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ([401], "endpoint_refused"),
        ([404], "endpoint_error"),
        ([lambda body: {"data": [{"index": 0}]}], "endpoint_odd"),
        ([lambda body: {"data": [{"index": 0, "embedding": [1.0, float("nan")]}]}], "endpoint_odd"),
        ([lambda body: {"data": [{"index": 0, "embedding": [1.0] * 5}]}], "wrong_dimension"),
    ],
)
def test_a_fault_of_an_endpoint_is_a_sentence_without_the_key(
    home: Home, engineer: int, endpoint: str, script: list[Any], code: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry.add_endpoint(engineer, name="clinic", url=endpoint, model="m", key_variable="CLINIC_API_KEY", dimension=2)
    Endpoint.script = script
    with caplog.at_level(logging.DEBUG), pytest.raises(Unavailable, match=code) as fault:
        open_encoder("clinic").encode(["x"], is_query=True)
    said = error_text(fault.value, "en") + error_text(fault.value, "zh") + repr(fault.value) + caplog.text
    assert KEY not in said
    assert KEY not in json.dumps(registry.get("clinic").manifest)


def test_an_endpoint_without_its_key_says_which_variable(home: Home, engineer: int, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.add_endpoint(engineer, name="clinic", url=endpoint, model="m", key_variable="CLINIC_API_KEY")
    monkeypatch.delenv("CLINIC_API_KEY")
    with pytest.raises(UserError, match="key_missing") as missing:
        open_encoder("clinic").encode(["x"], is_query=True)
    assert "CLINIC_API_KEY" in error_text(missing.value, "en")
    assert Endpoint.seen == []


def test_a_hosted_embedding_cannot_be_tuned_and_the_sentence_says_what_to_do(home: Home, engineer: int, endpoint: str) -> None:
    from training.embedding import refuse_hosted

    registry.add_endpoint(engineer, name="clinic", url=endpoint, model="text-embedding-3-large", key_variable="")
    for base in ("clinic", "text-embedding-3-small"):
        with pytest.raises(UserError, match="cannot_tune_hosted") as refused:
            refuse_hosted(base)
        said = error_text(refused.value, "en")
        assert "--base static" in said
        assert "train reranker" in said
    with pytest.raises(UserError, match="no_such_base"):
        refuse_hosted("never-heard-of")
    refuse_hosted("static")


def test_what_is_not_there_is_not_found(home: Home) -> None:
    with pytest.raises(NotFound, match="no_such_model"):
        open_encoder("nobody")
    assert registry.listing() == []
