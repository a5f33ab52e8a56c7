"""/v1/embeddings and /v1/rerank: real weights over real HTTP, and how small requests, late ones and answers share a core."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from core.errors import Unavailable, UserError
from core.home import Home
from core.retrieval import model_server_door
from core.retrieval import retrieval_models as registry
from core.retrieval.encoders import MINILM, open_encoder
from core.retrieval.static_vectors import write_static
from core.serving import small_models
from core.serving.small_models import LOT, SmallModels, Work
from tests.serving.conftest import Server


def test_the_packaged_model_speaks_openai_and_is_what_a_job_loads(server: Server) -> None:
    texts = ["What treats asthma?", "An inhaler opens the airways.", "The liver makes bile."]
    with server.client() as client:
        answer = client.post("/v1/embeddings", json={"model": MINILM, "input": texts}).json()
        packed = client.post("/v1/embeddings", json={"model": MINILM, "input": texts[0], "encoding_format": "base64"}).json()
    found = np.array([row["embedding"] for row in answer["data"]])
    assert found.shape == (3, 384)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-4)
    assert found[0] @ found[1] > found[0] @ found[2] + 0.2
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4"), found[0], atol=0.02)
    through = open_encoder(MINILM, place="server")
    np.testing.assert_allclose(through.encode(texts, is_query=True), found, atol=0.02)
    assert answer["consilium"]["content_hash"] == through.hash
    assert server.health()["small_models"]["loaded"] == [MINILM]  # type: ignore[index]


def test_what_cannot_be_encoded_is_said(server: Server) -> None:
    with server.client() as client:
        unknown = client.post("/v1/embeddings", json={"model": "nobody", "input": "x"})
        chinese = client.post("/v1/embeddings", json={"model": MINILM, "input": "高血压怎么办"})
        stranger = client.post("/v1/embeddings", json={"model": MINILM, "input": "x"}, headers={"Authorization": "Bearer no"})
        reranker = client.post("/v1/rerank", json={"model": MINILM, "query": "x", "documents": ["y"]})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "embedding.no_such_model")
    assert (chinese.status_code, chinese.json()["error"]["code"]) == (400, "embedding.english_only")
    assert stranger.status_code == 401
    assert reranker.status_code == 404, "an encoder is not a reranker"


def test_a_server_that_is_down_is_a_sentence(home: Home) -> None:
    with pytest.raises(Unavailable, match="server_down"):
        model_server_door.embed(MINILM, ["x"], 384)
    with pytest.raises(Unavailable, match="server_down"):
        model_server_door.rerank("any", "x", ["y"], None)


class Slow:
    """A stand-in for weights: the vector of a text is its length; every lot takes `delay_s`."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s, self.lots = delay_s, list[list[str]]()

    def encode(self, texts: Sequence[str], *, is_query: bool) -> np.ndarray:
        self.lots.append(list(texts))
        time.sleep(self.delay_s)
        if "broken" in texts:
            raise RuntimeError("no more memory")
        return np.array([[float(len(text))] for text in texts], np.float32)

    def score(self, _query: str, passages: Sequence[str], *, first: int = 0) -> list[float | None]:
        self.lots.append(list(passages))
        time.sleep(self.delay_s)
        return [float(first + i) for i in range(len(passages))]


@pytest.fixture
def serve(home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[SmallModels, Slow]]]:
    running: list[SmallModels] = []

    def make(delay_s: float = 0.02, is_answering: bool = False, **settings: object) -> tuple[SmallModels, Slow]:
        model = Slow(delay_s)
        monkeypatch.setattr("core.retrieval.encoders.open_encoder", lambda *_a, **_k: model)
        monkeypatch.setattr("core.retrieval.rerankers.open_reranker", lambda *_a, **_k: model)
        changed = Home(home.root, home.settings.model_copy(update={"device": "cpu", **settings}))
        running.append(SmallModels(changed, lambda: is_answering))
        running[-1].start()
        return running[-1], model

    yield make
    for one in running:
        one.close()


def test_a_question_does_not_wait_for_a_whole_document(serve: Callable[..., tuple[SmallModels, Slow]]) -> None:
    models, slow = serve()
    long = models.submit(Work("m", ["long text"] * (LOT * 20)))
    time.sleep(0.05)
    short = [models.submit(Work("m", [f"q{i}"])) for i in range(3)]
    assert [float(f.result(5)[0][0]) for f in short] == [2.0, 2.0, 2.0]
    assert not long.done()
    assert any(lot == ["q0", "q1", "q2"] for lot in slow.lots), "questions share a lot"
    assert len(long.result(10)) == LOT * 20


def test_a_late_rerank_has_scored_the_first_passages(serve: Callable[..., tuple[SmallModels, Slow]]) -> None:
    models, _ = serve(delay_s=0.03)
    work = Work("r", ["p"] * (LOT * 10), "q", deadline=time.monotonic() + 0.1)
    scores = models.submit(work).result(5)
    assert 0 < len(scores) < LOT * 10
    assert len(scores) % LOT == 0
    assert scores[-1] == len(scores) - 1, "later lots know their place in the list"
    whole = models.submit(Work("r", ["p"] * (LOT + 1), "q")).result(5)
    assert len(whole) == LOT + 1


def test_answers_get_half_of_the_time(serve: Callable[..., tuple[SmallModels, Slow]]) -> None:
    models, slow = serve(delay_s=0.05, is_answering=True)
    started = time.monotonic()
    models.submit(Work("m", ["t"] * (LOT * 4))).result(10)
    assert len(slow.lots) == 4
    assert time.monotonic() - started >= 4 * 0.05 + 3 * 0.04


def test_full_broken_and_unloaded(serve: Callable[..., tuple[SmallModels, Slow]]) -> None:
    models, _ = serve(delay_s=0.2, model_server_waiting=1)
    models.submit(Work("m", ["a"]))
    with pytest.raises(Unavailable, match="busy"):
        models.submit(Work("m", ["b"]))
    models, _ = serve()
    with pytest.raises(RuntimeError, match="memory"):
        models.submit(Work("m", ["broken"])).result(5)
    assert len(models.submit(Work("m", ["works again"])).result(5)) == 1
    assert models.state()["loaded"] == ["m"]
    models.unload()
    deadline = time.monotonic() + 5
    while models.state()["loaded"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_training_on_the_accelerator_comes_first(serve: Callable[..., tuple[SmallModels, Slow]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_models, "is_gpu_job_running", lambda: True)
    models, _ = serve(model_server_yields="always")
    with pytest.raises(Unavailable, match="training"):
        models.submit(Work("m", ["a"])).result(5)
    models, _ = serve(model_server_yields="never")
    assert len(models.submit(Work("m", ["a"])).result(5)) == 1


def test_who_waits_when_the_server_ends_is_told(serve: Callable[..., tuple[SmallModels, Slow]]) -> None:
    models, _ = serve(delay_s=0.1)
    waiting = [models.submit(Work("m", ["t"] * LOT * 5)) for _ in range(2)]
    threading.Thread(target=models.close).start()
    with pytest.raises(Unavailable, match="stopping"):
        [future.result(5) for future in waiting]


def test_a_static_model_needs_no_server(home: Home) -> None:
    folder = registry.models_folder(home, "words")
    write_static(folder, ["asthma"], np.ones((1, 8)))
    registry.register(home, kind="embedding", name="words", form="static", folder=folder)
    assert open_encoder("words", place="server").encode(["asthma"], is_query=True).shape == (1, 8)
    with pytest.raises(UserError, match="name_taken"):
        registry.check_name(MINILM)
