"""The API at the edges of its types: what the fuzzer over its own document found, and that the document names every refusal."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

BIG = 2**63


@pytest.mark.parametrize(
    ("role", "method", "path", "body"),
    [
        ("engineer", "GET", f"/api/jobs/{BIG}", None),
        ("engineer", "GET", f"/api/jobs?before_id={BIG}", None),
        ("engineer", "POST", "/api/jobs", {"kind": "import", "config": {"path": "x", "dataset": "y"}, "after_id": BIG}),
        ("engineer", "POST", "/api/jobs", {"kind": "import", "config": {"path": "x", "dataset": "y"}, "priority": BIG}),
        ("engineer", "GET", f"/api/exports/{BIG}/file", None),
        ("engineer", "POST", "/api/exports", {"kind": "kto", "since": "9999-12-31T23:59:59-14:00"}),
        ("admin", "PATCH", f"/api/webhooks/{BIG}", {"is_active": False}),
        ("admin", "DELETE", f"/api/webhooks/{-BIG - 5}", None),
        ("clinician", "POST", f"/api/ask/{BIG}/feedback", {"kind": "helpful"}),
    ],
)
def test_numbers_and_times_beyond_what_can_be_stored_are_the_callers_error(
    client: TestClient, bearer: Callable[..., dict[str, str]], role: str, method: str, path: str, body: object
) -> None:
    answer = client.request(method, path, headers=bearer(role), json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "bad_request")


@pytest.mark.parametrize("url", ["http://[", "http://exa\x00mple/", "http://:80", "http://a:99999", "http://ex ample/", "ftp://x"])
def test_a_webhook_address_that_is_none_is_refused(client: TestClient, bearer: Callable[..., dict[str, str]], url: str) -> None:
    answer = client.post("/api/webhooks", headers=bearer("admin"), json={"url": url, "events": ["case.opened"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "webhooks.bad_url")


def test_half_characters_in_a_verdict_are_answered(client: TestClient, bearer: Callable[..., dict[str, str]]) -> None:
    message = {"id": "x", "type": "commit", "case": 1, "version": 0, "lease_token": "t", "form": {"verdict": "minor", "note": "\ud800"}}
    headers = bearer("clinician") | {"Content-Type": "application/json"}
    answer = client.post("/api/desk", headers=headers, content=json.dumps({"messages": [message]}))
    assert answer.status_code == 200
    assert not answer.json()["acks"][0]["ok"]


def test_the_document_names_every_refusal_in_its_one_shape(client: TestClient, bearer: Callable[..., dict[str, str]]) -> None:
    document = client.get("/api/openapi.json", headers=bearer("engineer")).json()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    wanted = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            named = operation["responses"]
            assert {"400", "401", "403", "404", "409", "413", "422", "503"} <= named.keys(), path
            assert all(named[status]["content"] == wanted for status in ("400", "401", "403", "404", "409", "413", "422"))
    refused = client.get("/api/jobs/0", headers=bearer("clinician")).json()
    assert set(refused) == {"error"}
    assert set(refused["error"]) == {"code", "message"}
