"""/api/jobs over HTTP, and the one error shape."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

SFT = {"kind": "sft", "config": {"name": "my-sft"}}


def test_start_look_cancel_retry(client: TestClient, bearer: Callable[..., dict[str, str]]) -> None:
    headers = bearer("engineer")
    made = client.post("/api/jobs", json=SFT, headers=headers)
    assert made.status_code == 201
    job = made.json()
    assert job["status"] == "queued"
    assert job["config"]["lora_r"] == 16
    assert client.get("/api/jobs?status=queued", headers=headers).json()[0]["id"] == job["id"]
    assert client.get(f"/api/jobs/{job['id']}/log", headers=headers).text == ""
    assert client.post(f"/api/jobs/{job['id']}/cancel", json={}, headers=headers).json()["status"] == "cancelled"
    again = client.post(f"/api/jobs/{job['id']}/cancel", json={}, headers=headers)
    assert again.status_code == 409
    assert client.post(f"/api/jobs/{job['id']}/retry", headers=headers).json()["status"] == "queued"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/jobs/999", None, 404),
        ("GET", "/api/jobs/abc", None, 422),
        ("GET", "/api/jobs?limit=0", None, 422),
        ("POST", "/api/jobs", {"kind": "nope"}, 404),
        ("POST", "/api/jobs", {"kind": "sft", "config": {"name": "x", "lora_r": "many"}}, 400),
        ("POST", "/api/jobs", {"kind": "sft", "config": {"name": "x", "typo": 1}}, 400),
        ("POST", "/api/jobs", None, 422),
        ("GET", "/api/no-such-thing", None, 404),
    ],
)
def test_every_error_has_one_shape_and_a_sentence(
    client: TestClient, bearer: Callable[..., dict[str, str]], method: str, path: str, body: object, status: int
) -> None:
    answer = client.request(method, path, json=body, headers=bearer("engineer"))
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    assert len(error["message"]) > 20
    assert "Traceback" not in answer.text


def test_a_bug_is_a_short_id_here_and_a_traceback_in_the_log(
    client: TestClient, bearer: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from core.jobs import views

    def broken(**_: object) -> None:
        raise RuntimeError("patient Zhang is in here")

    monkeypatch.setattr(views, "newest", broken)
    answer = client.get("/api/jobs", headers=bearer("engineer"))
    assert answer.status_code == 500
    assert "Zhang" not in answer.text
    error_id = answer.json()["error"]["message"].partition("(error ")[2][:8]
    assert f"error {error_id}" in caplog.text
    assert "patient Zhang" in caplog.text
