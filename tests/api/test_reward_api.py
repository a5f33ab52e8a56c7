"""POST /api/reward and the file that OpenRLHF and verl load: our reward, null for what has none."""

from __future__ import annotations

import io
import json
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from core.completions import split_completion
from core.datasets import to_prompt
from core.home import current_home
from core.scoring import Scorer, open_scorer
from db import tables as t
from db.engine import read_session, write_session
from tests import factories
from training import remote_reward

GOOD = "<think>\n1. Chest pain with cold sweat is a danger sign.\n</think>\nThis is an emergency: call an ambulance now."
Bearer = Callable[..., dict[str, str]]


def store_sample() -> int:
    with write_session() as session:
        return factories.sample(session).id


def test_the_reward_is_the_one_that_scores_here(client: TestClient, bearer: Bearer) -> None:
    sample_id = store_sample()
    body = {"completions": [GOOD, "", GOOD], "sample_ids": [sample_id] * 3, "finish_reasons": ["stop", "stop", "length"]}
    answer = client.post("/api/reward", json=body, headers=bearer("engineer"))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    with read_session() as session:
        prompt = to_prompt(session.get_one(t.Sample, sample_id))
    wanted = open_scorer(current_home()).score([prompt], [split_completion(GOOD)])[0]
    assert found["rewards"][0] == pytest.approx(wanted.reward.value)
    assert found["parts"][0] == pytest.approx(wanted.reward.parts)
    assert (found["rewards"][1], found["unscored_reasons"][1], found["num_unscored"]) == (None, "empty_answer", 1)
    assert found["scores"] == found["rewards"]
    assert (found["reward_config"], found["mode"]) == ("v1", "teacher")
    assert client.post("/api/reward", json={**body, "unscored_as": -0.5}, headers=bearer("admin")).json()["scores"][1] == -0.5


def test_openrlhfs_own_field_names_are_understood(client: TestClient, bearer: Bearer) -> None:
    headers, prompt = bearer("engineer"), "<|im_start|>user\nChest pain?<|im_end|>\n"
    sample_id = store_sample()
    merged = client.post("/api/reward", json={"query": [prompt + GOOD], "prompts": [prompt], "labels": [str(sample_id)]}, headers=headers)
    plain = client.post("/api/reward", json={"completions": [GOOD], "sample_ids": [sample_id]}, headers=headers)
    assert merged.json()["rewards"] == plain.json()["rewards"] != [None]


def test_refusals_are_sentences(client: TestClient, bearer: Bearer) -> None:
    assert client.post("/api/reward", json={"completions": ["x"], "prompts": ["y"]}).status_code == 401
    assert client.post("/api/reward", json={"completions": ["x"], "prompts": ["y"]}, headers=bearer("clinician")).status_code == 403
    headers = bearer("engineer")
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({}, 400, "remote.empty"),
        ({"completions": ["x"], "prompts": ["a", "b"]}, 400, "remote.lengths"),
        ({"completions": ["x"]}, 400, "remote.no_prompt"),
        ({"query": ["no"], "prompts": ["other"]}, 400, "remote.no_prompt"),
        ({"completions": ["x"], "sample_ids": [999]}, 404, "remote.no_sample"),
        ({"completions": ["x"] * 513, "prompts": ["y"] * 513}, 422, "bad_request"),
    ]
    for body, status, code in cases:
        answer = client.post("/api/reward", json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), body


def test_a_silent_teacher_leaves_null_and_no_rules_only_number(client: TestClient, bearer: Bearer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Scorer.judge

    def silent(self: Scorer, prompts: Any, completions: Any) -> Any:
        return [replace(j, teacher_score=None, unscored_reason="timeout") for j in real(self, prompts, completions)]

    monkeypatch.setattr(Scorer, "judge", silent)
    body = {"completions": [GOOD], "sample_ids": [store_sample()]}
    found = client.post("/api/reward", json=body, headers=bearer("engineer")).json()
    assert (found["rewards"], found["unscored_reasons"]) == ([None], ["teacher_timeout"])
    rules = client.post("/api/reward", json={**body, "with_teacher": False}, headers=bearer("admin")).json()
    assert rules["mode"] == "rules_only"
    assert rules["rewards"][0] is not None


def test_the_file_for_other_trainers(client: TestClient, bearer: Bearer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through its own HTTP call, answered by the application; a server that is away is asked again, a missing score raises."""
    token = bearer("engineer")["Authorization"].removeprefix("Bearer ")
    monkeypatch.setenv("CONSILIUM_TOKEN", token)
    monkeypatch.setattr(remote_reward, "PAUSE_S", 0.0)
    calls: list[dict[str, Any]] = []

    def urlopen(request: Any, timeout: float) -> Any:
        calls.append(json.loads(request.data))
        if len(calls) == 1:
            raise urllib.error.URLError("away")
        headers = {name.title(): value for name, value in request.header_items()}
        answer = client.post("/api/reward", content=request.data, headers=headers)
        if answer.status_code >= 400:
            raise urllib.error.HTTPError(request.full_url, answer.status_code, "refused", {}, io.BytesIO(answer.content))  # type: ignore[arg-type]
        return io.BytesIO(answer.content)

    monkeypatch.setattr(remote_reward.urllib.request, "urlopen", urlopen)
    sample_id = store_sample()
    prompt = "<|im_start|>user\nChest pain?<|im_end|>\n<|im_start|>assistant\n"
    found = remote_reward.reward_func([prompt + GOOD + "<|im_end|>", prompt + "Res"], [prompt] * 2, [str(sample_id)] * 2)
    assert len(calls) == 2
    assert calls[1] == {"completions": [GOOD, "Res"], "finish_reasons": ["stop", "length"], "sample_ids": [sample_id] * 2}
    assert float(found["rewards"][0]) > float(found["rewards"][1])
    single = remote_reward.compute_score("consilium", GOOD, None, {"sample_id": sample_id})
    assert single == pytest.approx(float(found["rewards"][0]))
    with pytest.raises(RuntimeError, match="no score"):
        remote_reward.compute_score("consilium", "", None, {"sample_id": sample_id})
    monkeypatch.setenv("CONSILIUM_UNSCORED", "-0.5")
    assert remote_reward.compute_score("consilium", "", None, {"sample_id": sample_id}) == -0.5
    with pytest.raises(RuntimeError, match="404"):
        remote_reward.compute_score("consilium", GOOD, None, {"sample_id": 999})
